package main

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/act/evac"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// serverFlows is the flows to one server.
type serverFlows struct {
	server  netip.AddrPort
	count   int
	by      []netip.AddrPort // as the clients addressed it, sorted
	clients []netip.Addr     // sorted
}

// byServer counts flows by the server that really answers, largest first.
func byServer(flows []fact.Flow) (groups []serverFlows) {
	index := make(map[netip.AddrPort]int)
	for _, f := range flows {
		i, ok := index[f.ReplySource]
		if !ok {
			i = len(groups)
			index[f.ReplySource] = i
			groups = append(groups, serverFlows{server: f.ReplySource})
		}
		g := &groups[i]
		g.count++
		g.by = append(g.by, f.Destination)
		g.clients = append(g.clients, f.Source.Addr())
	}
	for i := range groups {
		g := &groups[i]
		slices.SortFunc(g.by, netip.AddrPort.Compare)
		slices.SortFunc(g.clients, netip.Addr.Compare)
		g.by, g.clients = slices.Compact(g.by), slices.Compact(g.clients)
	}
	slices.SortFunc(groups, func(a, b serverFlows) int {
		return cmp.Or(b.count-a.count, a.server.Compare(b.server))
	})
	return groups
}

func showFlows(w io.Writer, flows []fact.Flow) {
	if len(flows) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "COUNT\tSERVER\tADDRESSED AS\tCLIENTS\n")
	for _, g := range byServer(flows) {
		fmt.Fprintf(t, "%s\t%v\t%s\t%s\n", verdict.Number(g.count), g.server, few(g.by), few(g.clients))
	}
	_ = t.Flush()
}

// evacJSON writes the flows by server, and the values in more.
func evacJSON(w io.Writer, host string, done bool, flows []fact.Flow, more ...verdict.Value) error {
	var list []verdict.Values
	for _, g := range byServer(flows) {
		list = append(list, verdict.Values{
			{Key: "what", V: "reset both ends"},
			{Key: "count", V: g.count},
			{Key: "server", V: g.server},
			{Key: "addressed_as", V: g.by},
			{Key: "clients", V: g.clients},
		})
	}
	return show.ActJSON(w, &fact.Machine{Host: host, Time: time.Now()}, done, list, append(more, verdict.Value{Key: "undo", V: nil})...)
}

// printPlannedEvac says what would be reset.
func printPlannedEvac(cmd *cobra.Command, host string, p evac.Plan, within time.Duration) error {
	w := cmd.OutOrStdout()
	rate := float64(evac.Rate)
	if within > 0 {
		rate = float64(len(p.Flows)) / within.Seconds()
	}
	if asJSON(cmd) {
		return evacJSON(w, host, false, p.Flows,
			verdict.Value{Key: "flows", V: len(p.Flows)},
			verdict.Value{Key: "spared", V: p.Spared},
			verdict.Value{Key: "offloaded", V: p.Offloaded},
			verdict.Value{Key: "per_second", V: rate})
	}
	showFlows(w, p.Flows)
	showOffloaded(w, p.Offloaded)
	if p.Spared > 0 {
		fmt.Fprintf(w, "%s more are left alone, as --only says.\n", verdict.Number(p.Spared))
	}
	if len(p.Flows) == 0 {
		fmt.Fprintln(w, "This machine forwards no TCP connection that would be reset.")
		return nil
	}
	speed := fmt.Sprintf("at once, %s a second", verdict.Number(evac.Rate))
	if within > 0 {
		speed = fmt.Sprintf("within %v, %.1f a second", within, rate)
	}
	fmt.Fprintf(w, "%s would be reset, both ends, %s. Nothing was done: --yes does it.\n", verdict.Number(len(p.Flows)), speed)
	return nil
}

// printEvac says what was reset.
func printEvac(cmd *cobra.Command, host string, r evac.Result) error {
	w := cmd.OutOrStdout()
	left := len(r.Flows) - r.Begun
	if asJSON(cmd) {
		return evacJSON(w, host, true, r.Flows[:r.Begun],
			verdict.Value{Key: "flows", V: len(r.Flows)},
			verdict.Value{Key: "clients_told", V: r.Clients},
			verdict.Value{Key: "servers_told", V: r.Servers},
			verdict.Value{Key: "began_meanwhile", V: r.Late},
			verdict.Value{Key: "unanswered", V: r.Unanswered},
			verdict.Value{Key: "left", V: left},
			verdict.Value{Key: "offloaded", V: r.Offloaded},
			verdict.Value{Key: "seconds", V: r.Took.Round(time.Millisecond).Seconds()},
			verdict.Value{Key: "removed_stale_rules", V: r.Stale},
			verdict.Value{Key: "unsent", V: reason(r.Unsent)},
			verdict.Value{Key: "unread", V: reason(r.Unread)})
	}
	showFlows(w, r.Flows[:r.Begun])
	showOffloaded(w, r.Offloaded)
	fmt.Fprintf(w, "%s of %s reset in %.2f s: %s clients and %s servers were told.\n", verdict.Number(r.Begun), verdict.Number(len(r.Flows)),
		r.Took.Seconds(), verdict.Number(r.Clients), verdict.Number(r.Servers))
	if r.Late > 0 {
		fmt.Fprintf(w, "%s began meanwhile.\n", verdict.Number(r.Late))
	}
	if r.Unanswered > 0 {
		fmt.Fprintf(w, "%s have an end that did not answer, and was not told.\n", verdict.Number(r.Unanswered))
	}
	if left > 0 {
		fmt.Fprintf(w, "%s are as they were: it ended before their turn.\n", verdict.Number(left))
	}
	if r.Unsent != nil {
		fmt.Fprintf(w, "Not all could be asked: %s.\n", oneLine(r.Unsent))
	}
	if r.Unread != nil {
		fmt.Fprintf(w, "Flows that began meanwhile may be missing: %s.\n", oneLine(r.Unread))
	}
	return nil
}

// reason is an error in JSON; null when there is none.
func reason(err error) any {
	if err == nil {
		return nil
	}
	return oneLine(err)
}

func showOffloaded(w io.Writer, n int) {
	if n > 0 {
		fmt.Fprintf(w, "%s more pass by a flowtable, out of reach of any rule: they cannot be reset from here.\n", verdict.Number(n))
	}
}

// few names the first of a list and counts the others.
func few[T fmt.Stringer](list []T) string {
	if len(list) == 0 {
		return "-"
	}
	if len(list) == 1 {
		return list[0].String()
	}
	return fmt.Sprintf("%v and %s more", list[0], verdict.Number(len(list)-1))
}
