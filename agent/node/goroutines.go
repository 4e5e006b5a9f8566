package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/goroutines"
	"github.com/lifeline-go/lifeline/agent/source/gosym"
)

const (
	// mostTargets is in how many processes a watch looks at goroutines.
	mostTargets = 64

	// openingTime bounds the reading of their executables. The largest take a
	// tenth of a second.
	openingTime = 3 * time.Second

	// glimpses is how often goroutines are looked at. The runtime counts modulo
	// 256 how often each ran, so two looks could find the same count by chance.
	glimpses = 4
)

// targets are the Go programs whose goroutines are watched.
type targets struct {
	open   []*goroutines.Target
	failed []error
	left   int // processes that there was no time for

	slept, worked time.Duration
}

// watchGoroutines waits for a time, and meanwhile looks at the goroutines of the
// processes that w asks for. What it found is to be added to a look after it.
func (n *Node) watchGoroutines(ctx context.Context, d time.Duration, w Want, m *fact.Machine) (list []fact.Goroutines, blind []fact.Blind, err error) {
	if w.Goroutines == nil {
		return nil, nil, sleep(ctx, d)
	}
	list, t, err := n.glimpse(ctx, d, w.chosen(m), mostTargets)
	return list, t.blind(), err
}

// Glimpse is what [Node.Goroutines] saw.
type Glimpse struct {
	Programs []fact.Goroutines // by PID
	Blind    []fact.Blind
	Worked   time.Duration // without the time between its looks
}

// Goroutines looks for a time at the goroutines of those of the processes that
// are Go programs: of so many at the most, the first in pids first. The others
// are left out.
func (n *Node) Goroutines(ctx context.Context, d time.Duration, pids []int32, most int) (Glimpse, error) {
	list, t, err := n.glimpse(ctx, d, pids, most)
	t.left = 0 // it is their turn later
	return Glimpse{list, t.blind(), t.worked}, err
}

// glimpse looks several times within d at the goroutines of some processes.
func (n *Node) glimpse(ctx context.Context, d time.Duration, pids []int32, most int) (list []fact.Goroutines, t *targets, err error) {
	begin := time.Now()
	t = n.openTargets(ctx, pids, most)
	defer t.close()
	defer func() { t.worked = time.Since(begin) - t.slept }()
	for i := range glimpses {
		if i > 0 { // what opening took is part of the time to wait
			rest := max(d*time.Duration(i)/(glimpses-1)-time.Since(begin), d/(2*glimpses))
			if err := sleep(ctx, rest); err != nil {
				return nil, t, err
			}
			t.slept += rest
		}
		t.each(func(target *goroutines.Target) error { return target.Look() })
	}
	t.each(func(target *goroutines.Target) error {
		parked, err := target.Parked()
		if err == nil {
			list = append(list, parked)
		}
		return err
	})
	slices.SortFunc(list, func(a, b fact.Goroutines) int { return int(a.PID) - int(b.PID) })
	return list, t, nil
}

// chosen are the processes that opened a TCP connection and that are asked for.
func (w *Want) chosen(m *fact.Machine) []int32 {
	pids := Callers(m)
	if w.Process != 0 {
		pids = []int32{w.Process}
	}
	return slices.DeleteFunc(pids, func(pid int32) bool {
		p := m.Process(pid)
		return p == nil || !w.Goroutines(p)
	})
}

// openTargets opens the Go programs among some processes, so many at the most.
func (n *Node) openTargets(ctx context.Context, pids []int32, most int) *targets {
	t := &targets{}
	deadline := time.Now().Add(openingTime)
	for _, pid := range pids {
		if pid == int32(os.Getpid()) {
			continue
		}
		program, err := n.programs.OfProcess(pid)
		known := err == nil
		if known && program.Go == "" {
			continue
		}
		if len(t.open) == most || time.Now().After(deadline) || ctx.Err() != nil {
			t.left++
			continue
		}
		target, err := goroutines.Open(pid)
		if errors.Is(err, gosym.ErrNotGo) && !known {
			continue
		}
		if err != nil {
			t.fail(err)
			continue
		}
		t.open = append(t.open, target)
	}
	return t
}

// Callers are the processes that hold a TCP connection which is not to a port
// that somebody here listens on for it, by PID.
func Callers(m *fact.Machine) (pids []int32) {
	type port struct {
		netns  uint32
		number uint16
	}
	listening := make(map[port]bool)
	for i := range m.Sockets {
		if s := &m.Sockets[i]; s.Protocol == fact.TCP && s.State == fact.Listen {
			listening[port{s.Netns, s.Local.Port()}] = true
		}
	}
	for i := range m.Sockets {
		s := &m.Sockets[i]
		if s.Protocol != fact.TCP || s.State != fact.Established && s.State != fact.SynSent || listening[port{s.Netns, s.Local.Port()}] {
			continue
		}
		for _, o := range s.Owners {
			pids = append(pids, o.PID)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

// each calls do with every target and drops those that fail.
func (t *targets) each(do func(*goroutines.Target) error) {
	t.open = slices.DeleteFunc(t.open, func(target *goroutines.Target) bool {
		err := do(target)
		if err == nil {
			return false
		}
		t.fail(err)
		target.Close()
		return true
	})
}

// fail keeps an error, other than that the process is gone.
func (t *targets) fail(err error) {
	if !errors.Is(err, fs.ErrNotExist) {
		t.failed = append(t.failed, err)
	}
}

func (t *targets) close() {
	for _, target := range t.open {
		target.Close()
	}
}

func (t *targets) blind() (list []fact.Blind) {
	if n := len(t.failed); n > 0 {
		b := goroutines.Blind(t.failed[0])
		if n > 1 {
			b.Error += fmt.Sprintf(", and of %d more", n-1)
		}
		list = append(list, b)
	}
	if t.left > 0 {
		list = append(list, fact.Blind{Source: "goroutines", Error: fmt.Sprintf("%d Go programs were left out, as there are so many", t.left), Needs: "--pid or --process of lifeline calls"})
	}
	return list
}
