package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// silenceFlags are the flags of lifeline silence as typed.
type silenceFlags struct {
	look                time.Duration
	peer, whatIf, netns string
	top                 int
	watch, passive      bool
	ask                 time.Duration
}

func newSilence() *cobra.Command {
	var f silenceFlags
	cmd := &cobra.Command{
		Use:   "silence",
		Short: "Says who is silent now, and how long the silence of every peer would last",
		Long: "Lists every peer outside this machine: whether it is silent now, whose connections it has, and how long\n" +
			"its death would go unnoticed. Alive means that nothing says otherwise. It sends nothing without --watch.\n\n" +
			"--watch prints each verdict as it falls and as it is lifted: within about a second of the death from 20\n" +
			"connections with traffic on. Below, a connection may just be unlucky, so the peer is poked: empty segments\n" +
			"on up to six connections and, where there are one or two, pings too, until there is an answer or none for\n" +
			"2 s. So the verdict falls within 3 s of what was sent first; with --passive, or without the rights of\n" +
			"poke, in 5 to 15 s. It takes at most about 1 % of a processor, and less where BPF is to be had: the kernel\n" +
			"says then when to look. It does not judge by a time in which it, or the machine, did not run.\n\n" +
			"On a connection that is idle nothing is sent, so nothing shows a death before keepalive does. --ask 1s\n" +
			"asks each peer that was not heard for a second, by one empty segment on up to three connections, which\n" +
			"no program notices: at most 50 peers a second, the quietest first.\n\n" +
			"--what-if says what falls silent if a peer, or all of a network, dies now, and when the programs learn.\n" +
			"Asked about an address of this machine, it says which flows end that are only forwarded.",
		Example: "  lifeline silence                          who is silent; how long could others be\n" +
			"  lifeline silence --watch                  print each verdict as it falls\n" +
			"  lifeline silence --watch --ask 1s         also those to which nobody sends anything\n" +
			"  lifeline silence --what-if 10.77.1.2      what falls silent if it dies\n" +
			"  lifeline silence --peer 10.48.0.0/14 --json",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSilence(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.look, "for", time.Second, "how long to look")
	flags.StringVar(&f.peer, "peer", "", "only this `address` or network")
	flags.StringVar(&f.whatIf, "what-if", "", "what falls silent if this `address` or network dies")
	flags.StringVar(&f.netns, "netns", "all", "network namespace: all, self, a PID, a `name` of /run/netns or a path")
	flags.IntVar(&f.top, "top", 0, "only the first N peers (0: all)")
	flags.BoolVar(&f.watch, "watch", false, "print verdicts as they fall and are lifted, until interrupted")
	flags.BoolVar(&f.passive, "passive", false, "with --watch: send nothing, and take longer")
	flags.DurationVar(&f.ask, "ask", 0, "with --watch: ask peers that were not heard for so long (0: only suspects)")
	return cmd
}

func runSilence(cmd *cobra.Command, f *silenceFlags) error {
	if f.top < 0 {
		return usageError{fmt.Errorf("--top %d is less than nothing: take a number from 1, or 0 for all", f.top)}
	}
	if f.look < 100*time.Millisecond || f.look > longestLook {
		return usageError{fmt.Errorf("--for %v is out of range: take a time from 100ms to 1h", f.look)}
	}
	if f.watch && f.whatIf != "" {
		return usageError{fmt.Errorf("--watch and --what-if are two questions: ask one at a time")}
	}
	if err := f.parseWatch(); err != nil {
		return usageError{err}
	}
	only, err := parsePeer(f.peer)
	if err != nil {
		return usageError{err}
	}
	dead, err := parsePeer(f.whatIf)
	if err != nil {
		return usageError{fmt.Errorf("--what-if %s", strings.TrimPrefix(err.Error(), "--peer "))}
	}
	namespaces, err := node.ParseNamespaces(f.netns)
	if err != nil {
		return usageError{err}
	}
	n := node.New()
	defer n.Close()
	want := node.Want{Sockets: sockdiag.Want{TCP: true}, Namespaces: namespaces}
	switch {
	case f.watch:
		return watchSilence(cmd, n, node.PeerWatch{Of: namespaces, Ask: f.ask, Passive: f.passive}, only)
	case dead.IsValid():
		return printWhatIf(cmd, n, want, dead)
	}
	return printSilence(cmd, n, want, only, f)
}

// parseWatch checks the flags that belong to --watch.
func (f *silenceFlags) parseWatch() error {
	switch {
	case !f.watch && f.passive:
		return fmt.Errorf("--passive needs --watch: without it nothing is sent anyway")
	case !f.watch && f.ask != 0:
		return fmt.Errorf("--ask needs --watch")
	case f.passive && f.ask != 0:
		return fmt.Errorf("--passive and --ask contradict each other: take one")
	}
	return parseAsk(f.ask)
}

// printSilence looks twice, as check does, so that both say the same.
func printSilence(cmd *cobra.Command, n *node.Node, want node.Want, only netip.Prefix, f *silenceFlags) error {
	m, err := n.Watch(cmd.Context(), f.look, want)
	if err != nil {
		return blindError{err}
	}
	node.Transit(m)
	peers := slices.DeleteFunc(verdict.Peers(m), func(p verdict.Peer) bool { return only.IsValid() && !only.Contains(p.Addr) })
	transit := verdict.Forwarded(m, only)
	if asJSON(cmd) {
		err = show.SilenceJSON(cmd.OutOrStdout(), m, peers, transit, f.top)
	} else {
		style, _ := terminal(cmd.OutOrStdout())
		show.Silence(cmd.OutOrStdout(), peers, transit, f.top, style)
		show.Blindness(cmd.ErrOrStderr(), m.Blind, style)
	}
	if err == nil && slices.ContainsFunc(peers, func(p verdict.Peer) bool { return p.Verdict == verdict.Silent }) {
		err = errFindings
	}
	return err
}

func printWhatIf(cmd *cobra.Command, n *node.Node, want node.Want, dead netip.Prefix) error {
	m, err := n.Look(cmd.Context(), want)
	if err != nil {
		return blindError{err}
	}
	node.Transit(m)
	noTracking(m)
	l := verdict.WhatIf(m, dead)
	name := dead.String()
	if dead.IsSingleIP() {
		name = dead.Addr().String()
	}
	if asJSON(cmd) {
		return show.WhatIfJSON(cmd.OutOrStdout(), m, name, &l)
	}
	style, _ := terminal(cmd.OutOrStdout())
	show.WhatIf(cmd.OutOrStdout(), name, &l)
	show.Blindness(cmd.ErrOrStderr(), m.Blind, style)
	return nil
}

// noTracking says that flows which are only forwarded are not known where no
// connection is tracked. Who did not ask about them does not mind.
func noTracking(m *fact.Machine) {
	said := slices.ContainsFunc(m.Blind, func(b fact.Blind) bool { return b.Source == "conntrack" })
	if len(m.Conntrack) == 0 && !said {
		m.Blind = append(m.Blind, fact.Blind{Source: "conntrack", Error: "the kernel tracks no connections, so it does not know those that it forwards",
			Needs: "the kernel modules nf_conntrack and nf_conntrack_netlink, if this machine forwards any"})
	}
}

// watchSilence prints changes until it is interrupted. It begins with a line
// that says that it watches, so that silence of its own means something.
func watchSilence(cmd *cobra.Command, n *node.Node, w node.PeerWatch, only netip.Prefix) error {
	out := cmd.OutOrStdout()
	style, _ := terminal(out)
	began := false
	var printing error
	err := n.WatchPeers(cmd.Context(), w, func(m *fact.Machine, changes []verdict.Change) error {
		mine := slices.DeleteFunc(changes, func(c verdict.Change) bool { return only.IsValid() && !only.Contains(c.Addr) })
		if began && len(changes) == 0 { // looks have failed
			show.Blindness(cmd.ErrOrStderr(), m.Blind, style)
		}
		if began && len(mine) == 0 {
			return nil
		}
		if asJSON(cmd) {
			began = true
			printing = show.ChangesJSON(out, m, mine)
			return printing
		}
		if !began {
			began = true
			show.Blindness(cmd.ErrOrStderr(), m.Blind, style)
			_, printing = fmt.Fprintf(out, "%s  %s: watching\n", m.Time.Format("15:04:05.000"), m.Host)
			return printing
		}
		for i := range mine {
			show.Change(out, &mine[i], style)
		}
		return nil
	})
	if printing != nil || cmd.Context().Err() != nil {
		return err
	}
	return blindError{err}
}
