package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/act/tune"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// printPlannedTune writes what a tune would do.
func printPlannedTune(cmd *cobra.Command, m *fact.Machine, t *tuning, p *tune.Planned) error {
	out, count := cmd.OutOrStdout(), touched(m, p.Tune)
	if asJSON(cmd) {
		return show.ActJSON(out, m, false, show.Touched("tune", &count), append(planValues(t, p), verdict.Value{Key: "undo", V: undoOf(t)})...)
	}
	switch {
	case len(p.Tune) > 0:
		show.Touching(out, &count)
		fmt.Fprintf(out, "Would tune %s connections: %s.\n", verdict.Number(len(p.Tune)), keepAliveText(p.Set))
		tellBounds(out, t, p)
	case len(p.Tight) == 0:
		fmt.Fprintln(out, "No connection is like that.")
	}
	if len(p.Tight) > 0 {
		fmt.Fprintf(out, "%s connections are noticed within %s already and stay as they are.\n", verdict.Number(len(p.Tight)), bound.Format(t.options.Within))
	}
	if t.cgroup != nil {
		fmt.Fprintf(out, "Would keep new connections of %s so too, whatever their programs ask for,", fact.Printable(t.cgroup.Path))
		if t.hold.Pinnable() {
			fmt.Fprintf(out, " until the undo.\n")
		} else {
			fmt.Fprintf(out, " as long as the command runs: to have\nit outlive the command, mount a file system for BPF first: mount -t bpf bpf /sys/fs/bpf\n")
		}
	}
	fmt.Fprintf(out, "To undo it: %s. Nothing is done without --yes.\n", undoOf(t))
	style, _ := terminal(out)
	show.Blindness(cmd.ErrOrStderr(), m.Blind, style)
	return nil
}

// undoOf is the command that undoes it.
func undoOf(t *tuning) string {
	text := "lifeline tune --undo"
	if t.cgroup != nil {
		text += " --cgroup " + fact.Printable(t.cgroup.Path)
	}
	if t.options.Dir != tune.DefaultDir {
		text += " --keep " + fact.Printable(t.options.Dir)
	}
	if t.cgroup != nil && t.hold.Pins != tune.DefaultPins {
		text += " --pins " + fact.Printable(t.hold.Pins)
	}
	return text + " --yes"
}

func keepAliveText(o bound.Options) string {
	return fmt.Sprintf("a probe after %s of quiet, then every %s, %d unanswered ones in all", bound.Format(o.Idle), bound.Format(o.Interval), o.Count)
}

// tellBounds says what a tune is good for, and what it costs.
func tellBounds(out io.Writer, t *tuning, p *tune.Planned) {
	if len(p.Unknown) < len(p.Tune) {
		fmt.Fprintf(out, "idle:    a silent peer is noticed after %v, now %v\n", p.IdleAfter, p.IdleBefore)
		if p.SendingAfter == p.SendingBefore {
			fmt.Fprintf(out, "sending: stays %v: keepalive does not run while data is unacknowledged\n", p.SendingBefore)
		} else {
			fmt.Fprintf(out, "sending: after %v, now %v\n", p.SendingAfter, p.SendingBefore)
		}
	}
	if len(p.Unknown) > 0 {
		fmt.Fprintf(out, "         of %s the options could not be seen\n", verdict.Number(len(p.Unknown)))
	}
	if t.options.UserTimeout > 0 {
		fmt.Fprintf(out, "trap:    TCP_USER_TIMEOUT also ends a connection whose peer is alive and does not read (zero window) for %s,\n"+
			"         and takes the place of the number of probes: idle connections are noticed by it too\n", bound.Format(t.options.UserTimeout))
	} else if p.Late > 0 {
		fmt.Fprintf(out, "but:     %s have a TCP_USER_TIMEOUT of their own, which takes the place of the number of probes\n"+
			"         and makes it later than %s\n", verdict.Number(p.Late), bound.Format(t.options.Within))
	}
	fmt.Fprintf(out, "cost:    up to %s small packets a second while all are idle, now %s; each is answered by one\n",
		verdict.Number(int(p.ProbesAfter+0.5)), verdict.Number(int(p.ProbesBefore+0.5)))
}

