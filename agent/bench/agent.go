package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/state"
)

// What the agent may cost.
const (
	agentShare  = 0.015
	agentMemory = 80 << 20
	agentDelay  = time.Second
	agentSample = 5 // bytes of history
)

// errDelays ends the part on delays.
var errDelays = errors.New("it has taken too long")

// warming is how long the agent is left alone before it is measured: what its
// sources may take at first is taken, and what they open once is open.
const warming = 90 * time.Second

// agentFlags are what is typed after bench agent.
type agentFlags struct {
	command           string
	sockets, connects int
	span, soak        time.Duration
	crowd, clients    int
}

// measureAgent measures lifeline agent on a machine on which much goes on.
func measureAgent(ctx context.Context, args []string) error {
	var f agentFlags
	flags := flag.NewFlagSet("agent", flag.ContinueOnError)
	flags.StringVar(&f.command, "lifeline", "bin/lifeline", "the command to measure")
	flags.IntVar(&f.sockets, "sockets", 30_000, "TCP sockets that stay open")
	flags.IntVar(&f.connects, "connects", 500, "connections that come and go in a second")
	flags.DurationVar(&f.span, "for", 2*time.Minute, "how long it is measured")
	flags.DurationVar(&f.soak, "soak", 0, "how long it is watched for growth, in place of all else, such as 30m")
	flags.IntVar(&f.crowd, "crowd", 0, "sockets of a second machine, on which nothing comes and goes, such as 200000; 0 = none")
	flags.IntVar(&f.clients, "clients", 1000, "event streams that are opened and not read; 0 = none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if f.command, err = filepath.Abs(f.command); err != nil {
		return err
	}
	if _, err := os.Stat(f.command); err != nil {
		return fmt.Errorf("the agent to measure: %w: make build makes it", err)
	}
	if f.soak > 0 {
		return withAgent(ctx, &f, func(a *agentRun, node *busyNode) error { return soakAgent(ctx, &f, a, node) })
	}
	err = withAgent(ctx, &f, func(a *agentRun, node *busyNode) error {
		return errors.Join(agentCosts(ctx, &f, a, node), agentDelays(ctx, a, node), agentFlood(ctx, &f, a))
	})
	if err != nil || f.crowd == 0 {
		return err
	}
	f.sockets, f.connects = f.crowd, 0
	return withAgent(ctx, &f, func(a *agentRun, node *busyNode) error { return agentCosts(ctx, &f, a, node) })
}

// withAgent calls f with a busy machine and an agent that watches it.
func withAgent(ctx context.Context, f *agentFlags, measure func(*agentRun, *busyNode) error) error {
	return lab.Run(func(l *lab.Lab) error {
		dir, err := os.MkdirTemp("", "lifeline-bench")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		a, err := startAgent(ctx, f.command, dir) // first: what is opened while it watches costs most
		if err != nil {
			return err
		}
		node := newBusyNode(l, dir, f)
		err = node.fill(ctx, f.sockets)
		if err == nil {
			err = measure(a, node)
		}
		node.stop()
		return errors.Join(err, a.stop())
	})
}

