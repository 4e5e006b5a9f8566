package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/act/tune"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// tuneFlags are the flags of lifeline tune as typed.
type tuneFlags struct {
	selectorFlags
	within, userTimeout time.Duration
	rate, cgroup        string
	keep, pins          string
	undo, yes           bool
}

func newTune() *cobra.Command {
	var f tuneFlags
	cmd := &cobra.Command{
		Use:   "tune",
		Short: "Shortens keepalive of running programs, so that silence is noticed soon",
		Long: "Sets the keepalive of TCP connections of running programs, which do not notice, so that a peer of\n" +
			"an idle connection that died without a word is noticed within a time. Connections that are tight\n" +
			"enough already stay as they are. Without --yes it only says what it would do. The old options are\n" +
			"kept in /run/lifeline; --undo restores them, but not over what a program has set meanwhile.\n\n" +
			"--cgroup also keeps new connections of a cgroup tuned, against what their programs ask for, until\n" +
			"--undo. That stays when the command ends, where a file system for BPF is mounted at /sys/fs/bpf.\n\n" +
			"Keepalive does not run while data is unacknowledged. --user-timeout covers that, and is a trap: it\n" +
			"also ends connections to a live peer that does not read for so long (zero window), and it takes the\n" +
			"place of the number of probes, so that idle connections are noticed only after it.\n\n" +
			"It needs Linux 6.1, CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_ADMIN, or CAP_SYS_PTRACE.",
		Example: "  lifeline tune --process ws-server                   what it would do\n" +
			"  lifeline tune --process ws-server --within 4s --yes\n" +
			"  lifeline tune --cgroup system.slice/ws.service --yes   new connections too\n" +
			"  lifeline tune --undo                                what is tuned\n" +
			"  lifeline tune --undo --yes                          and back",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTune(cmd, &f) },
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.DurationVar(&f.within, "within", tune.DefaultWithin, "notice a silent peer of an idle connection within this time")
	flags.DurationVar(&f.userTimeout, "user-timeout", 0, "also set TCP_USER_TIMEOUT, which ends connections to slow readers too (default not touched)")
	flags.StringVar(&f.cgroup, "cgroup", "", "connections of this cgroup v2, `path` or directory, and those that it will have")
	flags.StringVar(&f.rate, "rate", act.Unpaced.String(), "connections per second: each may send a probe at once")
	flags.BoolVar(&f.undo, "undo", false, "restore what was before, of all that is tuned or of --cgroup")
	flags.BoolVar(&f.yes, "yes", false, "do it")
	flags.StringVar(&f.keep, "keep", tune.DefaultDir, "`directory` for the old options")
	flags.StringVar(&f.pins, "pins", tune.DefaultPins, "`directory` in a file system for BPF, for --cgroup")
	return cmd
}

// tuning is what the flags ask for.
type tuning struct {
	choice
	options tune.Options
	hold    tune.HoldOptions
	cgroup  *tune.Cgroup // nil without --cgroup
}

// parse checks the flags; every error says how to say it right.
func (f *tuneFlags) parse(cmd *cobra.Command) (t tuning, err error) {
	changed := cmd.Flags().Changed
	named := f.peer != "" || f.process != "" || f.pid != 0 || f.netns != "" && f.netns != "all"
	switch {
	case f.undo && (named || slices.ContainsFunc([]string{"within", "user-timeout", "rate"}, changed)):
		return t, errors.New("--undo takes back all that is tuned, or what is of --cgroup: it goes with no other choice")
	case f.cgroup != "" && named:
		return t, errors.New("--cgroup names the connections: it goes without --peer, --process, --pid and --netns")
	case !f.undo && f.cgroup == "" && !named:
		return t, errors.New("it touches nothing that is not named: take one or several of --peer, --process, --pid, --netns, or --cgroup")
	case changed("user-timeout") && f.userTimeout == 0:
		return t, errors.New("--user-timeout 0s: leave the flag out to not touch it")
	}
	t.options = tune.Options{Within: f.within, UserTimeout: f.userTimeout, Dir: f.keep}
	t.hold = tune.HoldOptions{Pins: f.pins, Dir: f.keep}
	if f.within == 0 { // not left to the default: it was typed
		f.within = -1
	}
	if err := (&tune.Options{Within: f.within}).Check(); err != nil {
		return t, fmt.Errorf("--within %v: %w", max(f.within, 0), err)
	}
	if err := t.options.Check(); err != nil {
		return t, fmt.Errorf("--user-timeout %v: %w", f.userTimeout, err)
	}
	if t.options.Rate, err = act.ParseRate(f.rate); err != nil {
		return t, fmt.Errorf("--rate %w", err)
	}
	if named {
		t.choice, err = f.selectorFlags.parse()
		return t, err
	}
	t.want = node.Want{Sockets: sockdiag.Want{TCP: true}}
	if f.cgroup != "" {
		if t.cgroup, err = tune.FindCgroup(f.cgroup); err != nil {
			return t, fmt.Errorf("--cgroup %w", err)
		}
	}
	return t, nil
}

