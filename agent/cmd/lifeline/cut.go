package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// selectorFlags choose the connections that an act touches.
type selectorFlags struct {
	peer, process, state, netns string
	pid                         int32
	named                       bool // what else is given names enough
}

func (f *selectorFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.peer, "peer", "", "connections to this `address` or network")
	flags.StringVar(&f.process, "process", "", "connections of processes of this `name`")
	flags.Int32Var(&f.pid, "pid", 0, "connections of this process")
	flags.StringVar(&f.netns, "netns", "", "network namespace: all, self, a PID, a `name` of /run/netns or a path (default all)")
}

// choice is what selectorFlags ask for.
type choice struct {
	filter census.Filter
	want   node.Want
}

// parse checks the flags; every error says how to say it right.
func (f *selectorFlags) parse() (c choice, err error) {
	if !f.named && f.peer == "" && f.process == "" && f.pid == 0 && f.state == "" && (f.netns == "" || f.netns == "all") {
		return c, errors.New("it touches nothing that is not named: take one or several of --peer, --process, --pid, --state, --netns")
	}
	c.want.Sockets = sockdiag.Want{TCP: true}
	if c.filter.Peer, err = parsePeer(f.peer); err != nil {
		return c, err
	}
	if c.filter.States, err = parseStates(f.state); err != nil {
		return c, err
	}
	if f.pid < 0 {
		return c, fmt.Errorf("--pid %d is not a process: take a number from 1", f.pid)
	}
	if f.pid != 0 && !node.Alive(f.pid) {
		return c, fmt.Errorf("no process has PID %d", f.pid)
	}
	c.filter.Process, c.filter.PID = f.process, f.pid
	c.want.Namespaces, err = node.ParseNamespaces(f.netns)
	return c, err
}

// look takes a look and chooses from it, never what is Lifeline's own.
func (c choice) look(ctx context.Context) (m *fact.Machine, chosen []*fact.Socket, err error) {
	n := node.New()
	defer n.Close()
	m, err = n.Look(ctx, c.want)
	if err != nil {
		return nil, nil, blindError{err}
	}
	return m, act.Select(m, c.filter, int32(os.Getpid())), nil
}

// touched counts chosen sockets by whom an act on them touches.
func touched(m *fact.Machine, chosen []*fact.Socket) census.Census {
	only := *m
	only.Sockets = make([]fact.Socket, len(chosen))
	for i, s := range chosen {
		only.Sockets[i] = *s
	}
	return census.Count(&only, census.Options{By: []census.Key{census.Peer, census.Netns}})
}

// cutFlags are the flags of lifeline cut as typed.
type cutFlags struct {
	selectorFlags
	rate        string
	whileSilent bool
	yes         bool

	silent, watch, evenAll bool
	look, ask              time.Duration
}

func newCut() *cobra.Command {
	var f cutFlags
	cmd := &cobra.Command{
		Use:   "cut",
		Short: "Destroys connections, so that their programs learn now",
		Long: "Destroys TCP connections of any process, at a rate, so that programs that wait on a dead path learn\n" +
			"it now: here they get ECONNABORTED at once, and the other end a reset if it can be reached. Without\n" +
			"--yes it only says what it would do. It cannot be undone. Listeners are left alone unless --state\n" +
			"LISTEN asks for them. It needs CAP_NET_ADMIN.\n\n" +
			"--silent cuts what is connected to a peer that falls silent: it watches as silence --watch does, until\n" +
			"the first verdict falls or --for is over, and with --watch until it is interrupted. It stops at the first\n" +
			"sign of life of the peer, and the rest live. A peer is not cut when others have connections in the same\n" +
			"network namespace too and none of them answers either: then it is most likely this machine's own link,\n" +
			"new connections would fail as well, and all would come back at once. --even-all cuts all the same.\n" +
			"Connections that are idle show no death before their keepalive does; --ask 1s finds it within 3 s, see\n" +
			"silence -h.",
		Example: "  lifeline cut --peer 10.77.1.2                        whom it would touch\n" +
			"  lifeline cut --peer 10.77.1.2 --yes                  500 a second\n" +
			"  lifeline cut --peer 10.77.1.2 --while-silent --yes   and stop at the first sign of life\n" +
			"  lifeline cut --silent --watch --ask 1s --yes         each peer that dies, as soon as it does\n" +
			"  lifeline cut --process ws-server --state CLOSE_WAIT --rate 50/s --yes",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runCut(cmd, &f) },
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.state, "state", "", "only these `states`, such as ESTABLISHED,CLOSE_WAIT")
	flags.StringVar(&f.rate, "rate", act.DefaultRate.String(), "connections per second, or max, so that they come back spread")
	flags.BoolVar(&f.whileSilent, "while-silent", false, "stop as soon as a peer acknowledges or sends anything")
	flags.BoolVar(&f.silent, "silent", false, "connections to peers that fall silent while it watches")
	flags.BoolVar(&f.watch, "watch", false, "with --silent: until interrupted, each peer as it falls silent")
	flags.DurationVar(&f.look, "for", 5*time.Second, "with --silent: how long to wait for a verdict")
	flags.DurationVar(&f.ask, "ask", 0, "with --silent: ask peers that were not heard for so long (0: only suspects)")
	flags.BoolVar(&f.evenAll, "even-all", false, "with --silent: also when no other peer answers")
	flags.BoolVar(&f.yes, "yes", false, "do it")
	return cmd
}

