package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What may grow in an hour, and still count as flat: half an hour cannot tell less
// from what the collector of garbage, and what happens to be open, come to.
const (
	flatMemory = 24 << 20
	flatCount  = 20
)

// sampled is the agent at one moment of a soak.
type sampled struct {
	at time.Duration
	agentUsage
	goroutines int
	heap       float64
}

// soakAgent watches the agent for growth: memory, goroutines, files and threads.
func soakAgent(ctx context.Context, f *agentFlags, a *agentRun, node *busyNode) error {
	if err := a.sleep(ctx, max(warming, f.soak/10)); err != nil {
		return err
	}
	began, opened := time.Now(), node.opened()
	var all []sampled
	fmt.Println("minutes  resident MiB  heap MiB  goroutines  files  threads  CPU s  sockets")
	for next := 0; time.Since(began) < f.soak; next++ {
		one, err := a.sample(ctx, time.Since(began))
		if err != nil {
			return err
		}
		all = append(all, one)
		if next%6 == 0 {
			fmt.Printf("%7.1f  %12.1f  %8.1f  %10d  %5d  %7d  %5.1f  %7d\n", one.at.Minutes(), float64(one.resident)/(1<<20), one.heap/(1<<20), one.goroutines, one.files, one.threads, one.cpu.Seconds(), a.page.state().Totals.Sockets)
		}
		if err := errors.Join(a.sleep(ctx, 10*time.Second), node.trouble()); err != nil {
			return err
		}
	}
	last := all[len(all)-1]
	t := newTable("lifeline agent over %v: %d sockets, %d connections, %d processes and %d namespaces came and went; growth is the slope of the least of each tenth",
		f.soak, a.page.state().Totals.Sockets, node.opened()-opened, node.started(), node.namespaces())
	processorRow(t, &all[0].agentUsage, &last.agentUsage, last.at-all[0].at)
	t.row("resident memory, the most", mebibytes(last.peak), "≤ "+mebibytes(agentMemory), float64(last.peak)/agentMemory)
	var grown []error
	for _, g := range []struct {
		name string
		of   func(*sampled) float64
		show func(float64) string
		flat float64
	}{
		{"resident memory", func(s *sampled) float64 { return float64(s.resident) }, func(v float64) string { return fmt.Sprintf("%+.2f MiB", v/(1<<20)) }, flatMemory},
		{"heap in use", func(s *sampled) float64 { return s.heap }, func(v float64) string { return fmt.Sprintf("%+.2f MiB", v/(1<<20)) }, flatMemory},
		{"goroutines", func(s *sampled) float64 { return float64(s.goroutines) }, func(v float64) string { return fmt.Sprintf("%+.1f", v) }, flatCount},
		{"files", func(s *sampled) float64 { return float64(s.files) }, func(v float64) string { return fmt.Sprintf("%+.1f", v) }, flatCount},
		{"threads", func(s *sampled) float64 { return float64(s.threads) }, func(v float64) string { return fmt.Sprintf("%+.1f", v) }, flatCount},
	} {
		grows := slope(least(all, g.of), g.of) * float64(time.Hour)
		t.row(g.name+", growth in an hour", g.show(grows), "≤ "+g.show(g.flat), max(grows, 0)/g.flat)
		if grows > g.flat {
			grown = append(grown, fmt.Errorf("%s grows by %s an hour", g.name, g.show(grows)))
		}
	}
	if err := a.historyRow(ctx, t); err != nil {
		return err
	}
	return errors.Join(t.print(), errors.Join(grown...))
}

func (a *agentRun) sample(ctx context.Context, at time.Duration) (s sampled, err error) {
	s.at = at
	if s.agentUsage, err = a.measure(); err != nil {
		return s, err
	}
	text, err := a.get(ctx, "metrics")
	if err != nil {
		return s, err
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		number, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "go_goroutines":
			s.goroutines = int(number)
		case "go_memstats_heap_inuse_bytes":
			s.heap = number
		}
	}
	return s, nil
}

// least are those of each tenth: what is above is what the collector has not got to
// yet.
func least(all []sampled, of func(*sampled) float64) (few []sampled) {
	tenth := max(len(all)/10, 1)
	for part := range slices.Chunk(all, tenth) {
		few = append(few, slices.MinFunc(part, func(a, b sampled) int { return cmp.Compare(of(&a), of(&b)) }))
	}
	return few
}

// slope is how much more it becomes, for each nanosecond: the middle of the slopes from
// each to each (Theil and Sen), so that one moment which is unlike all others, such as
// the first, decides nothing.
func slope(all []sampled, of func(*sampled) float64) float64 {
	var slopes []float64
	for i := range all {
		for j := range all[:i] {
			if apart := float64(all[i].at - all[j].at); apart > 0 {
				slopes = append(slopes, (of(&all[i])-of(&all[j]))/apart)
			}
		}
	}
	if len(slopes) == 0 {
		return 0
	}
	slices.Sort(slopes)
	return (slopes[len(slopes)/2] + slopes[(len(slopes)-1)/2]) / 2
}
