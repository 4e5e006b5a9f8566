package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/lifeline-go/lifeline/agent/act/tune"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/node"
)

// tuneAim is for all connections of the story, with BPF.
const tuneAim = 20 * time.Millisecond

// retune measures how long it takes to set the keepalive of connections that
// belong to others, with BPF and without.
func retune(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("tune", flag.ContinueOnError)
	n := flags.Int("connections", storySize, "how many are tuned")
	rounds := flags.Int("rounds", 3, "times that each is run; the best counts")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return lab.Run(func(l *lab.Lab) error {
		pod, all, err := crowded(ctx, l, *n, 0) // in processes of their own: nobody tunes himself
		defer all.stop()
		if err != nil {
			return err
		}
		looker := node.New()
		defer looker.Close()
		t := newTable("tune of %d connections, the best of %d", *n, *rounds)
		within := 30 * time.Second
		for way, aim := range map[tune.Way]time.Duration{tune.ByBPF: tuneAim, tune.ByLoan: 0} {
			var set []time.Duration
			for range *rounds {
				within -= time.Second // so that there is something to change
				d, err := tuned(ctx, looker, pod, *n, tune.Options{Within: within, Way: way})
				if err != nil {
					return fmt.Errorf("by %v: %w", way, err)
				}
				set = append(set, d)
			}
			t.took("by "+way.String(), best(set), aim)
		}
		return t.print()
	})
}

// tuned tunes all connections of a host, and returns how long the kernel took.
// What they had before is written down and dropped: they go with the host.
func tuned(ctx context.Context, looker *node.Node, h *lab.Host, n int, o tune.Options) (time.Duration, error) {
	dir, err := os.MkdirTemp("", "lifeline-bench")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	o.Dir = dir
	m, sockets, err := connections(ctx, looker, h)
	if err != nil {
		return 0, err
	}
	r, err := tune.Run(ctx, m, sockets, o)
	if err != nil {
		return 0, err
	}
	if len(r.Tuned) != n {
		return 0, fmt.Errorf("tuned %d of %d: %d within the time already, %d changed meanwhile, %d gone, %d failed, %d left", len(r.Tuned), n, len(r.Tight), len(r.Changed), len(r.Gone), len(r.Failed), len(r.Left))
	}
	return r.Set, nil
}
