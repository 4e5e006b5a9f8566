package verdict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// LeakVerdict is what is thought of code that opens sockets. The zero value is
// Healthy.
type LeakVerdict uint8

// The verdicts, from the least.
const (
	Healthy   LeakVerdict = iota // nothing speaks against it
	Suspected                    // so far it looks like a leak; only more time can tell
	Leaking                      // it opens sockets although ever more that nobody uses are open
)

// String returns the verdict's name as in JSON.
func (v LeakVerdict) String() string {
	return [...]string{"healthy", "suspect", "leak"}[min(v, Leaking)]
}

// MarshalText makes the verdict's name.
func (v LeakVerdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// The recommended times after which a socket that nobody used counts as idle: for
// a leak, and for a suspicion. Pools of clients that share a peer use their
// connections within 90 s, the idle timeout of net/http, or they close them;
// those with longer ones rarely leave six idle for longer than the first at a time.
const (
	LeakIdle    = 5 * time.Minute
	SuspectIdle = 30 * time.Second
)

const (
	// wastedRun: so often in a row must code that opens a socket find more idle
	// ones of its own, to the same peer, than ever before.
	wastedRun = 6

	// survivalEpochs: of the sockets that were opened in each of so many periods
	// in a row, 90 % are open and idle.
	survivalEpochs  = 4
	survivalPercent = 90
	survivalFewest  = 6 // sockets in them

	// mostApart is how many peers of one line of code are told of apart.
	mostApart = 8
)

// LeakWatch follows what is opened and never closed, look by look. It keeps to the
// rule of the wasted dial: who has a pool takes an idle connection before opening
// another, so nobody opens one although ever more of their own, to the same peer,
// have been idle for long; unless they cannot use them any more, which is a leak.
// Neither a number nor its growth is held against anybody: pools, and servers with
// long connections, have large and growing ones too.
//
// Where nobody dials, of sockets that were accepted, and where each goes to another
// peer, it tells by survival: of all that were opened in each of some periods
// nearly all are open and have not been used since. That is a suspicion only:
// a server may be meant to hold idle connections.
//
// The zero LeakWatch is ready. It keeps some 200 bytes for each open socket.
type LeakWatch struct {
	Idle    time.Duration // how long a socket must have been idle for a leak; 0 = LeakIdle
	Suspect time.Duration // and for a suspicion; 0 = SuspectIdle, or Idle if that is shorter

	groups map[siteKey]*siteGroup
	seen   map[uint64]*siteGroup // by ID, of the look before
	known  map[*fact.Trace]int64 // how many sockets of a stack were seen
	last   *fact.Openings
}

// siteKey is code of a process, and whom it opens sockets to.
type siteKey struct {
	pid      int32
	asked    string    // the program's functions that did
	at       fact.Call // where it is not known who asked
	peer     string
	accepted bool
}

// siteGroup is what was seen of them.
type siteGroup struct {
	key          siteKey
	asked        fact.Call     // the line, of the first socket
	opened       int           // that were seen open
	unseen       int           // that were not, as they came and went between two looks
	last         time.Duration // when a socket of it was open
	epochs       map[int64]int // how many were opened in each period
	sure, soon   run
	open         []*fact.Opening // in the last look
	traces       map[*fact.Trace]bool
	chain        []fact.Call
	chainUnknown string
}

// run is a row of records: how many idle sockets were there when one was opened.
type run struct{ length, best int }

func (r *run) dial(idle int) {
	switch {
	case idle < 2:
		*r = run{}
	case idle > r.best:
		r.length, r.best = r.length+1, idle
	}
}

func (w *LeakWatch) idle() time.Duration { return cmp.Or(w.Idle, LeakIdle) }

func (w *LeakWatch) soon() time.Duration { return min(cmp.Or(w.Suspect, SuspectIdle), w.idle()) }

// Look takes in the next look, which must not be changed afterwards but by what
// adds to it.
func (w *LeakWatch) Look(o *fact.Openings) {
	if w.groups == nil {
		w.groups, w.known = make(map[siteKey]*siteGroup), make(map[*fact.Trace]int64)
	}
	for _, g := range w.groups {
		g.open = g.open[:0]
	}
	modules := make(map[int32]string)
	for i := range o.Programs {
		modules[o.Programs[i].PID] = o.Programs[i].Module
	}
	seen, fresh := make(map[uint64]*siteGroup, len(o.Open)), []*fact.Opening(nil)
	for i := range o.Open {
		one := &o.Open[i]
		if one.Protocol == fact.UDP {
			continue
		}
		g := w.seen[one.ID]
		if g == nil {
			g = w.group(one, modules[one.PID])
			fresh = append(fresh, one)
			w.known[one.At]++
		}
		g.open = append(g.open, one)
		seen[one.ID] = g
	}
	slices.SortFunc(fresh, func(a, b *fact.Opening) int { return cmp.Compare(a.Born, b.Born) })
	byGroup := make(map[*siteGroup][]*fact.Opening)
	for _, one := range fresh {
		byGroup[seen[one.ID]] = append(byGroup[seen[one.ID]], one)
	}
	for g, list := range byGroup {
		g.born(list, w)
	}
	for key, g := range w.groups { // what has had no socket for a while is forgotten
		if len(g.open) > 0 {
			g.last = o.Now
		} else if o.Now-g.last > w.idle() {
			delete(w.groups, key)
		}
	}
	w.seen, w.last = seen, o
	w.count(o)
}

// count finds out how many sockets of each group came and went between two looks.
// Those of a stack that several groups have are nobody's.
func (w *LeakWatch) count(o *fact.Openings) {
	of := make(map[*fact.Trace]*siteGroup)
	for _, g := range w.groups {
		g.unseen = 0
		for at := range g.traces {
			if _, shared := of[at]; shared {
				of[at] = nil
			} else {
				of[at] = g
			}
		}
	}
	known := make(map[*fact.Trace]int64, len(of))
	for at := range of {
		known[at] = w.known[at]
	}
	w.known = known // what no group has any more is forgotten
	for _, made := range o.Made {
		if g := of[made.At]; g != nil {
			g.unseen += max(int(made.Count)-int(known[made.At]), 0)
		}
	}
}

func (w *LeakWatch) group(one *fact.Opening, module string) *siteGroup {
	own := ownOf(module)
	chain, asked, unknown := requester(one, own)
	key := siteKey{pid: one.PID, asked: cmp.Or(ownPath(chain, own), asked.Func), peer: peerName(one), accepted: one.Accepted}
	if asked.Func == "" {
		key.at = openedAt(one.At)
	}
	g := w.groups[key]
	if g == nil {
		g = &siteGroup{key: key, asked: asked, epochs: make(map[int64]int), traces: make(map[*fact.Trace]bool), chain: chain, chainUnknown: unknown}
		w.groups[key] = g
	}
	g.traces[one.At] = true
	return g
}

// born counts sockets that were not there in the look before, in the order in
// which they were opened, and how many of their kind were idle then. Those that
// were used since are not counted.
func (g *siteGroup) born(fresh []*fact.Opening, w *LeakWatch) {
	g.opened += len(fresh)
	for _, one := range fresh {
		g.epochs[int64(one.Born/w.idle())]++
	}
	if g.key.accepted {
		return
	}
	var used []time.Duration // when each of them was used last
	for _, one := range g.open {
		if last, ok := one.Used.Get(); ok && one.State == fact.Established {
			used = append(used, last)
		}
	}
	slices.Sort(used)
	for _, one := range fresh {
		sure, _ := slices.BinarySearch(used, one.Born-w.idle())
		soon, _ := slices.BinarySearch(used, one.Born-w.soon())
		g.sure.dial(sure)
		g.soon.dial(soon)
	}
}

// peerName is the other end. Of what was accepted that is a crowd.
func peerName(one *fact.Opening) string {
	switch {
	case one.Accepted && one.Path != "":
		return "clients of " + one.Path
	case one.Accepted && one.Local.IsValid():
		return "clients of " + one.Local.String()
	case one.Remote.IsValid() && one.Remote.Port() != 0:
		return one.Remote.String()
	case one.Path != "":
		return one.Path
	}
	return "(unknown)"
}

// LeakSite is code that opened sockets which are open.
type LeakSite struct {
	PID         int32
	Process     string
	Container   string
	AskedBy     fact.Call   // the program's own code that asked; empty when it is not known
	OpenedAt    fact.Call   // the code that opened them, of whatever library
	Stack       []fact.Call // from there to who asked, and on
	Unknown     string      // why the stack is not all, in words
	Peer        string
	PeerPID     int32 // 0 = not on this machine, or unknown
	PeerProcess string
	Peers       int // more than 1: each has one or few
	Accepted    bool

	Opened, Open int
	Idle         fact.Known[time.Duration] // of the one that was idle longest
	IdleMany     int                       // how many are idle for longer than the watch's time for a suspicion
	UsedAt       fact.Call                 // the program's own code that used them last
	Clients      int                       // different http.Transports; 0 = unknown
	Operations   int                       // in so many bursts they were opened
	Left         fact.Known[time.Duration] // until the process has no file descriptor left
	Verdict      LeakVerdict
	Diagnosis    string

	key string
}

// Sites returns the code that opened what is open in the last look: leaks first,
// then by how many are open.
func (w *LeakWatch) Sites() []LeakSite {
	sites := []LeakSite{}
	for _, groups := range w.merged() {
		if s, ok := w.site(groups); ok {
			sites = append(sites, s)
		}
	}
	slices.SortFunc(sites, func(a, b LeakSite) int {
		return cmp.Or(cmp.Compare(b.Verdict, a.Verdict), cmp.Compare(b.Open, a.Open), cmp.Compare(a.PID, b.PID),
			cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.AskedBy.Func, b.AskedBy.Func), cmp.Compare(a.AskedBy.Line, b.AskedBy.Line))
	})
	return sites
}

