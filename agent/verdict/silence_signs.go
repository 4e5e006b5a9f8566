package verdict

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

// usable reports a state in which a program may wait for the peer. A socket
// that the program closed and the kernel still flushes hurts nobody.
func usable(s fact.State) bool { return s == fact.Established || s == fact.CloseWait }

// inTrouble reports that the peer owes this socket an answer. Probes of a closed
// window are not counted: whoever answers those says so by a fresh LastAck, and
// whoever is slow to read is alive.
func inTrouble(s *fact.Socket) bool {
	if s.Conn == nil {
		return false
	}
	if s.Conn.Unacked > 0 {
		return s.Conn.Retransmits >= 2
	}
	window, known := s.Conn.SendWindow.Get()
	closed := known && window == 0 || s.Conn.NotSent > 0 || s.Timer == fact.TimerProbe
	return s.Conn.Probes > 0 && !closed
}

// stillSo reports that the earlier look, if it fell into the silence, saw the
// trouble too.
func (v *view) stillSo(h *hush) bool {
	if v.Earlier == nil || v.elapsed > h.quiet {
		return true
	}
	return slices.ContainsFunc(h.troubled, func(c *conn) bool {
		was := v.before(c.Socket)
		return was != nil && inTrouble(was)
	})
}

// plainRTO is the retransmission timeout without back-off.
func plainRTO(s *fact.Socket) time.Duration {
	return max(s.Conn.BaseRTO(), 0)
}

// usualRTO is the timeout that answers of a peer stay below: the longest of its
// connections, and the median of many, among which one that had a bad start
// would speak for all.
func usualRTO(conns []*conn) time.Duration {
	all := make([]time.Duration, len(conns))
	for i, c := range conns {
		all[i] = plainRTO(c.Socket)
	}
	slices.Sort(all)
	if len(all) < largePeer {
		return all[len(all)-1]
	}
	return all[len(all)/2]
}

// together is how long after the last sign of life an exchange must have begun
// to count. What began with one that was answered may have been lost with others
// of the same burst, on this machine too, while the peer was well: connections
// that were opened together are probed together, for the kernel runs timers of
// 15 s in steps of a quarter of a second (kernel/time/timer.c).
const together = 100 * time.Millisecond

// age is how long ago something was sent, which looks show only roughly.
type age struct{ least, most time.Duration }

// unknownAge is the most of what may have been sent at any time.
const unknownAge = time.Duration(math.MaxInt64)

// unanswered counts the exchanges of one socket that certainly fell into the
// quiet time and had at least a timeout to be answered, and tells how old the
// first is, as far as that was seen.
func (v *view) unanswered(s *fact.Socket, quiet time.Duration) (n int, first time.Duration) {
	switch {
	case s.Conn.Unacked > 0:
		return unansweredData(s, quiet)
	case v.probed != nil:
		return within(v.probed[s.Cookie], plainRTO(s), quiet)
	}
	return v.unansweredProbes(s, quiet), 0
}

// unansweredData goes back through the retransmissions, whose distances double
// (net/ipv4/tcp_timer.c, tcp_retransmit_timer).
func unansweredData(s *fact.Socket, quiet time.Duration) (n int, first time.Duration) {
	timeout := plainRTO(s)
	var age time.Duration // of the last one
	if s.Timer == fact.TimerResend && s.TimerLeft < s.Conn.RTO {
		age = s.Conn.RTO - s.TimerLeft
	}
	linear := int(s.Conn.Retransmits) - int(s.Conn.Backoff) // thin streams back off late
	for sent := int(s.Conn.Retransmits); sent >= 0 && age <= quiet-together; sent-- {
		if age >= timeout {
			n, first = n+1, age
		}
		doublings := min(max(sent-1-max(linear, 0), 0), 30)
		age += min(timeout<<doublings, max(s.Conn.RTO, timeout))
	}
	return n, first
}

// unansweredProbes goes back through the keepalive probes, which are one
// interval apart.
func (v *view) unansweredProbes(s *fact.Socket, quiet time.Duration) int {
	timeout, probes := plainRTO(s), int(s.Conn.Probes)
	interval, known := v.probeInterval(s)
	if !known || interval <= 0 {
		if was := v.before(s); was != nil && was.Conn != nil && was.Conn.Probes >= s.Conn.Probes && v.elapsed >= timeout {
			probes++ // the last one has waited since the earlier look
		}
		if s.Conn.LastAck > quiet+timeout {
			return min(probes-1, 1) // the others may be older than the silence
		}
		return probes - 1
	}
	var age time.Duration
	if s.Timer == fact.TimerKeepAlive && s.TimerLeft < interval {
		age = interval - s.TimerLeft
	}
	n := 0
	for ; probes > 0 && age <= quiet-together; probes-- {
		if age >= timeout {
			n++
		}
		age += interval
	}
	return n
}