// look takes a look and chooses from it.
func (t *tuning) look(ctx context.Context) (m *fact.Machine, chosen []*fact.Socket, err error) {
	m, chosen, err = t.choice.look(ctx)
	if t.cgroup != nil {
		chosen = slices.DeleteFunc(chosen, func(s *fact.Socket) bool { return !t.cgroup.Has(s) })
	}
	return m, chosen, err
}

func runTune(cmd *cobra.Command, f *tuneFlags) error {
	t, err := f.parse(cmd)
	if err != nil {
		return usageError{err}
	}
	if f.undo {
		return runUndo(cmd, f, &t)
	}
	var held *tune.Held
	if f.yes && t.cgroup != nil { // first, so that no connection begins between the look and this
		if held, err = tune.Hold(cmd.Context(), t.cgroup, t.options, t.hold); err != nil {
			return blindError{err}
		}
		defer held.Close()
	}
	m, chosen, err := t.look(cmd.Context())
	if err != nil {
		return err
	}
	plan, err := tune.Plan(m, chosen, t.options)
	if err != nil {
		return usageError{err}
	}
	if !f.yes {
		return printPlannedTune(cmd, m, &t, &plan)
	}
	err = tuneNow(cmd, m, chosen, &t, &plan, held)
	if held != nil && !held.Pinned {
		if err != nil { // of connections that are there; those to come are held all the same
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", cmd.CommandPath(), oneLine(err))
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "No file system for BPF is mounted at the place of %s, so new connections are tuned only until this is interrupted.\n", f.pins)
		<-cmd.Context().Done()
	}
	return err
}

// tuneNow tunes the chosen connections and says what became of them.
func tuneNow(cmd *cobra.Command, m *fact.Machine, chosen []*fact.Socket, t *tuning, plan *tune.Planned, held *tune.Held) error {
	o := t.options
	o.After = func(r tune.Report) {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s tuned %s, %s gone, %s failed, %s left\n", time.Now().Format(time.TimeOnly), verdict.Number(len(r.Tuned)),
			verdict.Number(len(r.Gone)), verdict.Number(len(r.Failed)), verdict.Number(len(r.Left)))
	}
	report, stopped := tune.Run(cmd.Context(), m, chosen, o)
	if stopped != nil && len(report.Tuned) == 0 && len(report.Failed) == 0 {
		return blindError{stopped}
	}
	if report.NoBPF != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "Without BPF each socket is borrowed from its process: %s.\n", oneLine(report.NoBPF))
	}
	if err := printTuned(cmd, m, t, plan, &report, held, stopped); err != nil {
		return err
	}
	switch {
	case stopped != nil:
		return blindError{stopped}
	case len(report.Failed) > 0:
		return blindError{fmt.Errorf("%s of %s connections could not be tuned, the first: %w", verdict.Number(len(report.Failed)),
			verdict.Number(len(chosen)), report.Failed[0].Err)}
	}
	return nil
}

// runUndo takes back what is tuned.
func runUndo(cmd *cobra.Command, f *tuneFlags, t *tuning) error {
	held, err := tune.Holds(t.hold)
	if err != nil {
		return blindError{err}
	}
	o := tune.UndoOptions{Dir: f.keep}
	if t.cgroup != nil {
		o.Only = t.cgroup.Has
		held = slices.DeleteFunc(held, func(h tune.Held) bool { return h.ID != t.cgroup.ID })
	}
	if f.yes { // first, because what holds a cgroup would hold its options too
		for _, h := range held {
			if err := tune.Release(cmd.Context(), h.ID, t.hold); err != nil {
				return blindError{err}
			}
		}
	}
	n := node.New()
	defer n.Close()
	m, err := n.Look(cmd.Context(), t.want)
	if err != nil {
		return blindError{err}
	}
	if !f.yes {
		there, elsewhere, err := tune.Kept(m, o)
		if err != nil {
			return blindError{err}
		}
		return printPlannedUndo(cmd, m, there, elsewhere, held)
	}
	report, err := tune.Undo(cmd.Context(), m, o)
	if err != nil {
		return blindError{err}
	}
	if err := printUndone(cmd, m, &report, held); err != nil {
		return err
	}
	if len(report.Failed) > 0 {
		return blindError{fmt.Errorf("%s connections could not be restored and stay known, the first: %w", verdict.Number(len(report.Failed)), report.Failed[0].Err)}
	}
	return nil
}
