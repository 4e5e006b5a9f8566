package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"time"

	"github.com/lifeline-go/lifeline/agent/act/evac"
	"github.com/lifeline-go/lifeline/agent/lab"
)

// What evac aims at, for all flows of the story at once.
const evacAim = 500 * time.Millisecond

// evacuate measures how long a node that forwards connections takes to reset
// both ends of all of them. Without it the ends learn nothing for minutes.
func evacuate(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("evac", flag.ContinueOnError)
	n := flags.Int("flows", storySize, "connections that the node forwards")
	within := flags.Duration("within", 5*time.Second, "over which they are spread when paced")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := lab.Missing(lab.NFTables.Programs()...); err != nil {
		return err
	}
	t := newTable("evac of %d flows that the node forwards, both ends", *n)
	r, err := evacuated(ctx, *n, evac.Options{})
	if err != nil {
		return err
	}
	t.took("unpaced", r.Took, evacAim)
	var most float64 // share of the flows that were early or late
	r, err = evacuated(ctx, *n, evac.Options{Within: *within, Progress: func(p evac.Progress) {
		plan := float64(p.Flows) * min(1, float64(p.Elapsed)/float64(*within))
		most = max(most, math.Abs(float64(p.Begun)-plan)/float64(p.Flows))
	}})
	if err != nil {
		return err
	}
	t.row(fmt.Sprintf("within %v: off the even pace by", *within), percent(most), "≤ "+percent(paceAim), most/paceAim)
	t.took(fmt.Sprintf("within %v: took", *within), r.Took, *within)
	return t.print()
}

// evacuated builds the story, evacuates its node and checks that both ends of
// every connection know.
func evacuated(ctx context.Context, n int, o evac.Options) (r evac.Result, err error) {
	err = lab.Run(func(l *lab.Lab) error {
		s := l.Story(lab.NFTables)
		listener, err := listen(s.Pod, lab.StoryPod)
		if err != nil {
			return err
		}
		defer listener.Close()
		f, err := open(ctx, s.LB, listener, lab.StoryNodePort, n, 0)
		if err != nil {
			return err
		}
		defer f.close()
		err = s.Node.Do(func() error {
			r, err = evac.Run(ctx, o)
			return err
		})
		if err != nil {
			return err
		}
		both := fleet{servers: append(f.clients[:n:n], f.servers...)}
		if over := both.over(); over != 2*n {
			return fmt.Errorf("%d of %d ends were reset", over, 2*n)
		}
		return nil
	})
	return r, err
}
