package main

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// callsFlags are the flags of lifeline calls as typed.
type callsFlags struct {
	look          time.Duration
	pid           int32
	process, peer string
}

func newCalls() *cobra.Command {
	var f callsFlags
	cmd := &cobra.Command{
		Use:   "calls",
		Short: "Says what has asked and got no answer, since when, and where in the code",
		Long: "Lists what waits for an answer: of each process the connections whose last word was its own, since\n" +
			"when, and whether the other kernel acknowledged it (the path lives, the program there does not answer)\n" +
			"or not (the path is dead). Of Go programs also the goroutines that wait within a call, with their\n" +
			"stacks, and for how long at least; also where the connection is alive. Stripped programs too, in\n" +
			"containers too. Their memory is read while they run on: nothing is stopped, changed or sent.\n\n" +
			"What waits all through the look is listed; a call that is answered meanwhile is not, so a longer look\n" +
			"shows fewer. Goroutines of other users' programs need CAP_SYS_PTRACE.",
		Example: "  lifeline calls                        what waits on this machine\n" +
			"  lifeline calls --process manager      one program\n" +
			"  lifeline calls --peer 10.0.0.7        one host\n" +
			"  lifeline calls --pid 812 --json       every goroutine that waits, with its stack",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runCalls(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.look, "for", 2*time.Second, "how long to look")
	flags.Int32Var(&f.pid, "pid", 0, "only this process")
	flags.StringVar(&f.process, "process", "", "only processes of this `name`")
	flags.StringVar(&f.peer, "peer", "", "only what waits for this `address` or network")
	return cmd
}

func runCalls(cmd *cobra.Command, f *callsFlags) error {
	if f.look < 100*time.Millisecond || f.look > longestLook {
		return usageError{fmt.Errorf("--for %v is out of range: take a time from 100ms to 1h", f.look)}
	}
	switch {
	case f.pid < 0:
		return usageError{fmt.Errorf("--pid %d is not a process: take a number from 1", f.pid)}
	case f.pid != 0 && !node.Alive(f.pid):
		return usageError{fmt.Errorf("no process has PID %d", f.pid)}
	}
	only, err := parsePeer(f.peer)
	if err != nil {
		return usageError{err}
	}
	n := node.New()
	defer n.Close()
	m, err := n.Watch(cmd.Context(), f.look, node.Want{Sockets: sockdiag.Want{TCP: true}, Goroutines: f.wants})
	if err != nil {
		return blindError{err}
	}
	waiting := verdict.Unanswered(m, f.look)
	waiting = slices.DeleteFunc(waiting, func(w verdict.Waiting) bool { return !f.keeps(m, &w, only) })
	if asJSON(cmd) {
		return show.CallsJSON(cmd.OutOrStdout(), m, waiting)
	}
	style, _ := terminal(cmd.OutOrStdout())
	show.Calls(cmd.OutOrStdout(), waiting, style)
	show.Blindness(cmd.ErrOrStderr(), m.Blind, style)
	return nil
}

// wants chooses the processes that are asked for.
func (f *callsFlags) wants(p *fact.Process) bool {
	return (f.pid == 0 || p.PID == f.pid) && (f.process == "" || p.Name == f.process)
}

// keeps leaves out what was not asked for, of goroutines too. What waits for an
// address that is not known may wait for any that its process has a connection
// with.
func (f *callsFlags) keeps(m *fact.Machine, w *verdict.Waiting, only netip.Prefix) bool {
	if f.pid != 0 && w.PID != f.pid || f.process != "" && w.Process != f.process {
		return false
	}
	if !only.IsValid() || w.Peer.IsValid() {
		return !only.IsValid() || only.Contains(w.Peer.Addr())
	}
	w.Goroutines = slices.DeleteFunc(w.Goroutines, func(g verdict.Waiter) bool { return g.Peer.IsValid() && !only.Contains(g.Peer.Addr()) })
	if len(w.Goroutines) == 0 {
		return false
	}
	return slices.ContainsFunc(m.Sockets, func(s fact.Socket) bool {
		return only.Contains(s.Remote.Addr()) && slices.ContainsFunc(s.Owners, func(o fact.Owner) bool { return o.PID == w.PID })
	})
}