// planValues are what a tune is good for, in JSON.
func planValues(t *tuning, p *tune.Planned) []verdict.Value {
	known := len(p.Tune) > len(p.Unknown)
	after := func(b bound.Bound) any {
		if !known || b.Never() {
			return nil
		}
		return b.After.Seconds()
	}
	var timeout, cgroup, latest any
	if p.Set.UserTimeout > 0 {
		timeout = p.Set.UserTimeout.Seconds()
	}
	if t.cgroup != nil {
		cgroup = fact.Printable(t.cgroup.Path)
	}
	if known && !p.IdleAfter.Never() {
		latest = p.IdleAfter.Latest.Seconds()
	}
	return []verdict.Value{
		{Key: "within_seconds", V: t.options.Within.Seconds()},
		{Key: "keepalive_idle_seconds", V: p.Set.Idle.Seconds()},
		{Key: "keepalive_interval_seconds", V: p.Set.Interval.Seconds()},
		{Key: "keepalive_count", V: p.Set.Count},
		{Key: "user_timeout_seconds", V: timeout},
		{Key: "tight", V: len(p.Tight)},
		{Key: "unknown", V: len(p.Unknown)},
		{Key: "later_than_asked", V: p.Late},
		{Key: "bound_idle_before_seconds", V: after(p.IdleBefore)},
		{Key: "bound_idle_after_seconds", V: after(p.IdleAfter)},
		{Key: "bound_idle_latest_seconds", V: latest},
		{Key: "bound_sending_before_seconds", V: after(p.SendingBefore)},
		{Key: "bound_sending_after_seconds", V: after(p.SendingAfter)},
		{Key: "probes_per_second_before", V: p.ProbesBefore},
		{Key: "probes_per_second_after", V: p.ProbesAfter},
		{Key: "cgroup", V: cgroup},
	}
}

// printTuned writes what a tune did.
func printTuned(cmd *cobra.Command, m *fact.Machine, t *tuning, p *tune.Planned, r *tune.Report, held *tune.Held, stopped error) error {
	out, count := cmd.OutOrStdout(), touched(m, r.Tuned)
	took := r.Opened + r.Read + r.Kept + r.Set
	if asJSON(cmd) {
		var reason any
		if stopped != nil {
			reason = oneLine(stopped)
		}
		more := append(planValues(t, p),
			verdict.Value{Key: "changed", V: len(r.Changed)},
			verdict.Value{Key: "gone", V: len(r.Gone)},
			verdict.Value{Key: "failed", V: len(r.Failed)},
			verdict.Value{Key: "left", V: len(r.Left)},
			verdict.Value{Key: "way", V: r.Way.String()},
			verdict.Value{Key: "seconds", V: took.Seconds()},
			verdict.Value{Key: "pinned", V: held != nil && held.Pinned},
			verdict.Value{Key: "stopped", V: reason},
			verdict.Value{Key: "undo", V: undoOf(t)})
		return show.ActJSON(out, m, true, show.Touched("tune", &count), more...)
	}
	if len(r.Tuned) > 0 {
		show.Touching(out, &count)
	}
	fmt.Fprintf(out, "Tuned %s connections in %s", verdict.Number(len(r.Tuned)), bound.Format(took.Round(time.Millisecond)))
	tellCounts(out, []counted{
		{len(r.Tight), "were tight enough already"}, {len(r.Gone), "have ended"},
		{len(r.Changed), "were changed by their programs at the same moment and left alone"},
	})
	if len(r.Tuned) > 0 {
		tellBounds(out, t, p)
	}
	if held != nil {
		fmt.Fprintf(out, "New connections of %s are kept so too.\n", fact.Printable(held.Cgroup))
	}
	if stopped != nil {
		fmt.Fprintf(out, "Stopped, %s left alone: %s.\n", verdict.Number(len(r.Left)), oneLine(stopped))
	}
	fmt.Fprintf(out, "To undo it: %s\n", undoOf(t))
	style, _ := terminal(out)
	show.Blindness(cmd.ErrOrStderr(), m.Blind, style)
	return nil
}

// counted is how many there are of something.
type counted struct {
	n    int
	what string
}

// tellCounts ends a sentence with those that are there.
func tellCounts(out io.Writer, list []counted) {
	for _, c := range list {
		if c.n > 0 {
			fmt.Fprintf(out, "; %s %s", verdict.Number(c.n), c.what)
		}
	}
	fmt.Fprintln(out, ".")
}

