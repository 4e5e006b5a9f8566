package verdict

import (
	"cmp"
	"maps"
	"net/netip"
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

	// A look says of a probe that it was sent since the look before, and nothing
	// of what came meanwhile on connections that have ended. Where that is longer
	// ago than this, the probe is not counted; who watches looks again soon then.
	closeLooks = time.Second

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
// below, and the first exchange must have waited for most of that. Only what
// happened since the first look, without a gap, counts: when a look comes late,
// because the machine or the one who looks did not run, all silences begin anew
// with it. A probe counts when a look that began after the peer's last sign of life
// did not have it yet. And a peer that left so many exchanges
// unanswered and then answered must leave twice as many more next time, and one
// that answered some sockets while others lost must leave as many as S001 asks
// of a lossy path, for ten minutes: a path that loses much raises the bar for
// itself. A peer with few sockets must leave 16, or be quiet for as long as S001
// asks.
//
// Whoever can poke peers does so with its [Detector.Suspects] and tells it what
// came of that, [Detector.Hear]: a poke that was left unanswered settles within 3 s
// what takes 5 to 15 s to see. A poke knows its own lateness, so a look that comes
// late does not take away what it brought; nothing is judged by that look either
// way. Without pokes all of the above holds. Times are compared as the looks have
// them: with the monotonic clock that time.Now reads too, so that a wall clock that
// is set decides nothing.
type Detector struct {
	last  time.Time // of the look before
	began time.Time // of the look before: what it does not have was sent since
	since time.Time // of the first look after the last gap
	peers map[peerKey]*memory
	waits map[uint64]wait // by cookie: sockets of suspects that probe

	suspicious bool
	suspects   []Suspect
	asking     []fact.Socket
	doubted    []netip.Addr
}

// memory is what a Detector knows of a peer that left something unanswered.
type memory struct {
	heard      time.Time // when it last acknowledged something, give or take newerBy
	life       time.Time // the same, the latest that any look showed
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
	sent   []sent // those that were sent meanwhile
}

// sent is when something was sent: after one moment, the zero one where that is
// not known, and before another.
type sent struct{ after, before time.Time }

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
// verdict, so that the next one is worth its cost soon: something that waits for
// longer than an answer takes, and may have been sent after the last sign of life.
func (d *Detector) Suspicious() bool { return d.suspicious }

// Asking are some sockets of the last look, one for each peer, that wait for an
// answer which may be on its way. Those that still wait a moment later are worth
// a look at all. The copies stay good.
func (d *Detector) Asking() []fact.Socket { return d.asking }

// Doubted are the addresses of all peers that left something unanswered, in the
// last look or when they were looked at before. A look at the sockets of these
// alone tells of them what a look at all would.
func (d *Detector) Doubted() []netip.Addr { return d.doubted }

// Look judges the next look, which needs to have nothing but TCP sockets, all or
// those of some peers, those that are [Detector.Doubted] among them, and
// returns what changed. within is how long after the look before it was meant
// to come. Looks must not go back in time.
func (d *Detector) Look(m *fact.Machine, within time.Duration) []Change {
	late := d.last.IsZero() || m.Time.Sub(d.last) > within+lateness
	if late {
		d.since, d.waits, d.began = m.Time, nil, time.Time{}
	}
	if d.peers == nil {
		d.peers = make(map[peerKey]*memory)
	}
	v := d.doubtful(m)
	d.waiting(v)
	d.last, d.began = m.Time, m.Time.Add(-m.Took)
	d.suspicious, d.suspects, d.asking = late, nil, nil
	var changes []Change
	seen := make(map[peerKey]bool, len(v.peers))
	for i := range v.peers {
		p := &v.peers[i]
		if len(p.conns) == 0 {
			continue
		}
		seen[p.peerKey] = true
		if c, changed := d.judge(v, p, late); changed {
			changes = append(changes, c)
		}
	}
	changes = append(changes, d.forget(m.Time, seen)...)
	slices.SortFunc(changes, func(a, b Change) int { return cmp.Or(cmp.Compare(b.Count, a.Count), a.Addr.Compare(b.Addr)) })
	return changes
}

// doubtful has the sockets of all peers that left something unanswered, now or
// when they last were looked at. There are few on a machine that is well, so
// that a look costs little more than to go through the list once.
func (d *Detector) doubtful(m *fact.Machine) *view {
	keys := make(map[peerKey]bool)
	for key, mem := range d.peers {
		if mem.silent || mem.unanswered > 0 || mem.poked > 0 {
			keys[key] = true
		}
	}
	for i := range m.Sockets {
		s := &m.Sockets[i]
		if isDoubtful(s) {
			keys[keyOf(s)] = true
		}
	}
	addresses := make(map[netip.Addr]bool, len(keys))
	for key := range keys {
		addresses[key.addr] = true
	}
	d.doubted = slices.Collect(maps.Keys(addresses))
	if len(keys) == 0 {
		return emptyView(m)
	}
	return viewOf(m, func(s *fact.Socket) bool { return keys[keyOf(s)] })
}

// apartOf is a copy of a connection that is good for longer than the look that it
// is of: who is poked meanwhile has it.
func apartOf(s *fact.Socket) fact.Socket {
	one, conn := *s, *s.Conn
	one.Conn = &conn
	return one
}

// isDoubtful reports whether a socket may be the first sign of a silence.
func isDoubtful(s *fact.Socket) bool {
	return s.Conn != nil && s.Protocol == fact.TCP && usable(s.State) && !s.Remote.Addr().IsLoopback() && (inTrouble(s) || waits(s))
}

// waits reports that the answer to what a socket sent takes longer than usual:
// the first that can be seen of a silence.
func waits(s *fact.Socket) bool {
	since := min(s.Conn.LastSent, s.Conn.LastAck)
	if s.Conn.Retransmits > 0 {
		since = s.Conn.LastAck // each retransmission is sent anew
	}
	return s.Conn.Unacked > 0 && since > patience(s)
}

// patience is how long an answer may take that is not unusual.
func patience(s *fact.Socket) time.Duration {
	const delayedAck = 100 * time.Millisecond // a peer may keep back an acknowledgement for 40 ms
	return max(delayedAck, 2*s.Conn.RTT)
}

// lost reports that a socket lost something for certain: it takes longer to see
// than newerBy, so a peer that was heard since is one that lives.
func lost(s *fact.Socket) bool {
	return inTrouble(s) && (s.Conn.Unacked > 0 || s.Conn.Probes >= 2)
}

// waiting notes between which looks each probe was sent: a look alone does not
// tell.
func (d *Detector) waiting(v *view) {
	before, after := d.waits, d.began
	if v.Time.Sub(after) > closeLooks {
		after = time.Time{}
	}
	d.waits, v.probed = make(map[uint64]wait), make(map[uint64][]age)
	for i := range v.conns {
		s := v.conns[i].Socket
		if s.Conn.Probes == 0 || s.Conn.Unacked > 0 {
			continue
		}
		w := before[s.Cookie]
		if s.Conn.Probes < w.probes || s.Conn.Heard() < v.Time.Sub(d.last) {
			w = wait{}
		}
		if s.Conn.Probes > w.probes {
			w.probes, w.sent = s.Conn.Probes, append(w.sent, sent{after, v.Time})
		}
		d.waits[s.Cookie] = w
		for _, at := range w.sent {
			a := age{v.Time.Sub(at.before), unknownAge}
			if !at.after.IsZero() {
				a.most = v.Time.Sub(at.after)
			}
			v.probed[s.Cookie] = append(v.probed[s.Cookie], a)
		}
	}
}

// owed counts the sockets of a peer that wait for longer than an answer takes,
// for what may have been sent after its last sign of life, and names one that may
// soon be.
func (v *view) owed(p *peer, quiet time.Duration) (n int, asking *fact.Socket) {
	for _, c := range p.conns {
		probes := v.probed[c.Cookie]
		switch {
		case !usable(c.State):
		case c.Conn.Unacked > 0:
			if waits(c.Socket) && c.Conn.LastSent < quiet+together {
				n++
			}
		case len(probes) == 0 || !inTrouble(c.Socket):
		case probes[len(probes)-1].least > quiet:
		case probes[len(probes)-1].least >= patience(c.Socket):
			n++
		default:
			asking = c.Socket
		}
	}
	return n, asking
}

// judge compares a peer with what is known of it. A look that comes late shows
// who lives, and nobody who does not.
func (d *Detector) judge(v *view, p *peer, late bool) (c Change, changed bool) {
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
	if heard.After(mem.life) {
		mem.life = heard
	}
	if mem.poked > 0 && heard.Sub(mem.pokedSince) > newerBy/2 {
		mem.poked = 0
	}
	if !late && quiet < newerBy && slices.ContainsFunc(p.conns, func(c *conn) bool { return lost(c.Socket) }) {
		mem.lossyAt = v.Time
	}
	h := hush{peer: p}
	if !late {
		h = v.listen(p, d.terms(v, mem))
	}
	mem.unanswered = max(mem.unanswered, h.unanswered)
	if h.sure == Silent && !mem.silent {
		c, changed = Change{Time: v.Time}, true
		mem.silent = true
	}
	d.suspect(v, p, mem, quiet)
	if changed {
		c.Peer = v.describe(p, &h)
		if !mem.silent {
			c.Verdict, c.Evidence = Alive, nil
		}
	}
	return c, changed
}

// terms are what it takes to call a peer silent of which so much is known.
func (d *Detector) terms(v *view, mem *memory) terms {
	t := terms{large: watchedLargePeer, small: watchedSmallPeer, most: max(min(v.Time.Sub(d.since), v.Time.Sub(mem.life)), 1),
		asked: watchedAsked, probes: exchangesUnknownPath, survived: mem.survived, poked: mem.poked}
	if !mem.lossyAt.IsZero() {
		t.least = exchangesLossyPath
	}
	return t
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
