package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

func newPoke() *cobra.Command {
	var f selectorFlags
	cmd := &cobra.Command{
		Use:   "poke PEER",
		Short: "Asks a peer for a sign of life, now",
		Long: "Makes the kernel send an empty segment on up to three connections to a peer, of whichever process,\n" +
			"and waits for the answer that every TCP must give: no longer than a second, where the path is not\n" +
			"a very long one. No program notices: their data, timers and settings are not touched. It needs\n" +
			"Linux 5.6, CAP_NET_ADMIN and CAP_SYS_PTRACE. It exits with 0 when the peer is alive, 1 when it is\n" +
			"silent, and 3 when that could not be found out.",
		Example: "  lifeline poke 10.77.1.2                       is it alive?\n" +
			"  lifeline poke 10.77.1.2 --process ws-server   by connections of one program\n" +
			"  lifeline poke fd00::7 --netns pod             in one network namespace",
		RunE: func(cmd *cobra.Command, args []string) error { return runPoke(cmd, &f, args) },
	}
	f.add(cmd)
	_ = cmd.Flags().MarkHidden("peer") // it is the argument
	return cmd
}

// poked is the poke of a peer in one network namespace: the same address is
// another machine in another one.
type poked struct {
	netns  uint32
	report act.PokeReport
	err    error
}

func runPoke(cmd *cobra.Command, f *selectorFlags, args []string) error {
	if len(args) != 1 || f.peer != "" {
		return usageError{fmt.Errorf("it takes one address: lifeline poke 10.77.1.2; see %s -h", cmd.CommandPath())}
	}
	f.peer = args[0]
	c, err := f.parse()
	if err == nil && !c.filter.Peer.IsSingleIP() {
		err = fmt.Errorf("%q is a network: take one address of it", f.peer)
	}
	if err != nil {
		return usageError{errors.New(strings.Replace(err.Error(), "--peer ", "", 1))}
	}
	m, chosen, err := c.look(cmd.Context())
	if err != nil {
		return err
	}
	spaces := make(map[uint32][]*fact.Socket)
	for _, s := range chosen {
		spaces[s.Netns] = append(spaces[s.Netns], s)
	}
	var all []poked
	for i := range m.Namespaces {
		if inode := m.Namespaces[i].Inode; len(spaces[inode]) > 0 {
			all = append(all, poked{netns: inode})
		}
	}
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { all[i].report, all[i].err = act.Poke(cmd.Context(), spaces[all[i].netns]) })
	}
	wg.Wait()
	peer := c.filter.Peer.Addr().String()
	if err := printPoked(cmd, m, peer, all); err != nil {
		return err
	}
	return pokeResult(all)
}

// pokeResult is silence where there is any, else what kept a poke from finding
// out, else well.
func pokeResult(all []poked) error {
	if len(all) == 0 {
		return blindError{fmt.Errorf("cannot poke: %w", act.ErrNoConnection)}
	}
	var blind error
	for _, p := range all {
		switch {
		case p.report.Verdict == act.Silent:
			return errFindings
		case p.report.Verdict == act.Alive:
		case p.err != nil:
			blind = blindError{p.err}
		case blind == nil:
			blind = blindError{errors.New("unsure: nothing could be asked")}
		}
	}
	return blind
}

func printPoked(cmd *cobra.Command, m *fact.Machine, peer string, all []poked) error {
	out := cmd.OutOrStdout()
	if asJSON(cmd) {
		var list []verdict.Values
		for _, p := range all {
			list = append(list, pokedValues(m, peer, p))
		}
		return show.ActJSON(out, m, true, list, verdict.Value{Key: "undo", V: nil})
	}
	for _, p := range all {
		fmt.Fprintf(out, "%s is %s", peer, p.report.Verdict)
		if len(all) > 1 {
			fmt.Fprintf(out, " in network namespace %s", netnsName(m, p.netns))
		}
		fmt.Fprintf(out, ": %s.\n", evidence(p.report))
	}
	style, _ := terminal(out)
	show.Blindness(cmd.ErrOrStderr(), m.Blind, style)
	return nil
}

// evidence is what a verdict rests on, in one line.
func evidence(r act.PokeReport) string {
	count := make(map[act.Outcome]int)
	for _, p := range r.Evidence {
		count[p.Outcome]++
		if p.Outcome == act.Answered {
			return fmt.Sprintf("%v answered %v after %s", p.Socket.Remote, p.Socket.Local, bound.Format(p.After))
		}
		if p.Outcome == act.Reset {
			return fmt.Sprintf("%v answered %v after %s that it knows of no such connection", p.Socket.Remote, p.Socket.Local, bound.Format(p.After))
		}
	}
	var parts []string
	for o := act.Answered; o <= act.NotAsked; o++ {
		if count[o] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[o], o))
		}
	}
	return fmt.Sprintf("nothing came on %d connections in %s (%s)", len(r.Evidence), bound.Format(r.Took), strings.Join(parts, ", "))
}

func pokedValues(m *fact.Machine, peer string, p poked) verdict.Values {
	list := []verdict.Values{}
	for _, e := range p.report.Evidence {
		var after, why any
		if e.After > 0 {
			after = e.After.Milliseconds()
		}
		if e.Err != nil {
			why = e.Err.Error()
		}
		list = append(list, verdict.Values{
			{Key: "local", V: e.Socket.Local.String()},
			{Key: "remote", V: e.Socket.Remote.String()},
			{Key: "outcome", V: e.Outcome.String()},
			{Key: "after_ms", V: after},
			{Key: "probes", V: e.Probes},
			{Key: "retransmits", V: e.Retransmits},
			{Key: "error", V: why},
		})
	}
	var why any
	if p.err != nil {
		why = p.err.Error()
	}
	return verdict.Values{
		{Key: "what", V: "poke"},
		{Key: "peer", V: peer},
		{Key: "netns", V: netnsName(m, p.netns)},
		{Key: "count", V: len(list)},
		{Key: "verdict", V: p.report.Verdict.String()},
		{Key: "ms", V: p.report.Took.Round(time.Millisecond).Milliseconds()},
		{Key: "error", V: why},
		{Key: "evidence", V: list},
	}
}

// netnsName is the name of a namespace, or its inode.
func netnsName(m *fact.Machine, inode uint32) string {
	if ns := m.Namespace(inode); ns != nil && ns.Name != "" {
		return ns.Name
	}
	return fmt.Sprint(inode)
}
