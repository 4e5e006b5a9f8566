package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"
)

// manyHosts measures a command on all hosts, by each tool in turn; then with some
// of the hosts frozen.
func manyHosts(ctx context.Context, s *servers, o sshOptions) error {
	tools := s.tools(o)
	for range o.rounds {
		for _, t := range tools {
			r, err := s.over(ctx, t)
			if err != nil {
				return err
			}
			t.runs = append(t.runs, r)
		}
	}
	fmt.Printf("ssh: a command on %d hosts, %d at a time, %d rounds, each program in turn; an sshd for each host, which take %d MiB together\n",
		o.hosts, o.window, o.rounds, s.memory()>>20)
	if err := compareTools(tools, o.hosts); err != nil || o.frozen == 0 {
		return err
	}
	frozen := s.spread(o.frozen)
	calm := make([]time.Duration, len(tools))
	for i, t := range tools {
		calm[i] = t.middle(func(r tour) time.Duration { last, _ := r.last(s.addrs, frozen); return last })
	}
	if err := s.freeze(frozen); err != nil {
		return err
	}
	fmt.Printf("ssh: %d of %d hosts are frozen before they are dialed; connections may take %d s\n", o.frozen, o.hosts, connectTimeout)
	err := s.compareFrozen(ctx, tools, calm, frozen, connectTimeout)
	if err := s.thaw(frozen); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	if err := pause(ctx, 2*time.Second); err != nil { // they see what was dialed meanwhile
		return err
	}
	for addr := range frozen {
		if err := os.WriteFile(filepath.Join(s.file("frozen"), addr), nil, 0o600); err != nil {
			return err
		}
	}
	fmt.Printf("ssh: %d of %d hosts freeze when they have begun the command; servers may be silent for %d s, commands may take %d s\n",
		o.frozen, o.hosts, quietLimit, commandTimeout)
	return s.compareFrozen(ctx, tools, calm, frozen, quietLimit)
}

// compareTools prints medians, and what each takes beside Lifeline.
func compareTools(tools []*tool, hosts int) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\twall min\tmedian\tCPU min\tmedian\twall × lifeline\tCPU × lifeline\tanswered\t")
	wall, cpu := func(r tour) time.Duration { return r.wall }, func(r tour) time.Duration { return r.cpu }
	for _, t := range tools {
		least := hosts
		for _, r := range t.runs {
			least = min(least, len(r.answered))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.1f\t%.1f\t%d of %d\t\n", t.name, short(t.least(wall)), short(t.middle(wall)), short(t.least(cpu)), short(t.middle(cpu)),
			ratio(t.middle(wall), tools[0].middle(wall)), ratio(t.middle(cpu), tools[0].middle(cpu)), least, hosts)
	}
	fmt.Fprintln(w)
	return w.Flush()
}

func (t *tool) least(of func(tour) time.Duration) time.Duration {
	return of(slices.MinFunc(t.runs, func(a, b tour) int { return cmp.Compare(of(a), of(b)) }))
}

func (t *tool) middle(of func(tour) time.Duration) time.Duration {
	sorted := slices.SortedFunc(slices.Values(t.runs), func(a, b tour) int { return cmp.Compare(of(a), of(b)) })
	return of(sorted[len(sorted)/2])
}

// compareFrozen runs each tool once while hosts are frozen, and prints when the
// last healthy host had answered, beside what that took without them (calm), and
// when the tool was through. Bound is how many seconds each frozen host may take.
func (s *servers) compareFrozen(ctx context.Context, tools []*tool, calm []time.Duration, frozen map[string]bool, bound int) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	healthy := len(s.addrs) - len(frozen)
	fmt.Fprintf(w, "\t%d healthy, none frozen\twith the frozen\t×\tanswered\tover after\tsince the last healthy\tbound\tfrozen hosts named\t\n", healthy)
	for i, t := range tools {
		r, err := s.over(ctx, t)
		if err != nil {
			return err
		}
		last, missing := r.last(s.addrs, frozen)
		told := 0
		for addr := range frozen {
			if r.named[addr] {
				told++
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.2f\t%d of %d\t%s\t%s\t%d s\t%d of %d\t\n", t.name, short(calm[i]), short(last), ratio(last, calm[i]), healthy-missing, healthy,
			short(r.wall), short(r.wall-last), bound, told, len(frozen))
	}
	fmt.Fprintln(w)
	return w.Flush()
}
