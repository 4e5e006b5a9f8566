package verdict

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// An exchange is something sent that asks for an acknowledgement, and the
// acknowledgement. How many must go unanswered in a row, with no answer to any
// other socket of the peer in between, before a peer counts as silent is a
// question of how likely a living peer on a bad path looks the same.
const (
	// The connections with this peer lost little so far, but 20 % each way may
	// have begun a moment ago. An exchange then fails with 1 - 0.8² = 0.36, and 7
	// in a row with 0.36^7 = 0.08 %.
	exchangesCleanPath = 7

	// Nothing is known of the path: 40 % each way is the worst that people still
	// work on. An exchange then fails with 0.64, 16 in a row with 0.64^16 = 0.08 %.
	exchangesUnknownPath = 16

	// The path is known to lose. Connections on it spend most of their time in
	// deep back-off, so a look finds them there more often than 0.64^n says: in
	// 400,000 simulated looks at 1 to 50 connections under 20 to 40 % loss each
	// way, 24 exchanges in a row was the worst. With these three numbers none of
	// 2.4 million looks was a failure; TestLivingPeer plays a part of them.
	exchangesLossyPath = 32

	// Enough to speak up and say that it is not sure: 0.36^5 = 0.6 % at 20 % loss
	// each way, but 11 % at 40 %.
	exchangesUnsure = 5

	// A poke was answered by nobody (act.Confirm, which says what it takes): what
	// it left unanswered is enough, or more than that.
	exchangesPoked = 10
	pokedQuiet     = 1500 * time.Millisecond

	// A path is clean when at most 5 % of at least 100 segments had to be sent
	// again: at 20 % loss each way about 36 of them would have been.
	pathSegments = 100
	cleanPercent = 5
)

// How long nothing at all may have been acknowledged. Exchanges fail together
// when a switch, a virtual machine or a radio pauses, so counting them is not
// enough.
const (
	// From 20 sockets on, one that answers is seen soon: with 1,000 connections
	// under 40 % loss each way the peer's last acknowledgement was never older
	// than 60 ms. 3 s leaves room for the pause of a live migration.
	largePeer      = 20
	quietLargePeer = 3 * time.Second

	// Below, a single look cannot confirm (check sends nothing). Three
	// connections under 20 % loss each way were quiet for over a second now and
	// then, and a spanning tree takes seconds to heal.
	quietSmallPeer = 15 * time.Second

	// An exchange is unanswered when it had the time that TCP itself grants:
	// several retransmission timeouts, without back-off, must fit in.
	quietTimeouts = 4
)

const (
	// silentApart is how many silent peers get a finding of their own: a dead
	// switch has hundreds behind it.
	silentApart = 10

	// vanishedShare: clients vanish all the time (a phone leaves the network with
	// data on its way), so of a server's clients this many per cent are normal.
	vanishedShare = 5
)

// Liveness is what the facts say of a peer.
type Liveness uint8

// The verdicts on a peer. Alive means that nothing says otherwise: a peer that
// nobody asks anything cannot fail to answer.
const (
	Alive Liveness = iota
	Unsure
	Silent
)

var livenessNames = [...]string{"alive", "unsure", "silent"}

// String returns the verdict as in JSON.
func (l Liveness) String() string {
	if int(l) < len(livenessNames) {
		return livenessNames[l]
	}
	return fmt.Sprintf("liveness %d", uint8(l))
}

// MarshalText makes the verdict's name.
func (l Liveness) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// terms are what it takes to call a peer silent.
type terms struct {
	large, small time.Duration // quiet time from largePeer sockets on, and below
	most         time.Duration // for how long the look can speak: a silence that is longer counts as this; 0 = for ever
	asked        time.Duration // since the first exchange that was not answered: of a peer that all left alone, quiet says little
	probes       int           // exchanges needed at the least where only probes tell: no counter has those that were lost before
	least        int           // exchanges needed at the least, by what is known of the path
	survived     int           // exchanges in a row that this peer left unanswered before and lived
	confirm      bool          // an earlier look must have seen the trouble
	poked        int           // exchanges that a poke left unanswered which was sure by itself
}