// agentCosts is what the agent takes while all is well.
func agentCosts(ctx context.Context, f *agentFlags, a *agentRun, node *busyNode) error {
	if err := a.sleep(ctx, warming); err != nil {
		return err
	}
	stats, err := a.countPrograms()
	if err != nil {
		return err
	}
	defer stats.Close()
	before, err := a.measure()
	if err != nil {
		return err
	}
	opened, events, began := node.opened(), a.page.events(), time.Now()
	if err := a.sleep(ctx, f.span); err != nil {
		return err
	}
	after, err := a.measure()
	if err != nil {
		return err
	}
	took, s := time.Since(began), a.page.state()
	rate := float64(node.opened()-opened) / took.Seconds()
	t := newTable("lifeline agent over %v: %d sockets, %.0f connects/s, %d processes and %d namespaces that came and went; one reader of the page, history, metrics every 15 s",
		took.Round(time.Second), s.Totals.Sockets, rate, node.started(), node.namespaces())
	processorRow(t, &before, &after, took)
	t.row("  its BPF programs, whoever they ran for", fmt.Sprintf("%s, %.0f runs/s", percent((after.programs.Took-before.programs.Took).Seconds()/took.Seconds()),
		float64(after.programs.Count-before.programs.Count)/took.Seconds()), "-", 0)
	if n := node.opened() - opened; n > 0 {
		each := (after.hooks.Took - before.hooks.Took) / time.Duration(n)
		t.row("  of it in the system calls of programs, for each connection, both ends", fmt.Sprintf("%.1f runs, %s", float64(after.hooks.Count-before.hooks.Count)/float64(n), fine(each)), "-", 0)
	}
	t.row("resident memory, the most", mebibytes(after.peak), "≤ "+mebibytes(agentMemory), float64(after.peak)/agentMemory)
	t.row("  at the end", mebibytes(after.resident), "-", 0)
	t.row("page updates", fmt.Sprintf("%.1f a minute, %.0f KiB each", float64(a.page.events()-events)/took.Minutes(), float64(a.page.size())/1024), "-", 0)
	for i := range s.Sources {
		if src := &s.Sources[i]; src.Took != nil {
			t.row("  source "+src.Name, fmt.Sprintf("took %s, every %s", short(seconds(*src.Took)), short(seconds(src.Every))), "-", 0)
		}
	}
	for _, b := range s.Blind {
		t.row("  not seen, "+b.Source, b.Error, "-", 0)
	}
	if err := node.instead(ctx, t); err != nil {
		return err
	}
	return t.print()
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// What the part on delays takes: it waits for each fact so long, rests so long after
// it, and ends after delaysMost whatever was seen.
const (
	delayMost  = 30 * time.Second
	delayRest  = 10 * time.Second
	delaysMost = 4 * time.Minute
)

// agentDelays is how long after a fact the page has it.
func agentDelays(ctx context.Context, a *agentRun, node *busyNode) error {
	ctx, cancel := context.WithTimeoutCause(ctx, delaysMost, errDelays)
	defer cancel()
	t := newTable("until the page has it, one reader of the stream; %v after the fact before, each waited for for %v", delayRest, delayMost)
	const many, few, listeners = 2000, 500, 50
	opened := func(n int) func(*state.State) bool {
		return func(s *state.State) bool { return peerCount(s, farAddress) >= n }
	}
	for _, fact := range []struct {
		name string
		make func() error
		seen func(*state.State) bool
		aim  time.Duration // 0: it is not for the page alone
	}{
		{fmt.Sprintf("%d connections to a new peer are opened", many), func() error { return node.openFar(ctx, many) }, opened(many), agentDelay},
		{fmt.Sprintf("%d more", few), func() error { return node.openFar(ctx, few) }, opened(many + few), agentDelay},
		{"all of them end", func() error { node.closeFar(); return nil }, func(s *state.State) bool { return peerCount(s, farAddress) == 0 }, agentDelay},
		{fmt.Sprintf("%d listeners come", listeners), func() error { return node.listenFar(listeners) }, nil, 0},
		{fmt.Sprintf("%d connections are opened again", many), func() error { return node.openFar(ctx, many) }, opened(many), agentDelay},
		{"their peer dies, while it is sent to", func() error { node.far.Unplug(); return nil }, func(s *state.State) bool { return silentPeer(s, farAddress) != nil }, 0},
	} {
		seen := fact.seen
		if seen == nil {
			was := a.page.state().Totals.TCP["LISTEN"]
			seen = func(s *state.State) bool { return s.Totals.TCP["LISTEN"] >= was+listeners*9/10 }
		}
		if err := fact.make(); err != nil {
			return errors.Join(t.print(), fmt.Errorf("%s: %w", fact.name, err))
		}
		happened := time.Now()
		s, at, err := a.page.until(ctx, delayMost, seen)
		switch {
		case err == nil:
			t.took(fact.name, at.Sub(happened), fact.aim)
		case errors.Is(err, errUnseen) || errors.Is(err, errDelays):
			t.row(fact.name, "not seen within "+short(time.Since(happened)), "-", 0)
		default:
			return fmt.Errorf("%s: %w", fact.name, err)
		}
		if f := silentPeer(s, farAddress); err == nil && f != nil && f.First.After(happened) {
			t.took("  the page, after the verdict", at.Sub(f.First), agentDelay)
		}
		if err := a.sleep(ctx, delayRest); errors.Is(err, errDelays) {
			t.row("what comes after that", fmt.Sprintf("not measured: %v are over", delaysMost), "-", 0)
			break
		} else if err != nil {
			return err
		}
	}
	return t.print()
}

// peerCount is how many connections a peer has.
func peerCount(s *state.State, peer string) int {
	n := 0
	for i := range s.Peers {
		if s.Peers[i].Peer == peer {
			n += s.Peers[i].Count
		}
	}
	return n
}

// silentPeer is the open finding that a peer is silent.
func silentPeer(s *state.State, peer string) *state.Finding {
	for i := range s.Findings {
		f := &s.Findings[i]
		if f.Code != "S001" || f.Resolved != nil {
			continue
		}
		for _, v := range f.Subject {
			if v.Key == "peer" && v.V == peer {
				return f
			}
		}
	}
	return nil
}
