package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/lab/leaker"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/bound"
)

// labLeaksFlags are the flags of lifeline lab leaks as typed.
type labLeaksFlags struct{ every, idle, most time.Duration }

func newLabLeaks() *cobra.Command {
	var f labLeaksFlags
	cmd := &cobra.Command{
		Use:   "leaks",
		Short: "A CI agent makes a Docker client for each build and never closes it",
		Long: "Builds two agents from the same few lines, one with the Docker client of the story (docker/docker\n" +
			"v20.10.27), which keeps its connections for ever, and one with that of today (moby/moby/client v0.6.2),\n" +
			"which closes those that were idle for 30 s; without symbols, as releases are. Both build again and again\n" +
			"against a Docker daemon: that of this machine, or one that is started for this. Lifeline looks at both,\n" +
			"and must name the line of the first, and have nothing to say about the second.\n\n" +
			"All is taken down in the end; what a killed run leaves behind, the next one removes. It needs root, the\n" +
			"programs go and, where no Docker daemon runs, dockerd, and the Go module proxy. The exit code is 1 when\n" +
			"the first was not found, or the second was.",
		Example: "  lifeline lab leaks                about 2 minutes\n" +
			"  lifeline lab leaks --every 33s    8 builds, about 4 minutes\n" +
			"  lifeline lab leaks --json",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runLabLeaks(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.every, "every", 10*time.Second, "the time between two builds of an agent")
	flags.DurationVar(&f.idle, "idle", leaker.HealTime+2*time.Second, "a socket that nobody used for so long is idle; more than the 30 s after which the second client heals itself")
	flags.DurationVar(&f.most, "most", 5*time.Minute, "give up after this time")
	return cmd
}

// check says of a flag that is wrong how to say it right.
func (f *labLeaksFlags) check() error {
	switch {
	case f.every < 100*time.Millisecond || f.every > 10*time.Minute:
		return fmt.Errorf("--every %v is out of range: take a time from 100ms to 10m", f.every)
	case f.idle < 100*time.Millisecond || f.idle > longestLook:
		return fmt.Errorf("--idle %v is out of range: take a time from 100ms to 1h", f.idle)
	case f.most < time.Second || f.most > 3*longestLook:
		return fmt.Errorf("--most %v is out of range: take a time from 1s to 3h", f.most)
	}
	return nil
}

func runLabLeaks(cmd *cobra.Command, f *labLeaksFlags) error {
	if err := f.check(); err != nil {
		return usageError{err}
	}
	if err := lab.Missing(leaker.Needs...); err != nil {
		return blindError{err}
	}
	host, err := os.Hostname()
	if err != nil {
		return blindError{err}
	}
	log := cmd.ErrOrStderr()
	fmt.Fprintf(log, "Two agents that build every %s, each with a Docker client for each build. Ctrl-C takes everything down.\n\n", bound.Format(f.every))
	r := leaker.Replay{Every: f.every, Idle: f.idle, Most: f.most, Event: func(e leaker.Event) {
		fmt.Fprintf(log, "%7.1f s  %-24s  %s\n", e.Since.Seconds(), e.With, e.Text)
	}}
	runs, err := r.Play(cmd.Context())
	if err != nil {
		return blindError{err}
	}
	fmt.Fprintln(log)
	var rows []show.LabLeak
	wrong := false
	for _, run := range runs {
		row := show.LabLeak{With: run.With, Took: run.Took, Builds: run.Builds, Sockets: run.Sockets, Suspect: run.Suspect, Found: run.Found, FoundAt: run.FoundAt,
			Site: run.Site, Expected: run.Name == leaker.DockerLeaks}
		wrong = wrong || row.Found.OK != row.Expected
		rows = append(rows, row)
	}
	m := &fact.Machine{Host: host, Time: time.Now()}
	if asJSON(cmd) {
		err = show.LabLeaksJSON(cmd.OutOrStdout(), m, rows)
	} else {
		style, _ := terminal(cmd.OutOrStdout())
		show.LabLeaks(cmd.OutOrStdout(), rows, style)
	}
	if err == nil && wrong {
		err = errFindings
	}
	return err
}