// twoLooks are the terms of S001: a look, and one before it at the most.
var twoLooks = terms{large: quietLargePeer, small: quietSmallPeer, confirm: true}

// hush is what one look tells of a peer that does not answer.
type hush struct {
	*peer
	troubled   []*conn
	quiet      time.Duration // since any socket of the peer was acknowledged
	unanswered int           // exchanges within quiet
	need       int           // exchanges that would settle it
	sure       Liveness
}

var silentPeer = Rule{
	Code:    "S001",
	Promise: Silence,
	Title:   "a peer is silent now",
	Worst:   Fail,
	Sees:    []string{"sockets", "owners", "options"},
	Meaning: `The other end, or the path to it, stopped answering without a word. Writes still succeed and reads still block; programs learn nothing until the kernel gives up, which is the bound.

The verdict is per peer address and not per socket: some sockets must have data unacknowledged and retransmitting (at least twice) or keepalive probes unanswered, and no socket of that peer may have been acknowledged for a quiet time. The quiet time is 3 s from 20 sockets on and 15 s below, and at least four retransmission timeouts. Within it 7 exchanges must have gone unanswered where the path lost little before (at most 5 % of 100 segments or more), 16 where nothing is known of the path, 32 where it is known to lose: a living peer looks like that with a chance below 0.1 %, at 20 % and at 40 % loss each way. From 5 exchanges and 3 s on the finding is a warning that says that it is unsure. When there was an earlier look within the quiet time, it must have shown the trouble already.

Clients that vanish are normal for a server. Peers of fewer than 20 sockets that connected to a port here share one finding per port, never a fail, and only a warning when they are over 5 % of that port's clients.`,
	Wrong: `A pause longer than the quiet time (a virtual machine that is moved, a route that heals) looks the same. A peer that shows a closed window and answers probes, a stopped process (its kernel still acknowledges) and a path that loses much are not silent and not reported. Idle connections without keepalive send nothing, so nothing can go unanswered: a dead peer behind them is not seen. Where a queue of this machine refuses the packet, the kernel does not count it as a retransmission.`,
	Fix: []string{
		"lifeline poke PEER asks it once more, now",
		"find out whether the peer, or a node that forwards to it, was taken away",
		"lifeline cut --peer PEER --while-silent --yes lets the programs here know now, at 500 connections a second: new ones take another path where there is one",
		"lifeline cut --silent --watch --yes does so from now on as soon as a peer falls silent",
	},
	judge: judgeSilentPeers,
}

func judgeSilentPeers(v *view) []Finding {
	var ours, clients []hush
	for i := range v.peers {
		if len(v.peers[i].conns) == 0 {
			continue
		}
		h := v.listen(&v.peers[i], twoLooks)
		switch {
		case h.sure == Alive:
		case len(h.conns) < largePeer && h.allAccepted():
			clients = append(clients, h)
		default:
			ours = append(ours, h)
		}
	}
	slices.SortStableFunc(ours, func(a, b hush) int {
		return cmp.Or(cmp.Compare(b.sure, a.sure), cmp.Compare(len(b.conns), len(a.conns)), a.addr.Compare(b.addr))
	})
	var findings []Finding
	each, folded := apart(ours, silentApart)
	for i := range each {
		findings = append(findings, v.silentFinding(&each[i]))
	}
	if len(folded) > 0 {
		findings = append(findings, v.silentRest(folded))
	}
	return append(findings, v.vanished(clients)...)
}

