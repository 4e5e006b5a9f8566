package main

import (
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/show"
)

// censusFlags are the flags of lifeline census as typed.
type censusFlags struct {
	by, net, protocol, state, peer, process, netns, at, history string
	pid                                                         int32
	top                                                         int
	watch                                                       time.Duration
}

func newCensus() *cobra.Command {
	var f censusFlags
	cmd := &cobra.Command{
		Use:   "census",
		Short: "Counts every socket with its owner",
		Long: "Counts every socket of every network namespace, with the processes that own it, the age of the last\n" +
			"acknowledgement, the share with unacknowledged data, and how long a failure could go unnoticed.",
		Example: "  lifeline census                                 by peer, largest first\n" +
			"  lifeline census --by process,state --top 10     who holds what\n" +
			"  lifeline census --by peer --peer 10.48.0.0/14   only peers of one network\n" +
			"  lifeline census --by container --protocol tcp   by container\n" +
			"  lifeline census --at \"2026-11-20 14:05\"         what it was then, by the agent's history",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runCensus(cmd, &f) },
	}
	keys := make([]string, len(census.Keys))
	for i, key := range census.Keys {
		keys[i] = string(key)
	}
	flags := cmd.Flags()
	flags.StringVar(&f.by, "by", "peer", "count by one or several of "+strings.Join(keys, ","))
	flags.StringVar(&f.net, "net", "/24", "size of an IPv4 peer `network` for --by net")
	flags.StringVar(&f.protocol, "protocol", "", "only these: tcp, udp, unix (comma between several)")
	flags.StringVar(&f.state, "state", "", "only these states, such as ESTABLISHED,CLOSE_WAIT")
	flags.StringVar(&f.peer, "peer", "", "only sockets to this `address` or network")
	flags.StringVar(&f.process, "process", "", "only sockets of processes of this `name`")
	flags.Int32Var(&f.pid, "pid", 0, "only sockets of this process")
	flags.StringVar(&f.netns, "netns", "all", "network namespace: all, self, a PID, a `name` of /run/netns or a path")
	flags.IntVar(&f.top, "top", 0, "only the N largest groups (0: all)")
	flags.StringVar(&f.at, "at", "", "`time` of the agent's history instead of now: \"2026-11-20 14:05\", 14:05, RFC 3339, or how long ago, such as 2h")
	historyFlag(cmd, &f.history)
	flags.DurationVar(&f.watch, "watch", 0, "count again and again, this far apart")
	flags.Lookup("watch").NoOptDefVal = "2s"
	return cmd
}

// options checks the flags; every error says how to say it right.
func (f *censusFlags) options() (o census.Options, err error) {
	if o.By, err = census.ParseKeys(f.by); err != nil {
		return o, err
	}
	if o.NetBits, err = strconv.Atoi(strings.TrimPrefix(f.net, "/")); err != nil || o.NetBits < 1 || o.NetBits > 32 {
		return o, fmt.Errorf("--net %q is not a prefix length: take one from /1 to /32", f.net)
	}
	if o.Filter.Protocols, err = parseProtocols(f.protocol); err != nil {
		return o, err
	}
	if o.Filter.States, err = parseStates(f.state); err != nil {
		return o, err
	}
	if o.Filter.Peer, err = parsePeer(f.peer); err != nil {
		return o, err
	}
	if f.top < 0 {
		return o, fmt.Errorf("--top %d is less than nothing: take a number from 1, or 0 for all", f.top)
	}
	if f.pid < 0 {
		return o, fmt.Errorf("--pid %d is not a process: take a number from 1", f.pid)
	}
	if f.watch < 0 || f.watch > 0 && f.watch < 100*time.Millisecond {
		return o, fmt.Errorf("--watch %v is too short: take 100ms or more", f.watch)
	}
	o.Filter.Process, o.Filter.PID = f.process, f.pid
	return o, nil
}

