package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// What silence aims at: from the death of the node to the verdict, to the end
// of all reads, and of both where there are few connections.
const (
	verdictAim = 1200 * time.Millisecond
	readsAim   = 1500 * time.Millisecond
	fewAim     = 3 * time.Second
)

// scene is one way for a node to die.
type scene struct {
	name           string
	n              int
	spread         time.Duration // over which the connections were opened
	beat           time.Duration // 0 = idle
	ask            time.Duration // as in node.PeerWatch
	verdict, reads time.Duration // aims
	alone          int           // connections that nobody watches
}

// silence has a node die without a word under connections that are watched, and
// under a few that Go is left alone with.
func silence(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("silence", flag.ContinueOnError)
	n := flags.Int("connections", storySize, "to the node that dies")
	long := flags.Bool("long", false, "wait for Go alone, up to 3 minutes, and not only say the bound")
	times := flags.Int("times", 1, "how often the node dies of each")
	only := flags.String("only", "", "the scenes whose names contain this")
	if err := flags.Parse(args); err != nil {
		return err
	}
	t := newTable("a node dies: time until the program knows")
	for _, s := range []scene{
		{name: fmt.Sprintf("%d idle", *n), n: *n, spread: 15 * time.Second, verdict: verdictAim, reads: readsAim, alone: 3},
		{name: fmt.Sprintf("%d with heartbeats", *n), n: *n, beat: 30 * time.Second, verdict: readsAim, reads: readsAim, alone: 1},
		{name: "20 that send", n: 20, beat: time.Second, verdict: fewAim, reads: fewAim},
		{name: "20 idle", n: 20, ask: time.Second, verdict: fewAim, reads: fewAim},
		{name: "3 idle", n: 3, ask: time.Second, verdict: fewAim, reads: fewAim},
		{name: "1 idle", n: 1, ask: time.Second, verdict: fewAim, reads: fewAim},
	} {
		if !strings.Contains(s.name, *only) {
			continue
		}
		for range *times {
			if err := lab.Run(func(l *lab.Lab) error { return s.play(ctx, l, t, *long) }); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	return t.print()
}

// play lets the node die and adds what happened to the table.
func (s scene) play(ctx context.Context, l *lab.Lab, t *table, long bool) error {
	pod, router := twoHosts(l)
	listener, err := listen(pod, "10.77.1.3:8080")
	if err != nil {
		return err
	}
	defer listener.Close()
	f, err := open(ctx, router, listener, "10.77.1.3:8080", s.n, s.spread)
	if err != nil {
		return err
	}
	defer f.close()
	alone, err := s.leaveAlone(ctx, l, long)
	if err != nil {
		return err
	}
	defer alone.close()
	f.read()
	if s.beat > 0 {
		stop := f.beat(s.beat)
		defer stop()
	}
	ctx, cancel := context.WithCancel(ctx)
	w := s.guard(ctx, pod)
	defer w.wait()
	defer cancel()
	if err := pause(ctx, 10*time.Second+rand.N(5*time.Second)); err != nil { // the watch finds its pace, and the death its moment
		return err
	}
	died := time.Now()
	router.Unplug()
	alone.die()
	select {
	case <-f.done:
	case err := <-w.ended:
		return fmt.Errorf("the watch ended: %w", err)
	case <-time.After(30 * time.Second):
		return fmt.Errorf("%d of %d reads still wait after 30 s", f.left.Load(), s.n)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	last := slices.MaxFunc(f.ended, time.Time.Compare)
	t.took(s.name+": verdict", w.fell.Sub(died), s.verdict)
	t.took(s.name+": all reads returned", last.Sub(died), s.reads)
	return alone.tell(ctx, t, died)
}

// guard is a watch that cuts what falls silent.
type guard struct {
	fell  time.Time // the verdict; to be read after all connections have ended
	ended chan error
	wg    sync.WaitGroup
}

func (g *guard) wait() { g.wg.Wait() }

// guard begins to watch a host.
func (s scene) guard(ctx context.Context, h *lab.Host) *guard {
	g := &guard{ended: make(chan error, 1)}
	g.wg.Go(func() {
		of, err := node.ParseNamespaces(h.Path())
		if err != nil {
			g.ended <- err
			return
		}
		n := node.New()
		defer n.Close()
		w := node.PeerWatch{Of: of, Ask: s.ask, Brief: true}
		g.ended <- n.WatchPeers(ctx, w, func(m *fact.Machine, changes []verdict.Change) error {
			for _, c := range changes {
				if c.Verdict != verdict.Silent {
					continue
				}
				g.fell = time.Now()
				_, err := act.Cut(ctx, m, act.Select(m, census.Filter{Peer: prefixOf(c.Addr)}, 0), act.CutOptions{Rate: act.Unpaced})
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
	return g
}
