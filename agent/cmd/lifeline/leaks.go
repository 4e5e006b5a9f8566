package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// leaksFlags are the flags of lifeline leaks as typed.
type leaksFlags struct {
	look    time.Duration
	idle    time.Duration
	pid     int32
	process string
	watch   bool
	all     bool
	light   bool
	failOn  string
}

func newLeaks() *cobra.Command {
	var f leaksFlags
	cmd := &cobra.Command{
		Use:   "leaks [-- CMD [ARG…]]",
		Short: "Says what was opened and never closed, by the line of code that opened it",
		Long: "Watches who opens sockets and says which code keeps opening them although ever more that it opened\n" +
			"before are open and not used any more: function, file and line, the peer and its process, how many,\n" +
			"since when they are idle, and how long the file limit lasts. Programs are not changed or stopped;\n" +
			"stripped ones too, in containers too. Sockets that were open before are only counted.\n\n" +
			"A leak needs time to be told from a pool: it takes at least six times that the code opens a socket\n" +
			"after --idle; what looks like one before is a suspect. Who asked is seen also where the connection\n" +
			"was opened in another goroutine, as net/http does, if the program was started with\n" +
			"GODEBUG=tracebackancestors=10, which CMD is; with --pid or --process by uprobes, which are taken out\n" +
			"at the end. Programs that are not Go are told of by module and offset.\n\n" +
			"CMD is watched until it ends, with all that it starts, and keeps its exit code.",
		Example: "  lifeline leaks --pid 812 --for 5m     one process\n" +
			"  lifeline leaks --process drone-agent  by name\n" +
			"  lifeline leaks --watch                the whole machine, each leak as it is found\n" +
			"  lifeline leaks -- ./agent -v          starts a program, and says at its end what it left open",
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 0 {
				return noArguments(cmd, args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runLeaks(cmd, &f, args) },
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.look, "for", 30*time.Second, "how long to look")
	flags.DurationVar(&f.idle, "idle", verdict.LeakIdle, "a socket that nobody used for so long is idle")
	flags.Int32Var(&f.pid, "pid", 0, "only this process")
	flags.StringVar(&f.process, "process", "", "only processes of this `name`")
	flags.BoolVar(&f.watch, "watch", false, "look until interrupted, and print each leak as it is found, with --all also suspects")
	flags.BoolVar(&f.all, "all", false, "show also code against which nothing speaks; always with CMD")
	flags.BoolVar(&f.light, "light", false, "do not look at what is sent and received: idle is known of TCP only, and not who used it")
	flags.StringVar(&f.failOn, "fail-on", "fail", "exit with 1 from this `severity` on: fail (a leak) or warn (a suspect)")
	cmd.Annotations = map[string]string{exitCodes: "0 no leak, 1 leaks, 2 wrong usage, 3 could not look; with CMD its own"}
	return cmd
}

// check says what is wrong with the flags.
func (f *leaksFlags) check(args []string) error {
	switch {
	case f.look < time.Second || f.look > 24*longestLook:
		return fmt.Errorf("--for %v is out of range: take a time from 1s to 24h", f.look)
	case f.idle < 100*time.Millisecond || f.idle > longestLook:
		return fmt.Errorf("--idle %v is out of range: take a time from 100ms to 1h", f.idle)
	case f.failOn != "fail" && f.failOn != "warn":
		return fmt.Errorf("--fail-on %q is no severity of leaks: take fail or warn", f.failOn)
	case len(args) > 0 && (f.pid != 0 || f.process != "" || f.watch):
		return errors.New("a command after -- is watched alone, until it ends: leave out --pid, --process and --watch")
	case f.pid < 0:
		return fmt.Errorf("--pid %d is not a process: take a number from 1", f.pid)
	case f.pid != 0 && !node.Alive(f.pid):
		return fmt.Errorf("no process has PID %d", f.pid)
	}
	return nil
}

func runLeaks(cmd *cobra.Command, f *leaksFlags, args []string) error {
	if err := f.check(args); err != nil {
		return usageError{err}
	}
	n := node.New()
	defer n.Close()
	w := leaksWatch{flags: f, cmd: cmd, node: n}
	// While it is young, a watch suspects by what has been idle for a tenth of it.
	w.verdict = verdict.LeakWatch{Idle: f.idle, Suspect: min(max(f.look/10, time.Second), f.idle/10)}
	if f.watch || len(args) > 0 {
		w.verdict.Suspect = f.idle / 10
	}
	w.verdict.Suspect = max(w.verdict.Suspect, 50*time.Millisecond)
	var err error
	want := node.OpenersWant{Uses: !f.light, Only: w.wants, Trace: f.pid != 0 || f.process != ""}
	if w.openers, err = n.Openers(want); err != nil {
		return blindError{leaksNeeds(err)}
	}
	defer w.openers.Close()
	if len(args) > 0 {
		return w.command(args)
	}
	if err := w.run(cmd.Context(), f.look); err != nil {
		return blindError{err}
	}
	return w.exit()
}

// leaksNeeds adds to an error what would help.
func leaksNeeds(err error) error {
	if b := node.OpenersBlind(err); b.Needs != "" {
		return fmt.Errorf("%w; needs %s", err, b.Needs)
	}
	return err
}

// leaksWatch is one run of lifeline leaks.
type leaksWatch struct {
	flags   *leaksFlags
	cmd     *cobra.Command
	node    *node.Node
	openers *node.Openers
	verdict verdict.LeakWatch
	child   int32     // PID of CMD; 0 = none
	asked   time.Time // when a census was last taken, with CMD
	sites   []verdict.LeakSite
	told    map[string]verdict.LeakVerdict // by site, with --watch
}

// wants chooses processes by the flags; of a command that one and all that it starts.
func (w *leaksWatch) wants(pid int32, name string) bool {
	switch {
	case w.child != 0:
		return pid == w.child || node.Descends(pid, w.child)
	case int(pid) == os.Getpid():
		return false
	}
	return (w.flags.pid == 0 || pid == w.flags.pid) && (w.flags.process == "" || name == w.flags.process)
}

// tick is how often is looked: often enough to see each socket of a burst idle.
func (w *leaksWatch) tick() time.Duration {
	return min(max(w.verdict.Suspect/4, 100*time.Millisecond), time.Second)
}

// run looks until the time is over, or until ctx ends with --watch.
func (w *leaksWatch) run(ctx context.Context, d time.Duration) error {
	end := time.Now().Add(d)
	for {
		o, err := w.openers.Look(ctx)
		if err != nil {
			return err
		}
		w.verdict.Look(o)
		switch {
		case w.flags.watch:
			if err := w.tell(ctx, o); err != nil {
				return err
			}
		case !time.Now().Before(end):
			return w.report(ctx, o)
		}
		if err := pause(ctx, w.tick()); err != nil {
			return err
		}
	}
}

// report is what is said at the end.
func (w *leaksWatch) report(ctx context.Context, o *fact.Openings) error {
	if err := w.openers.Ends(ctx, o); err != nil {
		return err
	}
	w.sites = w.verdict.Sites()
	out := w.cmd.OutOrStdout()
	if len(w.told) > 0 || w.flags.watch {
		return nil
	}
	if asJSON(w.cmd) {
		return show.LeaksJSON(out, machine(o), o, w.sites, false)
	}
	style, _ := terminal(out)
	show.Leaks(out, o, w.sites, w.flags.all, style)
	show.Blindness(w.cmd.ErrOrStderr(), o.Blind, style)
	return nil
}

// tell prints what has become known since, for --watch.
func (w *leaksWatch) tell(ctx context.Context, o *fact.Openings) error {
	var news []verdict.LeakSite
	if w.told == nil {
		w.told = make(map[string]verdict.LeakVerdict)
	}
	for _, s := range w.verdict.Sites() {
		if s.Verdict > w.told[s.Key()] && (s.Verdict == verdict.Leaking || w.flags.all) {
			news = append(news, s)
			w.told[s.Key()] = s.Verdict
		}
	}
	if len(news) == 0 {
		return nil
	}
	if err := w.report(ctx, o); err != nil { // now with the processes at the other ends
		return err
	}
	out := w.cmd.OutOrStdout()
	for _, s := range w.sites {
		for i := range news {
			if news[i].Key() != s.Key() {
				continue
			}
			if asJSON(w.cmd) {
				if err := show.LeaksJSON(out, machine(o), o, []verdict.LeakSite{s}, true); err != nil {
					return err
				}
				continue
			}
			style, _ := terminal(out)
			show.Leak(out, &s, style)
		}
	}
	return nil
}

func machine(o *fact.Openings) *fact.Machine {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return &fact.Machine{Host: host, Time: time.Now(), Blind: o.Blind}
}

// exit is the exit code by what was found.
func (w *leaksWatch) exit() error {
	for _, s := range w.sites {
		if s.Verdict == verdict.Leaking || s.Verdict == verdict.Suspected && w.flags.failOn == "warn" {
			return errFindings
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-wait.C:
		return nil
	}
}
