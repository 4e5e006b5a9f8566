package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/node"
)

// What poke aims at.
const (
	aliveAim = 500 * time.Millisecond
	deadAim  = 1200 * time.Millisecond
)

// poke measures how long act.Poke takes to tell whether a peer lives. There is
// nothing to compare it with.
func poke(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("poke", flag.ContinueOnError)
	rounds := flags.Int("rounds", 5, "times that each is run; the longest counts")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return lab.Run(func(l *lab.Lab) error {
		pod, router := twoHosts(l)
		listener, err := listen(pod, "10.77.1.3:8080")
		if err != nil {
			return err
		}
		defer listener.Close()
		f, err := open(ctx, router, listener, "10.77.1.3:8080", 3, 0)
		if err != nil {
			return err
		}
		defer f.close()
		n := node.New()
		defer n.Close()
		t := newTable("poke of a peer with 3 idle connections, the longest of %d", *rounds)
		for _, test := range []struct {
			name string
			want act.Verdict
			aim  time.Duration
		}{{"alive", act.Alive, aliveAim}, {"dead", act.Silent, deadAim}} {
			if test.want == act.Silent {
				router.Unplug()
			}
			var longest time.Duration
			for range *rounds {
				// A peer answers such segments on one connection twice a second.
				if err := pause(ctx, time.Second); err != nil {
					return err
				}
				_, sockets, err := connections(ctx, n, pod)
				if err != nil {
					return err
				}
				r, err := act.Poke(ctx, sockets)
				if err != nil {
					return err
				}
				if r.Verdict != test.want {
					return fmt.Errorf("a peer that is %s is said to be %v", test.name, r.Verdict)
				}
				longest = max(longest, r.Took)
			}
			t.took(test.name, longest, test.aim)
		}
		return t.print()
	})
}