func runCut(cmd *cobra.Command, f *cutFlags) error {
	rate, err := act.ParseRate(f.rate)
	if err != nil {
		return usageError{fmt.Errorf("--rate %w", err)}
	}
	f.named = f.silent
	c, err := f.parse()
	if err == nil {
		err = f.parseSilent(cmd)
	}
	if err != nil {
		return usageError{err}
	}
	if f.silent {
		return runCutSilent(cmd, f, rate, c)
	}
	since := time.Now()
	m, chosen, err := c.look(cmd.Context())
	if err != nil {
		return err
	}
	if !f.yes {
		return printPlannedCut(cmd, m, chosen, rate)
	}
	o := act.CutOptions{Rate: rate, After: func(r act.CutReport) { logBatch(cmd, r) }}
	if f.whileSilent {
		o.Before = act.StillSilent(m, since)
	}
	start := time.Now()
	report, stopped := act.Cut(cmd.Context(), m, chosen, o)
	if err := printCut(cmd, m, &report, time.Since(start), stopped); err != nil {
		return err
	}
	switch {
	case errors.Is(stopped, act.ErrAlive):
		return errFindings
	case stopped != nil:
		return blindError{stopped}
	case len(chosen) == 0:
		if err := act.MayCut(); err != nil {
			return blindError{err}
		}
	case len(report.Failed) > 0:
		return blindError{fmt.Errorf("%s of %s connections could not be cut, the first: %w", verdict.Number(len(report.Failed)),
			verdict.Number(len(chosen)), report.Failed[0].Err)}
	}
	return nil
}

// logBatch says on the way how far a cut is.
func logBatch(cmd *cobra.Command, r act.CutReport) {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s cut %s, %s gone, %s failed, %s left\n", time.Now().Format(time.TimeOnly), verdict.Number(len(r.Cut)),
		verdict.Number(len(r.Gone)), verdict.Number(len(r.Failed)), verdict.Number(len(r.Left)))
}

// printPlannedCut writes what a cut would do.
func printPlannedCut(cmd *cobra.Command, m *fact.Machine, chosen []*fact.Socket, rate act.Rate) error {
	out, count := cmd.OutOrStdout(), touched(m, chosen)
	if asJSON(cmd) {
		return show.ActJSON(out, m, false, show.Touched("cut", &count), rateValue(rate), verdict.Value{Key: "seconds", V: rate.Duration(len(chosen)).Seconds()},
			verdict.Value{Key: "undo", V: nil})
	}
	if len(chosen) == 0 {
		fmt.Fprintln(out, "No connection is like that.")
	} else {
		show.Touching(out, &count)
		fmt.Fprintf(out, "Would cut %s connections", verdict.Number(len(chosen)))
		if rate != act.Unpaced {
			fmt.Fprintf(out, " at %s, in %s", rate, bound.Format(rate.Duration(len(chosen))))
		}
		fmt.Fprintf(out, ". Nothing is done without --yes.\n")
	}
	style, _ := terminal(out)
	show.Blindness(cmd.ErrOrStderr(), m.Blind, style)
	return nil
}

func rateValue(rate act.Rate) verdict.Value {
	v := verdict.Value{Key: "rate_per_second"}
	if rate != act.Unpaced {
		v.V = int(rate)
	}
	return v
}

// printCut writes what a cut did.
func printCut(cmd *cobra.Command, m *fact.Machine, r *act.CutReport, took time.Duration, stopped error) error {
	out, count := cmd.OutOrStdout(), touched(m, r.Cut)
	if asJSON(cmd) {
		var reason any
		if stopped != nil {
			reason = stopped.Error()
		}
		return show.ActJSON(out, m, true, show.Touched("cut", &count),
			verdict.Value{Key: "gone", V: len(r.Gone)},
			verdict.Value{Key: "failed", V: len(r.Failed)},
			verdict.Value{Key: "left", V: len(r.Left)},
			verdict.Value{Key: "seconds", V: took.Seconds()},
			verdict.Value{Key: "stopped", V: reason},
			verdict.Value{Key: "undo", V: nil})
	}
	if len(r.Cut) > 0 {
		show.Touching(out, &count)
	}
	if len(r.Cut)+len(r.Gone)+len(r.Failed)+len(r.Left) == 0 {
		fmt.Fprintln(out, "No connection is like that.")
	} else {
		fmt.Fprintf(out, "Cut %s connections in %s", verdict.Number(len(r.Cut)), bound.Format(took))
		if len(r.Gone) > 0 {
			fmt.Fprintf(out, "; %s were gone already", verdict.Number(len(r.Gone)))
		}
		fmt.Fprintln(out, ".")
	}
	if stopped != nil {
		fmt.Fprintf(out, "Stopped, %s left alone: %v.\n", verdict.Number(len(r.Left)), stopped)
	}
	style, _ := terminal(out)
	show.Blindness(cmd.ErrOrStderr(), m.Blind, style)
	return nil
}