// within counts what had a timeout to be answered and was sent in the quiet
// time for certain, and returns the least age of the oldest of them.
func within(ages []age, timeout, quiet time.Duration) (n int, first time.Duration) {
	for _, a := range ages {
		if a.least >= timeout && a.most <= quiet-together {
			n, first = n+1, max(first, a.least)
		}
	}
	return n, first
}

func (v *view) probeInterval(s *fact.Socket) (time.Duration, bool) {
	c, ok := v.BoundConn(s)
	if !ok {
		return 0, false
	}
	return c.Options.In(c.Sysctl).Interval, true
}

// exchangesNeeded is how many unanswered exchanges settle that a peer is silent,
// by what its connections lost before the present trouble.
func exchangesNeeded(conns []*conn) int {
	var sent, again uint64
	for _, c := range conns {
		segments, ok := c.Conn.SegmentsOut.Get()
		if !ok {
			continue
		}
		sent += uint64(segments)
		now := uint32(c.Conn.Retransmits)
		if now > 0 {
			now++ // a loss probe came before the first (tcp_send_loss_probe, net/ipv4/tcp_output.c)
		}
		if total := c.Conn.TotalRetransmit; total > now {
			again += uint64(total - now)
		}
	}
	switch {
	case again*100 > sent*cleanPercent:
		return exchangesLossyPath
	case sent < pathSegments:
		return exchangesUnknownPath
	}
	return exchangesCleanPath
}

// remaining is how long until the kernel tells the first and the last program.
// Connections whose options were not seen are left out.
func remaining(conns []*conn) (first, last fact.Known[time.Duration], never bool) {
	for _, c := range conns {
		if c.State != fact.Established || !c.bounded {
			continue
		}
		left, ends := timeLeft(c)
		if !ends {
			never = true
			continue
		}
		if !first.OK || left < first.Value {
			first = fact.Seen(left)
		}
		if !last.OK || left > last.Value {
			last = fact.Seen(left)
		}
	}
	return first, last, never
}

// timeLeft is what remains of the bound of one connection.
func timeLeft(c *conn) (left time.Duration, ends bool) {
	b, passed := c.idle, c.Conn.Heard()
	if c.Conn.Unacked > 0 {
		// The bound counts from the first transmission, which may be younger than
		// the last acknowledgement: at most as old as its retransmissions are.
		b = c.sending
		passed = min(c.Conn.LastAck, retransmittedFor(c.Socket))
	}
	if b.By == bound.None {
		return 0, false
	}
	return max(b.After-passed, 0), true
}

// retransmittedFor is the longest that the oldest unacknowledged data can be
// under way.
func retransmittedFor(s *fact.Socket) time.Duration {
	timeout := plainRTO(s)
	age := s.Conn.RTO
	for i := range int(s.Conn.Retransmits) {
		age += min(timeout<<min(i, 30), max(s.Conn.RTO, timeout))
	}
	return age
}

func noticed(e Values, first, last fact.Known[time.Duration], never bool) Values {
	e = e.add("first_notice_seconds", known(first)).add("last_notice_seconds", known(last))
	if never {
		e = e.add("bound", "never")
	}
	return e
}

// known is a duration in seconds, null when it is not known.
func known(d fact.Known[time.Duration]) any {
	if !d.OK {
		return nil
	}
	return seconds(d.Value)
}

func endOf(first, last fact.Known[time.Duration], never bool) string {
	switch {
	case never && !last.OK:
		return "the kernel will never end them."
	case never:
		return fmt.Sprintf("the kernel ends the first in %s, and some never.", span(first.Value))
	case !last.OK:
		return "when the kernel ends them is not known: their options were not seen."
	case last.Value-first.Value < time.Second:
		return fmt.Sprintf("the kernel ends them in %s.", span(last.Value))
	}
	return fmt.Sprintf("the kernel ends the first in %s, the last in %s.", span(first.Value), span(last.Value))
}
