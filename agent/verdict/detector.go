package verdict

import (
	"cmp"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

const (
	// Who watches without a gap need not make up for what it did not see, so a
	// peer with many sockets is silent after less than S001 asks for. Under 40 %
	// loss each way the last acknowledgement on 1,000 connections was never older
	// than 60 ms; what this must be longer than is a pause of the peer.
	watchedLargePeer = 800 * time.Millisecond

	// Below largePeer sockets there are few exchanges, and they are what takes
	// the time: one connection that sends makes the 7th 12.8 s after the first.
	watchedSmallPeer = 5 * time.Second

	// watchedAsked is how long ago somebody must have asked first: idle
	// connections that were opened together are probed together, and a path that
	// pauses for a moment then is no dead one. A probe is seen up to a look later
	// than it was sent, so it is less than the quiet time.
	watchedAsked = 500 * time.Millisecond

	// lateness is how much later than planned a look may come. The ages that a
	// machine shows which did not run for longer say little about its peers: its
	// timers fire all at once, before the answers that waited with them are read.
	lateness = 250 * time.Millisecond

	// remembered is for how long a peer is known to have been quiet and lived.
	remembered = 10 * time.Minute

	// An acknowledgement is a new one when it is so much younger than the last: a
	// look takes time, so the moment that an age stands for is not exact. A peer
	// that is suspected was quiet for twice as long.
	newerBy = watchedLargePeer / 2
)

// Detector finds peers that fall silent in a row of looks at the TCP sockets of
// a machine, sooner than S001 can, which has only two. The zero Detector is
// ready. It is pure: the time is that of the looks.
//
// It judges by the same signs as S001, with these differences. The quiet time
// is 800 ms from 20 sockets on (and four retransmission timeouts) and 5 s
// below, and the first exchange must have waited for most of that. Only what happened since the first look, without a gap, counts: when a
// look comes late, because the machine or the one who looks did not run, all
// silences begin anew with it. And a peer that left so many exchanges
// unanswered and then answered must leave twice as many more next time, and one
// that answered some sockets while others lost must leave as many as S001 asks
// of a lossy path, for ten minutes: a path that loses much raises the bar for
// itself. A peer with few sockets must leave 16, or be quiet for as long as S001
// asks.
//
// Whoever can poke peers does so with its [Detector.Suspects] and tells it what
// came of that, [Detector.Hear]: a poke that was left unanswered settles within 3 s
// what takes 5 to 15 s to see. Nothing else changes, so without pokes all of the
// above holds. Times are compared as the looks have them: with the monotonic clock
// that time.Now reads too, so that a wall clock that is set decides nothing.
type Detector struct {
	last  time.Time // of the look before
	since time.Time // of the first look after the last gap
	peers map[peerKey]*memory
	waits map[uint64]wait // by cookie: sockets of suspects that probe

	suspicious bool
	suspects   []Suspect
}

// memory is what a Detector knows of a peer that left something unanswered.
type memory struct {
	heard      time.Time // when it last acknowledged something
	unanswered int       // the most exchanges since then
	survived   int       // the most before, after which it answered
	survivedAt time.Time
	lossyAt    time.Time // when something was lost while the peer acknowledged something else
	silent     bool

	poked      int       // exchanges that pokes left unanswered since, each of which was sure by itself
	pokedSince time.Time // when the first of those pokes began
}

// wait is the probes of a socket that are not answered.
type wait struct {
	probes uint8
	seen   []time.Time // when each of those that were sent meanwhile was first seen
}

// Change is a verdict that fell, or one that was lifted.
type Change struct {
	// Peer as this look shows it. Verdict is Silent when it fell, and Alive when
	// the peer acknowledged something again. It is Unsure with a Count of 0 when
	// no connection is left that could tell.
	Peer
	Time   time.Time
	Silent time.Duration // of a verdict that was lifted: how long nothing was acknowledged
}

// Suspicious says whether the last look showed anything that may become a
// verdict, so that the next one is worth its cost soon.
func (d *Detector) Suspicious() bool { return d.suspicious }

// Look judges the next look, which needs to have nothing but TCP sockets, and
// returns what changed. within is how long after the look before it was meant
// to come. Looks must not go back in time.
func (d *Detector) Look(m *fact.Machine, within time.Duration) []Change {
	late := d.last.IsZero() || m.Time.Sub(d.last) > within+lateness
	d.last = m.Time
	if late {
		d.since, d.waits, d.suspicious, d.suspects = m.Time, nil, true, nil
		for _, mem := range d.peers {
			mem.poked = 0
		}
		return nil
	}
	if d.peers == nil {
		d.peers = make(map[peerKey]*memory)
	}
	v := newView(d.doubtful(m))
	d.waiting(v)
	d.suspects = nil
	var changes []Change
	seen := make(map[peerKey]bool, len(v.peers))
	for i := range v.peers {
		p := &v.peers[i]
		if len(p.conns) == 0 {
			continue
		}
		seen[p.peerKey] = true
		if c, changed := d.judge(v, p); changed {
			changes = append(changes, c)
		}
	}
	changes = append(changes, d.forget(m.Time, seen)...)
	slices.SortFunc(changes, func(a, b Change) int { return cmp.Or(cmp.Compare(b.Count, a.Count), a.Addr.Compare(b.Addr)) })
	return changes
}

// doubtful are the sockets of all peers that left something unanswered, now or
// when they last were looked at. There are few on a machine that is well, so
// that a look costs little more than to go through the list once.
func (d *Detector) doubtful(m *fact.Machine) *fact.Machine {
	few := &fact.Machine{Host: m.Host, Time: m.Time, Namespaces: m.Namespaces}
	keys := make(map[peerKey]bool)
	for key, mem := range d.peers {
		if mem.silent || mem.unanswered > 0 || mem.poked > 0 {
			keys[key] = true
		}
	}
	d.suspicious = len(keys) > 0
	for i := range m.Sockets {
		s := &m.Sockets[i]
		if Doubtful(s) {
			keys[keyOf(s)], d.suspicious = true, true
		}
	}
	if len(keys) == 0 {
		return few
	}
	for i := range m.Sockets {
		if s := &m.Sockets[i]; s.Conn != nil && s.Protocol == fact.TCP && keys[keyOf(s)] {
			few.Sockets = append(few.Sockets, *s)
		}
	}
	return few
}

// Doubtful reports whether a socket may be the first sign of a silence: worth a
// look at all the others.
func Doubtful(s *fact.Socket) bool {
	return s.Conn != nil && s.Protocol == fact.TCP && usable(s.State) && !s.Remote.Addr().IsLoopback() && (inTrouble(s) || waits(s))
}

// waits reports that the answer to what a socket sent takes longer than usual:
// the first that can be seen of a silence.
func waits(s *fact.Socket) bool {
	const delayedAck = 100 * time.Millisecond // a peer may keep back an acknowledgement for 40 ms
	since := min(s.Conn.LastSent, s.Conn.LastAck)
	if s.Conn.Retransmits > 0 {
		since = s.Conn.LastAck // each retransmission is sent anew
	}
	return s.Conn.Unacked > 0 && since > max(delayedAck, 2*s.Conn.RTT)
}

// lost reports that a socket lost something for certain: it takes longer to see
// than newerBy, so a peer that was heard since is one that lives.
func lost(s *fact.Socket) bool {
	return inTrouble(s) && (s.Conn.Unacked > 0 || s.Conn.Probes >= 2)
}

// waiting notes for how long each probe has been seen to wait: a look alone
// does not tell when they were sent.
func (d *Detector) waiting(v *view) {
	before := d.waits
	d.waits, v.probed = make(map[uint64]wait), make(map[uint64][]time.Duration)
	for i := range v.conns {
		s := v.conns[i].Socket
		if s.Conn.Probes == 0 || s.Conn.Unacked > 0 {
			continue
		}
		w := before[s.Cookie]
		if s.Conn.Probes < w.probes {
			w = wait{}
		}
		if s.Conn.Probes > w.probes {
			w.probes, w.seen = s.Conn.Probes, append(w.seen, v.Time)
		}
		d.waits[s.Cookie] = w
		for _, at := range w.seen {
			v.probed[s.Cookie] = append(v.probed[s.Cookie], v.Time.Sub(at))
		}
	}
}

// judge compares a peer with what is known of it.
func (d *Detector) judge(v *view, p *peer) (c Change, changed bool) {
	mem := d.peers[p.peerKey]
	if mem == nil {
		mem = &memory{}
		d.peers[p.peerKey] = mem
	}
	quiet := p.conns[0].Conn.Heard()
	for _, c := range p.conns {
		quiet = min(quiet, c.Conn.Heard())
	}
	heard := v.Time.Add(-quiet)
	if mem.heard.IsZero() {
		mem.heard = heard
	}
	if heard.Sub(mem.heard) > newerBy { // a sign of life
		c = Change{Time: v.Time, Silent: heard.Sub(mem.heard)}
		changed = mem.silent
		if !mem.silent && mem.unanswered > 0 && mem.unanswered >= mem.survived {
			mem.survived, mem.survivedAt = mem.unanswered, v.Time
		}
		mem.heard, mem.unanswered, mem.silent = heard, 0, false
	}
	if mem.poked > 0 && heard.Sub(mem.pokedSince) > newerBy/2 {
		mem.poked = 0
	}
	if quiet < newerBy && slices.ContainsFunc(p.conns, func(c *conn) bool { return lost(c.Socket) }) {
		mem.lossyAt = v.Time
	}
	t := terms{large: watchedLargePeer, small: watchedSmallPeer, most: max(v.Time.Sub(d.since), 1),
		asked: watchedAsked, probes: exchangesUnknownPath, survived: mem.survived, poked: mem.poked}
	if !mem.lossyAt.IsZero() {
		t.least = exchangesLossyPath
	}
	h := v.listen(p, t)
	mem.unanswered = max(mem.unanswered, h.unanswered)
	if h.sure == Silent && !mem.silent {
		c, changed = Change{Time: v.Time}, true
		mem.silent = true
	}
	d.suspect(p, mem, quiet)
	if changed {
		c.Peer = v.describe(p, &h)
		if !mem.silent {
			c.Verdict, c.Evidence = Alive, nil
		}
	}
	return c, changed
}

// forget drops what is known of peers that are gone, and what is known for too
// long.
func (d *Detector) forget(now time.Time, seen map[peerKey]bool) (changes []Change) {
	for key, mem := range d.peers {
		if !seen[key] {
			if mem.silent {
				changes = append(changes, Change{Time: now, Silent: now.Sub(mem.heard),
					Peer: Peer{Netns: key.netns, Interface: key.iface, Addr: key.addr, Verdict: Unsure}})
			}
			mem.silent, mem.unanswered, mem.poked = false, 0, 0
		}
		if mem.survived > 0 && now.Sub(mem.survivedAt) > remembered {
			mem.survived = 0
		}
		if now.Sub(mem.lossyAt) > remembered {
			mem.lossyAt = time.Time{}
		}
		if !mem.silent && mem.unanswered == 0 && mem.poked == 0 && mem.survived == 0 && mem.lossyAt.IsZero() {
			delete(d.peers, key)
		}
	}
	return changes
}
