package main

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/source/opener"
)

// requestRounds are many, and short: what a request takes scatters far more than
// what is looked for.
const (
	requestRounds = 60
	requestAim    = 0.01
)

// aRound is what a round of requests cost.
type aRound struct {
	cpu, wall float64 // nanoseconds for each request, client and server together
	runs      opener.Runs
	requests  int
}

// leaksRequests measures what watching costs HTTP requests on a connection that
// is kept: how often a program of the kernel ran for each of them, for how long,
// and how much processor time the requests took with it and without.
func leaksRequests(server *leaksServer) error {
	rounds := make([][]aRound, len(leaksWays))
	for round := range requestRounds {
		for k := range leaksWays {
			way := (round + k) % len(leaksWays)
			one, err := requestRound(server, way, false)
			if err != nil {
				return err
			}
			rounds[way] = append(rounds[way], one)
		}
	}
	t := newTable("HTTP requests on a connection that is kept, client and server, in %d rounds in turn; in brackets, where the true median lies in 95 of 100 cases", requestRounds)
	var cpu, wall []float64
	for _, r := range rounds[0] {
		cpu, wall = append(cpu, r.cpu), append(wall, r.wall)
	}
	base := middleOf(cpu)
	t.row("without: processor time of a request", nanoseconds(base), "-", 0)
	t.row("  by the clock", nanoseconds(middleOf(wall)), "-", 0)
	for way := 1; way < len(leaksWays); way++ {
		counted, err := leastRuns(server, way)
		if err != nil {
			return err
		}
		each := float64(counted.runs.Took.Nanoseconds()) / float64(counted.requests)
		name := leaksWays[way].name
		aim := "0"
		if way == len(leaksWays)-1 {
			aim = "-"
		}
		t.row(name+": runs of a program for each request", fmt.Sprintf("%.3f", float64(counted.runs.Count)/float64(counted.requests)), aim, 0)
		t.row("  the time in them", fmt.Sprintf("%.0f ns, %.2f %% of a request", each, 100*each/base.at), "≤ 1 %", each/base.at/requestAim)
		var cpu, wall []float64
		for i, r := range rounds[way] {
			cpu, wall = append(cpu, r.cpu/rounds[0][i].cpu), append(wall, r.wall/rounds[0][i].wall)
		}
		t.row("  processor time beside that without", times(middleOf(cpu)), "≤ 1.01×", middleOf(cpu).at/(1+requestAim))
		t.row("  by the clock", times(middleOf(wall)), "-", 0)
	}
	return t.print()
}

func nanoseconds(m middle) string {
	return fmt.Sprintf("%.1f µs (%.1f–%.1f)", m.at/1e3, m.low/1e3, m.high/1e3)
}

func times(m middle) string { return fmt.Sprintf("%.3f× (%.3f–%.3f)", m.at, m.low, m.high) }

// leastRuns returns the round in which the fewest programs ran: their hooks see
// the whole machine, and nobody else connected in it.
func leastRuns(server *leaksServer, way int) (least aRound, err error) {
	counting, err := opener.CountRuns()
	if err != nil {
		return least, err
	}
	defer counting.Close()
	for i := range 10 {
		one, err := requestRound(server, way, true)
		if err != nil {
			return least, err
		}
		if i == 0 || one.runs.Count < least.runs.Count {
			least = one
		}
	}
	return least, nil
}

// requestRound measures some requests while one of the ways is open. What loading
// leaves behind, in this process and in the processor's caches, is the same for
// all: where nothing shall watch, it is closed again first.
func requestRound(server *leaksServer, way int, count bool) (r aRound, err error) {
	s, err := opener.Open(opener.Options{Uses: way == len(leaksWays)-1})
	if err != nil {
		return r, err
	}
	defer s.Close()
	if way == 0 {
		if err := s.Close(); err != nil {
			return r, err
		}
	}
	runtime.GC()
	for range 200 {
		if err := server.ask(); err != nil {
			return r, err
		}
	}
	var before opener.Runs
	if count {
		if before, err = s.Runs(); err != nil {
			return r, err
		}
	}
	r.requests = 1000
	began, used := time.Now(), processorTime()
	for range r.requests {
		if err := server.ask(); err != nil {
			return r, err
		}
	}
	r.cpu = float64(processorTime()-used) / float64(r.requests)
	r.wall = float64(time.Since(began)) / float64(r.requests)
	if count {
		after, err := s.Runs()
		r.runs = after.Sub(before)
		return r, err
	}
	return r, nil
}

// processorTime is that of this process so far.
func processorTime() time.Duration {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &now) != nil {
		return 0
	}
	return time.Duration(now.Nano())
}