func parseProtocols(list string) (protocols []fact.Protocol, err error) {
	for word := range strings.FieldsFuncSeq(list, isComma) {
		switch strings.ToLower(word) {
		case "tcp":
			protocols = append(protocols, fact.TCP)
		case "udp":
			protocols = append(protocols, fact.UDP)
		case "unix":
			protocols = append(protocols, fact.UnixStream, fact.UnixDatagram, fact.UnixSeqpacket)
		default:
			return nil, fmt.Errorf("--protocol %q is none that is counted: take tcp, udp or unix", word)
		}
	}
	return protocols, nil
}

func parseStates(list string) (states []fact.State, err error) {
	var names []string
	for s := fact.Established; s <= fact.NewSynRecv; s++ {
		if s != fact.NewSynRecv {
			names = append(names, s.String())
		}
	}
	for word := range strings.FieldsFuncSeq(list, isComma) {
		name := strings.ReplaceAll(strings.ToUpper(word), "-", "_")
		if name == "ESTAB" {
			name = fact.Established.String()
		}
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("--state %q is no state: take one or several of %s", word, strings.Join(names, ","))
		}
		for s := fact.Established; s <= fact.NewSynRecv; s++ {
			if s.String() == name {
				states = append(states, s)
			}
		}
	}
	return states, nil
}

func parsePeer(text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		addr = addr.Unmap().WithZone("")
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return prefix, fmt.Errorf("--peer %q is neither an address nor a network: take 10.0.0.7, 10.0.0.0/8 or fd00::/8", text)
	}
	return prefix.Masked(), nil
}

func isComma(r rune) bool { return r == ',' || r == ' ' }

func runCensus(cmd *cobra.Command, f *censusFlags) error {
	if f.at != "" {
		return runPast(cmd, f)
	}
	o, err := f.options()
	if err != nil {
		return usageError{err}
	}
	namespaces, err := node.ParseNamespaces(f.netns)
	if err != nil {
		return usageError{err}
	}
	if f.pid != 0 && !node.Alive(f.pid) {
		return usageError{fmt.Errorf("no process has PID %d", f.pid)}
	}
	want := node.Want{Namespaces: namespaces}
	for _, p := range o.Filter.Protocols {
		want.Sockets.TCP = want.Sockets.TCP || p == fact.TCP
		want.Sockets.UDP = want.Sockets.UDP || p == fact.UDP
		want.Sockets.Unix = want.Sockets.Unix || p >= fact.UnixStream
	}
	n := node.New()
	defer n.Close()
	print := func() error {
		m, err := n.Look(cmd.Context(), want)
		if err != nil {
			return blindError{err}
		}
		defer n.Recycle(m)
		return printCensus(cmd, f, m, census.Count(m, o))
	}
	if f.watch == 0 {
		// To sweep the garbage of a single look costs more than to leave it, and
		// a collector that reads pages which are about to be written doubles
		// their faults. The limit is for machines with 300,000 sockets and more.
		defer debug.SetGCPercent(debug.SetGCPercent(-1))
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(256 << 20))
		return print()
	}
	return repeat(cmd, f.watch, print)
}

// printCensus writes the counts, and to standard error what could not be seen.
func printCensus(cmd *cobra.Command, f *censusFlags, m *fact.Machine, c census.Census) error {
	out := cmd.OutOrStdout()
	if asJSON(cmd) {
		return show.CensusJSON(out, m, &c, f.top, f.watch > 0)
	}
	style, isTerminal := terminal(out)
	if f.watch > 0 && isTerminal {
		fmt.Fprint(out, "\x1b[H\x1b[2J")
	}
	if f.watch > 0 {
		fmt.Fprintf(out, "%s  %s\n", m.Host, m.Time.Format(time.DateTime))
	}
	show.Census(out, &c, f.top)
	show.Blindness(cmd.ErrOrStderr(), m.Blind, style)
	return nil
}

// repeat calls print until the context ends.
func repeat(cmd *cobra.Command, every time.Duration, print func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := print(); err != nil {
			return err
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-tick.C:
		}
	}
}

func asJSON(cmd *cobra.Command) bool {
	set, err := cmd.Flags().GetBool("json")
	return err == nil && set
}