// merged puts together the groups of code that has many peers.
func (w *LeakWatch) merged() (all [][]*siteGroup) {
	byCode := make(map[siteKey][]*siteGroup)
	for key, g := range w.groups {
		if len(g.open) > 0 {
			key.peer = ""
			byCode[key] = append(byCode[key], g)
		}
	}
	for _, groups := range byCode {
		slices.SortFunc(groups, func(a, b *siteGroup) int { return cmp.Compare(a.key.peer, b.key.peer) })
		var few []*siteGroup // those with nothing to say alone
		for _, g := range groups {
			if len(groups) > mostApart && w.judge([]*siteGroup{g}) == Healthy {
				few = append(few, g)
			} else {
				all = append(all, []*siteGroup{g})
			}
		}
		if len(few) > 0 {
			all = append(all, few)
		}
	}
	return all
}

// judge applies both rules.
func (w *LeakWatch) judge(groups []*siteGroup) LeakVerdict {
	verdict := Healthy
	for _, g := range groups {
		switch {
		case g.sure.length >= wastedRun:
			return Leaking
		case g.soon.length >= wastedRun:
			verdict = Suspected
		}
	}
	if verdict == Healthy && (groups[0].key.accepted || len(groups) > mostApart) && w.survive(groups) {
		return Suspected
	}
	return verdict
}

