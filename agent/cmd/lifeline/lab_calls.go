package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/lab/manager"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/bound"
)

// labCallsFlags are the flags of lifeline lab calls as typed.
type labCallsFlags struct{ wait, silence time.Duration }

// labCallsTakes is what a replay takes beside the wait.
const labCallsTakes = 10 * time.Second

func newLabCalls() *cobra.Command {
	var f labCallsFlags
	cmd := &cobra.Command{
		Use:   "calls",
		Short: "Hosts that a manager drives over SSH reboot, freeze and refuse",
		Long: "Builds four hosts of network namespaces with OpenSSH's server, and managers that keep connections to\n" +
			"them: one with golang.org/x/crypto/ssh as its documentation shows it, one with the story's workaround\n" +
			"(deadlines on a TCP connection of its own, and a short keepalive), two with the program ssh and\n" +
			"ControlMaster, without and with ServerAliveInterval, and one with package ssh of Lifeline. Then one host\n" +
			"loses its links, one is frozen, one refuses, and all managers call on. It prints how long each call\n" +
			"blocked, what it said, and what each client left behind when its manager had closed what it could.\n" +
			"What happens is told on standard error.\n\n" +
			"The machine's own network is not touched, and all is taken down in the end; what a killed run leaves\n" +
			"behind, the next one removes. It needs root and the programs ip, nsenter, ssh and sshd. The exit code is 1\n" +
			"when a call of Lifeline outlived its bound, or left anything behind.",
		Example: "  lifeline lab calls              about 90 seconds, most of it the wait for who has no bound\n" +
			"  lifeline lab calls --wait 25s   no longer than Lifeline takes\n" +
			"  lifeline lab calls --wait 16m --json",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runLabCalls(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.wait, "wait", 75*time.Second, "give up calls that are still blocked after this time")
	flags.DurationVar(&f.silence, "silence", 20*time.Second, "how long Lifeline lets a server say nothing")
	return cmd
}

// check says of a flag that is wrong how to say it right.
func (f *labCallsFlags) check() error {
	switch {
	case f.wait < time.Second || f.wait > 3*time.Hour:
		return fmt.Errorf("--wait %v is out of range: take a time from 1s to 3h", f.wait)
	case f.silence < time.Second || f.silence > 10*time.Minute:
		return fmt.Errorf("--silence %v is out of range: take a time from 1s to 10m", f.silence)
	}
	return nil
}

func runLabCalls(cmd *cobra.Command, f *labCallsFlags) error {
	if err := f.check(); err != nil {
		return usageError{err}
	}
	if err := lab.Missing(manager.Needs...); err != nil {
		return blindError{err}
	}
	host, err := os.Hostname()
	if err != nil {
		return blindError{err}
	}
	m := &fact.Machine{Host: host, Time: time.Now()}
	log := cmd.ErrOrStderr()
	fmt.Fprintf(log, "A manager each with %s, and hosts with OpenSSH's server.\nThis takes up to %s; Ctrl-C takes everything down.\n\n",
		"x/crypto/ssh, the story's workaround, ssh and Lifeline", bound.Format(f.wait+labCallsTakes))
	r := manager.Replay{
		Wait: f.wait, Silence: f.silence,
		Manager: func(with manager.With, dir string) *exec.Cmd {
			return self("lab", "ssh-manager", "--with", string(with), "--dir", dir, "--silence", f.silence.String())
		},
		Event: func(e manager.Event) { tellLabCalls(log, e) },
	}
	o, err := r.Run(cmd.Context())
	if err != nil {
		return blindError{err}
	}
	rows, left := labCallRows(o)
	if asJSON(cmd) {
		err = show.LabCallsJSON(cmd.OutOrStdout(), m, rows, left)
	} else {
		show.LabCalls(cmd.OutOrStdout(), rows, left)
	}
	if err == nil && o.Late() {
		err = errFindings
	}
	return err
}

func tellLabCalls(w io.Writer, e manager.Event) {
	since := ""
	if e.Lost {
		since = fmt.Sprintf("%.3f s", e.Since.Seconds())
	}
	fmt.Fprintf(w, "%9s  %-24s  %s\n", since, e.With, e.Text)
}

func labCallRows(o manager.Outcome) (rows []show.LabCall, left []show.LabLeft) {
	for _, r := range o.Runs {
		row := show.LabCall{Story: "calls", Host: string(r.Host), Call: string(r.Call), With: string(r.With), Took: r.Took, Waited: r.Waited,
			Lost: r.Host == manager.Reboots || r.Host == manager.Frozen, Said: fact.Printable(r.Said)}
		if row.Lost {
			row.Bound = r.Bound
		}
		rows = append(rows, row)
	}
	for _, l := range o.Left {
		left = append(left, show.LabLeft{With: string(l.With), Blocked: l.Blocked, Goroutines: l.Goroutines, Descriptors: l.Descriptors, Processes: l.Processes})
	}
	return rows, left
}

// newLabManager is what a replay of the lab starts, not people.
func newLabManager() *cobra.Command {
	var with, dir string
	var silence time.Duration
	cmd := &cobra.Command{
		Use:     "ssh-manager",
		Short:   "One of the managers of the story",
		Example: "  lifeline lab ssh-manager --with lifeline/ssh --dir /run/lifeline-17-1",
		Hidden:  true,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := manager.RunProcess(cmd.Context(), manager.With(with), dir, silence, cmd.InOrStdin(), cmd.OutOrStdout()); err != nil {
				return blindError{err}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&with, "with", string(manager.Lifeline), "the client")
	cmd.Flags().StringVar(&dir, "dir", ".", "where the keys of the lab are")
	cmd.Flags().DurationVar(&silence, "silence", 0, "how long Lifeline lets a server say nothing; 0: as recommended")
	return cmd
}