// listen asks all sockets of a peer for a sign of life.
func (v *view) listen(p *peer, t terms) hush {
	h := hush{peer: p, quiet: p.conns[0].Conn.Heard()}
	for _, c := range p.conns {
		if h.quiet = min(h.quiet, c.Conn.Heard()); h.quiet < t.large {
			return hush{}
		}
	}
	counted := h.quiet
	if t.most > 0 {
		counted = min(counted, t.most)
	}
	patience := max(t.large, quietTimeouts*usualRTO(p.conns))
	h.troubled = filter(p.conns, func(c *conn) bool { return usable(c.State) && inTrouble(c.Socket) })
	if len(h.troubled) > 0 && counted >= patience && (!t.confirm || v.stillSo(&h)) {
		v.settle(&h, t, counted)
	}
	if t.poked > 0 && h.sure != Silent && h.quiet >= max(patience, pokedQuiet) {
		h.settleByPoke(t)
	}
	return h
}

// settle judges a peer by what its sockets show.
func (v *view) settle(h *hush, t terms, counted time.Duration) {
	var asked time.Duration
	for _, c := range h.troubled {
		n, first := v.unanswered(c.Socket, counted)
		h.unanswered += n
		asked = max(asked, first)
	}
	h.need = max(exchangesNeeded(h.conns), t.least) + 2*t.survived
	if !slices.ContainsFunc(h.troubled, func(c *conn) bool { return c.Conn.Unacked > 0 }) {
		h.need = max(h.need, t.probes)
	}
	patience := t.large
	if len(h.conns) < largePeer {
		patience = t.small
		if counted < quietSmallPeer { // a loss that begins looks the same for so long
			h.need = max(h.need, exchangesUnknownPath)
		}
	}
	switch {
	case h.unanswered >= h.need && counted >= patience && asked >= t.asked:
		h.sure = Silent
	case h.unanswered >= exchangesUnsure:
		h.sure = Unsure
	}
}

// settleByPoke judges a peer that was poked: a poke that left nothing answered
// asked often enough and for long enough, and in time, so that only what the path
// and the peer have shown before asks for more.
func (h *hush) settleByPoke(t terms) {
	h.unanswered += t.poked
	h.need = max(t.least, exchangesPoked) + 2*t.survived
	if exchangesNeeded(h.conns) == exchangesLossyPath {
		h.need = exchangesLossyPath + 2*t.survived
	}
	if h.unanswered >= h.need {
		h.sure = Silent
	} else if h.unanswered >= exchangesUnsure {
		h.sure = Unsure
	}
}

func (h *hush) allAccepted() bool {
	return !slices.ContainsFunc(h.troubled, func(c *conn) bool { return !c.accepted })
}

func (v *view) silentFinding(h *hush) Finding {
	n := len(h.conns)
	f := Finding{
		Severity: Fail,
		Title: fmt.Sprintf("%s is silent: %s, nothing acknowledged for %s",
			h.addr, count(n, "connection"), span(h.quiet)),
		Subject: AboutPeer(h.addr, h.netns, h.iface).add("processes", v.processes(h.conns)).add("count", n),
		weight:  n,
	}
	if h.sure != Silent {
		f.Severity = Warn
		f.Title = fmt.Sprintf("%s may be silent: nothing acknowledged for %s on %s (unsure)",
			h.addr, span(h.quiet), count(n, "connection"))
	}
	f.Evidence = v.silentEvidence(h)
	first, last, never := remaining(h.conns)
	if !never {
		f.Bound = last
	}
	f.Evidence = noticed(f.Evidence, first, last, never)
	f.Why = fmt.Sprintf("%s to %s went unanswered and nothing else from it was acknowledged meanwhile. Programs that use these connections do not know it: writes succeed, reads wait. %s",
		count(h.unanswered, "exchange"), h.addr, capital(endOf(first, last, never)))
	f.fill = []string{"PEER", h.addr.String()}
	return f
}

// AboutPeer begins the subject of a finding about a peer: where its address means
// nothing without an interface, with that.
func AboutPeer(addr netip.Addr, netns, iface uint32) Values {
	about := Values{{"peer", addr.String()}, {"netns", netns}}
	if iface != 0 {
		about = about.add("interface", iface)
	}
	return about
}