// holdValues are cgroups that are held, in JSON.
func holdValues(what string, held []tune.Held) (list []verdict.Values) {
	for _, h := range held {
		var path any
		if h.Cgroup != "" {
			path = fact.Printable(h.Cgroup)
		}
		list = append(list, verdict.Values{
			{Key: "what", V: what},
			{Key: "cgroup", V: path},
			{Key: "cgroup_id", V: h.ID},
			{Key: "count", V: 1},
			{Key: "keepalive_idle_seconds", V: h.Limits.Idle.Seconds()},
			{Key: "keepalive_interval_seconds", V: h.Limits.Interval.Seconds()},
			{Key: "keepalive_count", V: h.Limits.Count},
		})
	}
	return list
}

// holdName is the cgroup that is held, as people know it.
func holdName(h *tune.Held) string {
	if h.Cgroup == "" {
		return fmt.Sprintf("a cgroup that is gone (%d)", h.ID)
	}
	return fact.Printable(h.Cgroup)
}

// printPlannedUndo writes what an undo would do, and so what is tuned.
func printPlannedUndo(cmd *cobra.Command, m *fact.Machine, there []*fact.Socket, elsewhere int, held []tune.Held) error {
	out, count := cmd.OutOrStdout(), touched(m, there)
	if asJSON(cmd) {
		return show.ActJSON(out, m, false, append(show.Touched("undo", &count), holdValues("release", held)...),
			verdict.Value{Key: "gone", V: elsewhere}, verdict.Value{Key: "undo", V: nil})
	}
	if len(there)+elsewhere+len(held) == 0 {
		fmt.Fprintln(out, "Nothing is tuned.")
	}
	if len(there) > 0 {
		show.Touching(out, &count)
		fmt.Fprintf(out, "Would restore %s connections, but for those that their programs have changed since.\n", verdict.Number(len(there)))
	}
	if elsewhere > 0 {
		fmt.Fprintf(out, "%s connections that were tuned have ended, or cannot be seen from here.\n", verdict.Number(elsewhere))
	}
	for i := range held {
		fmt.Fprintf(out, "Would release new connections of %s: %s at most.\n", holdName(&held[i]), keepAliveText(held[i].Limits))
	}
	if len(there)+elsewhere+len(held) > 0 {
		fmt.Fprintln(out, "Nothing is done without --yes.")
	}
	style, _ := terminal(out)
	show.Blindness(cmd.ErrOrStderr(), m.Blind, style)
	return nil
}

// printUndone writes what an undo did.
func printUndone(cmd *cobra.Command, m *fact.Machine, r *tune.UndoReport, held []tune.Held) error {
	out, count := cmd.OutOrStdout(), touched(m, r.Restored)
	if asJSON(cmd) {
		return show.ActJSON(out, m, true, append(show.Touched("undo", &count), holdValues("release", held)...),
			verdict.Value{Key: "restored", V: len(r.Restored)},
			verdict.Value{Key: "same", V: len(r.Same)},
			verdict.Value{Key: "changed", V: len(r.Changed)},
			verdict.Value{Key: "gone", V: r.Gone},
			verdict.Value{Key: "failed", V: len(r.Failed)},
			verdict.Value{Key: "left", V: r.Left},
			verdict.Value{Key: "undo", V: nil})
	}
	if r.NoBPF != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "Without BPF each socket is borrowed from its process: %s.\n", oneLine(r.NoBPF))
	}
	if len(r.Restored) > 0 {
		show.Touching(out, &count)
	}
	fmt.Fprintf(out, "Restored %s connections", verdict.Number(len(r.Restored)))
	tellCounts(out, []counted{
		{len(r.Same), "were as before already"}, {r.Gone, "have ended"},
		{len(r.Changed), "were changed by their programs since and stay as they are"},
		{r.Left, "are in network namespaces that cannot be seen and stay known"},
	})
	for i := range held {
		fmt.Fprintf(out, "Released %s: connections that began under it keep their keepalive until they end.\n", holdName(&held[i]))
	}
	style, _ := terminal(out)
	show.Blindness(cmd.ErrOrStderr(), m.Blind, style)
	return nil
}
