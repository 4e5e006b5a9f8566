package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lifeline-go/lifeline/names"
	"github.com/lifeline-go/lifeline/names/getaddrinfo"
)

//go:embed getaddrinfo/lookups.c
var lookupsInC string

const (
	systemName   = "system.test"
	systemRounds = 3000 // by one caller; by more, as many together
	dearRounds   = 300  // of what starts a process each time
)

// unregistered takes the place of the way through getaddrinfo, which this program
// has imported, for what is measured without it.
type unregistered struct{}

func (unregistered) Name() string { return "getaddrinfo" }
func (unregistered) Lookup(context.Context, string, string) ([]netip.Addr, error) {
	return nil, getaddrinfo.ErrUnavailable
}

// systemNames compares ways to ask the C library from a program without cgo, and
// what a program with it pays, where a nameserver answers at once.
func systemNames(ctx context.Context) error {
	s, err := serveNames(firstServer, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := resolve(firstServer)
	if err != nil {
		return err
	}
	r.ours.Close()
	cold, memory, err := coldStart(ctx)
	if err != nil {
		return err
	}
	var way getaddrinfo.Way
	defer way.Close()
	resolver := &names.Resolver{System: []names.Way{&way}}
	defer resolver.Close()
	t := newTable("names: the C library asked from a program without cgo; a nameserver answers at once (A and AAAA)")
	t.took("getaddrinfo, the first lookup with the start of its process", cold, 0)
	t.row("getaddrinfo, memory of its process", memory, "-", 0)
	for _, callers := range []int{1, 16} {
		inC, err := systemInC(ctx, callers)
		if err != nil {
			return err
		}
		rows := []struct {
			name   string
			rounds int
			look   lookup
		}{
			{"getaddrinfo", systemRounds, onlyWay(&way)},
			{"package names by getaddrinfo", systemRounds, others(onlyNames(resolver))},
			{"getent", dearRounds, onlyWay(names.Getent())},
			{"package net", systemRounds, others(r.byNet)},
		}
		with := fmt.Sprintf(", %d callers", callers)
		if callers == 1 {
			with = ", 1 caller"
		}
		for _, row := range rows {
			sum, err := byCallers(ctx, callers, row.rounds, row.look)
			if err != nil {
				return fmt.Errorf("%s: %w", row.name, err)
			}
			compared(t, row.name+with, sum, inC)
		}
		if inC.most > 0 {
			compared(t, "a program in C"+with, inC, summary{})
		}
	}
	return t.print()
}

// compared adds a line; the aim, where there is something to compare with, is
// what a program in C pays.
func compared(t *table, name string, s, inC summary) {
	aim, ratio := "-", 0.0
	if inC.most > 0 {
		aim, ratio = "in C "+micro(inC.p50), float64(s.p50)/float64(inC.p50)
	}
	t.row(name+", median; 99 of 100 within", micro(s.p50)+"; "+micro(s.p99), aim, ratio)
}

func onlyWay(way names.Way) lookup {
	return func(ctx context.Context, name string) ([]netip.Addr, error) { return way.Lookup(ctx, "ip", name) }
}

func onlyNames(r *names.Resolver) lookup {
	return func(ctx context.Context, name string) ([]netip.Addr, error) { return r.LookupNetIP(ctx, "ip", name) }
}

// others looks up names that were not looked up before: package names remembers
// answers, and both it and package net ask once for who asks the same together.
func others(look lookup) lookup {
	var n atomic.Int64
	return func(ctx context.Context, name string) ([]netip.Addr, error) {
		return look(ctx, fmt.Sprintf("%d.%s", n.Add(1), name))
	}
}

// coldStart returns how long a first lookup takes, the median of some, and what
// memory the process then has.
func coldStart(ctx context.Context) (time.Duration, string, error) {
	var took []time.Duration
	memory := ""
	for range 20 {
		var way getaddrinfo.Way
		d, err := timed(ctx, onlyWay(&way), systemName)
		if err == nil {
			took = append(took, d)
			memory, err = residentChild("lifeline-names")
		}
		if err := errors.Join(err, way.Close()); err != nil {
			return 0, "", err
		}
	}
	return summarize(took).p50, memory, nil
}

// residentChild returns the memory of the child of this process that has a name.
func residentChild(name string) (string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return "", err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		status := make(map[string]string)
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(line, ":")
			status[key] = strings.TrimSpace(value)
		}
		if status["Name"] == name && status["PPid"] == strconv.Itoa(os.Getpid()) {
			return status["VmRSS"], nil
		}
	}
	return "", fmt.Errorf("no child is called %s", name)
}

// byCallers looks a name up as often as rounds says, by several callers together.
func byCallers(ctx context.Context, callers, rounds int, look lookup) (summary, error) {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		took []time.Duration
		errs []error
	)
	for range callers {
		wg.Go(func() {
			for range rounds / callers {
				d, err := timed(ctx, look, systemName)
				mu.Lock()
				took = append(took, d)
				mu.Unlock()
				if err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	return summarize(took), errors.Join(errs...)
}

// systemInC is what a program in C pays; the zero summary where there is no
// compiler.
func systemInC(ctx context.Context, callers int) (summary, error) {
	compiler, err := exec.LookPath("gcc")
	if err != nil {
		return summary{}, nil
	}
	const program = "/mnt/lookups" // of this mount namespace alone
	build := exec.CommandContext(ctx, compiler, "-O2", "-pthread", "-o", program, "-x", "c", "-")
	build.Stdin = strings.NewReader(lookupsInC)
	if out, err := build.CombinedOutput(); err != nil {
		return summary{}, fmt.Errorf("gcc: %w: %s", err, out)
	}
	out, err := exec.CommandContext(ctx, program, systemName, strconv.Itoa(callers), strconv.Itoa(systemRounds/callers)).Output()
	if err != nil {
		return summary{}, fmt.Errorf("the program in C: %w", err)
	}
	var took []time.Duration
	for line := range strings.Lines(string(out)) {
		ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			return summary{}, err
		}
		took = append(took, time.Duration(ns))
	}
	return summarize(took), nil
}
