package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"time"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/node"
)

// What cut aims at: this long for the connections of the story, and this near to
// the rate that was asked for.
const (
	cutAim  = 120 * time.Millisecond
	paceAim = 0.05
)

// cut measures act.Cut beside ss -K.
func cut(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("cut", flag.ContinueOnError)
	n := flags.Int("connections", storySize, "how many are cut")
	rounds := flags.Int("rounds", 3, "times that each is run; the best counts")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return lab.Run(func(l *lab.Lab) error {
		c := cutter{n: *n, node: node.New()}
		defer c.node.Close()
		c.pod, c.router = twoHosts(l)
		var bare, whole, ss []time.Duration
		for range *rounds {
			d, all, err := c.lifeline(ctx, act.Unpaced)
			if err != nil {
				return err
			}
			bare, whole = append(bare, d), append(whole, all)
			if d, err = c.ss(ctx); err != nil {
				return err
			}
			ss = append(ss, d)
		}
		t := newTable("cut of %d connections, the best of %d", *n, *rounds)
		t.took("ss -K", best(ss), 0)
		t.took("act.Cut with its look", best(whole), best(ss))
		t.took("act.Cut", best(bare), cutAim)
		for _, rate := range []act.Rate{act.DefaultRate, 2000} {
			off, err := c.paced(ctx, rate)
			if err != nil {
				return err
			}
			t.row("act.Cut at "+rate.String()+": off by", percent(off), "≤ "+percent(paceAim), off/paceAim)
		}
		return t.print()
	})
}

type cutter struct {
	n           int
	node        *node.Node
	pod, router *lab.Host
}

// fleet opens the connections that are to be cut.
func (c *cutter) fleet(ctx context.Context, n int) (*fleet, func(), error) {
	var f *fleet
	l, err := listen(c.pod, "10.77.1.3:8080")
	if err != nil {
		return nil, nil, err
	}
	if f, err = open(ctx, c.router, l, "10.77.1.3:8080", n, 0); err != nil {
		_ = l.Close()
		return nil, nil, err
	}
	return f, func() { f.close(); _ = l.Close() }, nil
}

// lifeline cuts all, and returns how long that took without and with the look
// that finds them.
func (c *cutter) lifeline(ctx context.Context, rate act.Rate) (bare, whole time.Duration, err error) {
	f, done, err := c.fleet(ctx, c.n)
	if err != nil {
		return 0, 0, err
	}
	defer done()
	began := time.Now()
	m, sockets, err := connections(ctx, c.node, c.pod)
	if err != nil {
		return 0, 0, err
	}
	looked := time.Now()
	report, err := act.Cut(ctx, m, sockets, act.CutOptions{Rate: rate})
	bare, whole = time.Since(looked), time.Since(began)
	if err != nil {
		return 0, 0, err
	}
	if len(report.Cut) != c.n {
		return 0, 0, fmt.Errorf("cut %d of %d", len(report.Cut), c.n)
	}
	return bare, whole, c.check("act.Cut", f)
}

func (c *cutter) ss(ctx context.Context) (time.Duration, error) {
	f, done, err := c.fleet(ctx, c.n)
	if err != nil {
		return 0, err
	}
	defer done()
	cmd := c.pod.Command("ss", "-K", "-H", "-t", "dst", "10.77.1.2")
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("ss -K: %w", err)
	}
	return time.Since(began), c.check("ss -K", f)
}

func (c *cutter) check(who string, f *fleet) error {
	if over := f.over(); over != c.n {
		return fmt.Errorf("%s ended %d of %d connections", who, over, c.n)
	}
	return nil
}

// paced cuts for two seconds, and returns by what share of the rate it was off.
func (c *cutter) paced(ctx context.Context, rate act.Rate) (off float64, err error) {
	_, done, err := c.fleet(ctx, 2*int(rate))
	if err != nil {
		return 0, err
	}
	defer done()
	m, sockets, err := connections(ctx, c.node, c.pod)
	if err != nil {
		return 0, err
	}
	var first, last int
	var firstAt, lastAt time.Time
	_, err = act.Cut(ctx, m, sockets, act.CutOptions{Rate: rate, After: func(r act.CutReport) {
		last, lastAt = len(r.Cut), time.Now()
		if first == 0 {
			first, firstAt = last, lastAt
		}
	}})
	if err != nil {
		return 0, err
	}
	real := float64(last-first) / lastAt.Sub(firstAt).Seconds()
	return math.Abs(real/float64(rate) - 1), nil
}