func (v *view) silentEvidence(h *hush) Values {
	unacked, probing := 0, 0
	for _, c := range h.troubled {
		if c.Conn.Unacked > 0 {
			unacked++
		} else {
			probing++
		}
	}
	return Values{
		{"last_ack_seconds", seconds(h.quiet)},
		{"since", since(v.Time, h.quiet)},
		{"retransmitting", unacked},
		{"probing", probing},
		{"unanswered_exchanges", h.unanswered},
		{"needed_to_be_sure", h.need},
		{"sure", h.sure == Silent},
	}
}

// since is a moment as documents carry it, null when the look has no time.
func since(now time.Time, ago time.Duration) any {
	if now.IsZero() {
		return nil
	}
	return now.Add(-ago).Format(time.RFC3339)
}

// silentRest is one finding for the silent peers beyond the largest.
func (v *view) silentRest(rest []hush) Finding {
	var conns []*conn
	f := Finding{Severity: Warn}
	for i := range rest {
		conns = append(conns, rest[i].conns...)
		if rest[i].sure == Silent {
			f.Severity = Fail
		}
	}
	first, last, never := remaining(conns)
	if !never {
		f.Bound = last
	}
	f.Title = fmt.Sprintf("%s more peers are silent or may be, with %s", Number(len(rest)), count(len(conns), "connection"))
	f.Subject = Values{{"peers", len(rest)}, {"processes", v.processes(conns)}, {"count", len(conns)}}
	f.Evidence = noticed(nil, first, last, never)
	f.Why = "Many peers that fall silent at once share something: a switch, a gateway, a firewall, this machine's own link. " +
		capital(endOf(first, last, never))
	f.weight = -1 // after those it speaks of
	return f
}

// vanished is one finding for each port whose clients went away without a word.
func (v *view) vanished(clients []hush) []Finding {
	byPort := make(map[port][]hush)
	var ports []port
	for _, h := range clients {
		at := port{h.netns, h.troubled[0].Local.Port()}
		if byPort[at] == nil {
			ports = append(ports, at)
		}
		byPort[at] = append(byPort[at], h)
	}
	if len(ports) == 0 {
		return nil
	}
	all := v.clientsByPort()
	var findings []Finding
	for _, at := range ports {
		findings = append(findings, v.vanishedFinding(at, byPort[at], all[at]))
	}
	return findings
}

func (v *view) vanishedFinding(at port, gone []hush, clients int) Finding {
	var conns []*conn
	var quiet time.Duration
	for i := range gone {
		conns = append(conns, gone[i].conns...)
		quiet = max(quiet, gone[i].quiet)
	}
	f := Finding{Severity: Info, weight: len(conns)}
	if len(gone)*100 > clients*vanishedShare {
		f.Severity = Warn
	}
	first, last, never := remaining(conns)
	if !never {
		f.Bound = last
	}
	who := count(len(gone), "client")
	if len(gone) == 1 {
		who = "client " + gone[0].addr.String()
	}
	f.Title = fmt.Sprintf("%s of port %d went silent, %s ago (%s, of %s)", who, at.number, upTo(len(gone), quiet),
		count(len(conns), "connection"), count(clients, "client"))
	_, peers := v.facing(conns)
	f.Subject = append(Values{{"port", int(at.number)}, {"netns", at.netns}, {"processes", v.processes(conns)}, {"count", len(conns)}}, peers...)
	f.Evidence = noticed(Values{{"silent_clients", len(gone)}, {"clients", clients}, {"last_ack_seconds", seconds(quiet)}}, first, last, never)
	f.Why = "Clients that lose their network say no goodbye. Their connections hold memory, descriptors and whatever is queued for them; " + endOf(first, last, never)
	return f
}

// clientsByPort counts the peers that have a connection with a port here.
func (v *view) clientsByPort() map[port]int {
	all := make(map[port]int)
	for i := range v.peers {
		counted := make(map[uint16]bool, 1)
		for _, c := range v.peers[i].conns {
			if number := c.Local.Port(); c.accepted && !counted[number] {
				counted[number] = true
				all[port{c.Netns, number}]++
			}
		}
	}
	return all
}
