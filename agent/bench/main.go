// Command bench measures what Lifeline does side by side with what a user would
// have instead, on the same sockets in the same run, and prints ratios. Figures
// of one run are comparable with each other, not with those of another machine.
//
//	bench               everything, in a few minutes
//	bench cut poke      some of it
//	bench watch -for 1m one with its own flags; -h names them
//
// It needs root, and works in network namespaces that it takes apart at the end,
// also when it is interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// measurement is something that can be measured.
type measurement struct {
	name string
	run  func(ctx context.Context, args []string) error
	what string
}

// measurements in the order in which they are run when none is named.
var measurements = []measurement{
	{"census", countSockets, "who has which sockets, beside ss, netstat and lsof"},
	{"cut", cut, "ending 4,224 connections, beside ss -K"},
	{"poke", poke, "whether a peer lives"},
	{"evac", evacuate, "resetting 4,224 connections that a node forwards"},
	{"silence", silence, "a node that dies, with and without a watch that cuts"},
	{"tune", retune, "setting the keepalive of 4,224 connections, with BPF and without"},
	{"library", library, "what lifeline.Dialer costs beside net.Dialer"},
	{"names", measureNames, "looking names up with dead and lossy nameservers, beside package net and glibc"},
	{"run", measureRun, "an unmodified static program on a machine whose nameserver swallows all: with lifeline run and without"},
	{"ledger", measureLedger, "what it costs to list the connections of a program, beside net.Dialer"},
	{"leaks", measureLeaks, "what it costs to watch who opens sockets, and to read it"},
	{"ssh", measureSSH, "commands on one connection and on 200 hosts, beside x/crypto/ssh, ssh, clush, pssh and ansible"},
	{"agent", measureAgent, "what lifeline agent takes at 30,000 sockets and 500 connects/s, and how soon its page knows"},
	{"watch", watch, "what it costs to watch 30,000 connections for silence"},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// run measures what args name: several by their names alone, or one with its
// flags.
func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "hold" {
		return hold(ctx, args[1:])
	}
	if len(args) > 0 && args[0] == "program" {
		return actAs(ctx, args[1:])
	}
	var chosen []measurement
	for len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		i := slices.IndexFunc(measurements, func(m measurement) bool { return m.name == args[0] })
		if i < 0 {
			return fmt.Errorf("%q cannot be measured; take of: %s", args[0], measurable())
		}
		chosen, args = append(chosen, measurements[i]), args[1:]
	}
	if len(chosen) == 0 && len(args) > 0 {
		fmt.Println("Usage: bench [WHAT…], or bench WHAT [flags]; without WHAT, all of these:")
		for _, m := range measurements {
			fmt.Printf("  %-8s %s\n", m.name, m.what)
		}
		return flag.ErrHelp
	}
	if len(chosen) > 1 && len(args) > 0 {
		return errors.New("flags go with one measurement at a time")
	}
	if len(chosen) == 0 {
		chosen = measurements
	}
	var failed []error
	for _, m := range chosen {
		err := m.run(ctx, args)
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	return errors.Join(failed...)
}

func measurable() string {
	var all []string
	for _, m := range measurements {
		all = append(all, m.name)
	}
	return strings.Join(all, ", ")
}