// survive tells whether of what was opened in each of the last periods nearly all
// is open and idle.
func (w *LeakWatch) survive(groups []*siteGroup) bool {
	last := int64((w.last.Now-w.idle())/w.idle()) - 1 // the last period of which all can be idle for so long
	total, opened, open := 0, 0, 0
	born, alive := make(map[int64]int), make(map[int64]int)
	for _, g := range groups {
		opened, open = opened+g.opened+g.unseen, open+len(g.open)
		for epoch, n := range g.epochs {
			born[epoch] += n
		}
		for _, one := range g.open {
			if used, ok := one.Used.Get(); ok && w.last.Now-used > w.idle() {
				alive[int64(one.Born/w.idle())]++
			}
		}
	}
	for epoch := last; epoch > last-survivalEpochs; epoch-- {
		if epoch < 0 || born[epoch] == 0 || alive[epoch]*100 < born[epoch]*survivalPercent {
			return false
		}
		total += born[epoch]
	}
	return total >= survivalFewest && open*100 >= opened*survivalPercent
}

// operations counts bursts: times of birth, in order, with gaps between some of
// them that are much longer than all others.
func operations(born []time.Duration) int {
	if len(born) < 2 {
		return len(born)
	}
	gaps := make([]time.Duration, 0, len(born)-1)
	for i := 1; i < len(born); i++ {
		gaps = append(gaps, max(born[i]-born[i-1], time.Microsecond))
	}
	slices.Sort(gaps)
	split := 0 // gaps below belong into a burst
	for i := 1; i < len(gaps); i++ {
		if gaps[i] > 4*gaps[i-1] && (split == 0 || gaps[i]/gaps[i-1] > gaps[split]/gaps[split-1]) {
			split = i
		}
	}
	return len(gaps) - split + 1
}

// Key tells sites apart from look to look.
func (s *LeakSite) Key() string { return s.key }

// PerOperation is how many sockets were opened at a time, rounded.
func (s *LeakSite) PerOperation() int {
	if s.Operations == 0 {
		return 1
	}
	return max((s.Open+s.Operations/2)/s.Operations, 1)
}

// peersText names the other end of one or many groups.
func peersText(groups []*siteGroup) (string, int) {
	if len(groups) == 1 {
		return groups[0].key.peer, 1
	}
	return fmt.Sprintf("%s peers, such as %s", Number(len(groups)), groups[0].key.peer), len(groups)
}

// vendored reports a package that a module has a copy of.
func vendored(path string) bool { return strings.Contains("/"+path, "/vendor/") }
