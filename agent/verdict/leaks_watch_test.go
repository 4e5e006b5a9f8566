package verdict

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// The scenarios of testdata/opened speak of sockets that are opened over time:
//
//	look 10s until 30m
//	process 7 agent module=example.com/agent files=100/1024
//	open 2x every=60s times=20 pid=7 peer=10.0.0.1:80 stack=net/http.(*Transport).dial asked=main.build<main.main
//	     used=2s busy=30s close=90s accepted clients
//	near L004
//
// Each of them is used once after used=, or every busy= until it is closed, never
// when there is no close=. The words clients and client give each, or all, an
// http.Transport. Calls are innermost first.

type opened struct {
	fact.Opening
	use, busy, close time.Duration
}

func (s *opened) at(now time.Duration) (fact.Opening, bool) {
	if s.Born > now || s.close != 0 && s.Born+s.close <= now {
		return fact.Opening{}, false
	}
	one := s.Opening
	used := s.Born + min(s.use, now-s.Born)
	if s.busy != 0 {
		used = now - (now-s.Born)%s.busy
	}
	one.Used = fact.Seen(used)
	return one, true
}

type openedWorld struct {
	step, until time.Duration
	programs    []fact.Opener
	sockets     []opened
	traces      map[string]*fact.Trace
	near        []string
}

func (w *openedWorld) trace(text string) *fact.Trace {
	if t := w.traces[text]; t != nil {
		return t
	}
	t := &fact.Trace{}
	if why, unknown := strings.CutPrefix(text, "unknown:"); unknown {
		t.Unknown = why
	} else {
		for i, name := range strings.Split(text, "<") {
			t.Calls = append(t.Calls, fact.Call{Func: name, File: "a.go", Line: i + 1})
		}
	}
	w.traces[text] = t
	return t
}

func (w *openedWorld) parse(line string) error {
	l, err := splitLine(line)
	if err != nil {
		return err
	}
	duration := func(key string) (d time.Duration) {
		if err2 := set(&l, key, &d, time.ParseDuration); err2 != nil {
			err = err2
		}
		return d
	}
	switch kind := l.next(); kind {
	case "look":
		w.step, err = time.ParseDuration(l.next())
		l.next()
		if err == nil {
			w.until, err = time.ParseDuration(l.next())
		}
	case "near":
		w.near, l.bare = append(w.near, l.bare...), nil
	case "process":
		pid, _ := strconv.Atoi(l.next())
		p := fact.Opener{PID: int32(pid), Name: l.next(), Module: l.text("module")}
		if open, limit, found := strings.Cut(l.text("files"), "/"); found {
			n, _ := strconv.Atoi(open)
			most, _ := strconv.Atoi(limit)
			p.Files = fact.Seen(fact.Files{Open: n, Limit: uint64(most)})
		}
		if bodies, found := l.take("bodies"); found {
			n, _ := strconv.Atoi(bodies)
			p.Waits = fact.Seen(fact.HTTPWaits{Bodies: n})
		}
		w.programs = append(w.programs, p)
	case "open":
		n, _ := strconv.Atoi(strings.TrimSuffix(l.next(), "x"))
		every, times := duration("every"), 1
		start := duration("start")
		if err2 := set(&l, "times", &times, strconv.Atoi); err2 != nil {
			return err2
		}
		one := opened{use: duration("used"), busy: duration("busy"), close: duration("close")}
		pid, _ := strconv.Atoi(l.text("pid"))
		one.PID, one.Protocol, one.State = int32(pid), fact.TCP, fact.Established
		one.At = w.trace(l.text("stack"))
		for asked := range strings.SplitSeq(l.text("asked"), "|") {
			if asked != "" {
				one.Asked = append(one.Asked, w.trace(asked))
			}
		}
		if used := l.text("by"); used != "" {
			one.UsedBy = w.trace(used)
		}
		one.Accepted = l.flag("accepted")
		clients, client := l.flag("clients"), l.flag("client")
		peer, path := l.text("peer"), ""
		if strings.HasPrefix(peer, "/") {
			peer, path, one.Protocol = "", peer, fact.UnixStream
		}
		apart := strings.HasSuffix(peer, "+")
		for i := range n * times {
			s := one
			s.ID, s.Path = uint64(len(w.sockets)+1), path
			s.Born = start + time.Duration(i/n)*every + time.Duration(i%n)*time.Millisecond
			if peer != "" {
				s.Remote = netip.MustParseAddrPort(strings.TrimSuffix(peer, "+"))
				if apart {
					s.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i / 250), byte(i % 250)}), s.Remote.Port())
				}
				if s.Accepted {
					s.Local, s.Remote = s.Remote, netip.AddrPortFrom(s.Remote.Addr(), uint16(20000+i))
				}
			}
			switch {
			case clients:
				s.Client = s.ID
			case client:
				s.Client = 1
			}
			w.sockets = append(w.sockets, s)
		}
	default:
		return fmt.Errorf("unknown word %q", kind)
	}
	return cmp.Or(err, l.unused())
}

// play returns what a watch thinks in the end, and when it first thought so of
// anybody.
func (w *openedWorld) play(watch *LeakWatch) (sites []LeakSite, first map[LeakVerdict]time.Duration) {
	first = make(map[LeakVerdict]time.Duration)
	for now := time.Duration(0); now <= w.until; now += w.step {
		o := &fact.Openings{Now: now, Programs: w.programs}
		for i := range w.sockets {
			if one, ok := w.sockets[i].at(now); ok {
				o.Open = append(o.Open, one)
			}
		}
		watch.Look(o)
		for _, g := range watch.groups {
			v := watch.judge([]*siteGroup{g})
			if _, before := first[v]; !before {
				first[v] = now
			}
		}
	}
	return watch.Sites(), first
}

func renderSites(sites []LeakSite) string {
	if len(sites) == 0 {
		return "nothing is open"
	}
	var b strings.Builder
	for i := range sites {
		s := &sites[i]
		fmt.Fprintf(&b, "%v %s asked_by=%s:%d opened_at=%s peer=%q open=%d/%d each=%d", s.Verdict, s.Process, s.AskedBy.Func, s.AskedBy.Line, s.OpenedAt.Func, s.Peer, s.Open, s.Opened, s.PerOperation())
		if left, ok := s.Left.Get(); ok {
			fmt.Fprintf(&b, " left=%v", left.Round(time.Minute))
		}
		b.WriteByte('\n')
		if s.Diagnosis != "" {
			fmt.Fprintf(&b, "     %s\n", s.Diagnosis)
		}
	}
	return strings.TrimSpace(b.String())
}

// judgedOpened plays a scenario, and judges what there is in the end.
func judgedOpened(facts string) (findings []Finding, text string, near []string, err error) {
	w := &openedWorld{traces: make(map[string]*fact.Trace)}
	for line := range strings.Lines(facts) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if err := w.parse(line); err != nil {
			return nil, "", nil, fmt.Errorf("%s: %w", line, err)
		}
	}
	sites, _ := w.play(&LeakWatch{})
	findings, text = JudgeSites(sites), renderSites(sites)
	if len(findings) > 0 {
		text += "\n" + render(findings)
	}
	return findings, text, w.near, nil
}

// load is one program of the simulation: in steps of a second it opens, uses and
// closes sockets as such programs do.
type load struct {
	r       *rand.Rand
	sockets []*opened
	idle    [][]*opened // by pool
	busy    map[*opened]busy
	now     time.Duration
}

type busy struct {
	until time.Duration
	pool  int // -1: it is never used again; -2: it is closed
}

func (l *load) dial(use time.Duration, pool int) {
	s := &opened{Opening: fact.Opening{ID: uint64(len(l.sockets) + 1), PID: 7, Protocol: fact.TCP, State: fact.Established, Born: l.now, At: simTrace,
		Remote: netip.MustParseAddrPort("10.0.0.1:80")}}
	s.Used = fact.Seen(l.now)
	l.sockets = append(l.sockets, s)
	l.busy[s] = busy{l.now + use, pool}
}

var simTrace = &fact.Trace{Calls: []fact.Call{{Func: "main.dial", File: "main.go", Line: 1}}}

func (l *load) use(pool int, d time.Duration) {
	if n := len(l.idle[pool]); n > 0 {
		s := l.idle[pool][n-1]
		l.idle[pool] = l.idle[pool][:n-1]
		s.Used = fact.Seen(l.now)
		l.busy[s] = busy{l.now + d, pool}
		return
	}
	l.dial(d, pool)
}

// done ends uses, and closes what has been idle in its pool for too long, or has
// lived too long.
func (l *load) done(timeout, life time.Duration) {
	for s, b := range l.busy {
		if b.until > l.now {
			s.Used = fact.Seen(l.now)
			continue
		}
		delete(l.busy, s)
		switch {
		case b.pool >= 0:
			l.idle[b.pool] = append(l.idle[b.pool], s)
		case b.pool == -2:
			s.close = l.now - s.Born + 1
		}
	}
	for i := range l.idle {
		l.idle[i] = slices.DeleteFunc(l.idle[i], func(s *opened) bool {
			gone := l.now-s.Used.Value > timeout || life != 0 && l.now-s.Born > life
			if gone {
				s.close = l.now - s.Born + 1
			}
			return gone
		})
	}
}

func (l *load) poisson(rate float64) (n int) {
	for p := l.r.Float64(); p > math.Exp(-rate); p *= l.r.Float64() {
		n++
	}
	return n
}

func (l *load) exp(mean time.Duration) time.Duration {
	return time.Duration(l.r.ExpFloat64() * float64(mean))
}

const never = 1 << 62

// loads are leaks, and programs that open and keep as many connections for good
// reasons; and what must be said of each within ten hours: a leak at the latest
// after so long, or nothing.
var loads = []struct {
	name   string
	leak   time.Duration // 0: it is healthy
	second func(l *load)
}{
	{"leak, 2 per 60 s", time.Hour, leaks(time.Minute, 0)},
	{"leak, 2 per 10 min", 5 * time.Hour, leaks(10*time.Minute, 0)},
	{"leak beside a pool of the same line", 4 * time.Hour, leaks(5*time.Minute, 0.2)},
	{"12 clients leaked per hourly reload", 10 * time.Hour, func(l *load) {
		l.done(never, 0)
		if l.now%time.Hour == 0 {
			for range 12 {
				l.dial(5*time.Second, -1)
			}
		}
	}},
	{"pool over day and night", 0, func(l *load) {
		l.pool(2+1.9*math.Sin(2*math.Pi*l.now.Hours()/24-1.5), 90*time.Second, 0)
	}},
	{"pool with hourly bursts and 10 min timeout", 0, func(l *load) {
		rate := 0.2
		if l.now%time.Hour < 2*time.Minute {
			rate = 15
		}
		l.pool(rate, 10*time.Minute, 0)
	}},
	{"pool with a maximum life", 0, func(l *load) { l.pool(3, never, 30*time.Minute) }},
	{"websocket server, 2 h lives", 0, func(l *load) {
		l.done(never, 0)
		if l.r.Float64() < 0.05 {
			l.dial(l.exp(2*time.Hour), -2)
			l.sockets[len(l.sockets)-1].Accepted = true
			l.sockets[len(l.sockets)-1].Local = netip.MustParseAddrPort("10.0.0.9:80")
		}
	}},
	{"one connection kept per host", 0, func(l *load) {
		l.done(never, 0)
		if host := int(l.r.ExpFloat64() * 60); l.r.Float64() < 0.02 && host < 300 && l.idle[host] == nil {
			l.dial(time.Second, host)
			l.idle[host] = []*opened{}
			s := l.sockets[len(l.sockets)-1]
			s.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 2, byte(host / 200), byte(host % 200)}), 80)
		}
	}},
	{"8 clients, 90 s timeout", 0, clients(8, 90*time.Second)},
	{"30 clients, 90 s timeout", 0, clients(30, 90*time.Second)},
	{"8 clients, 10 min timeout", 0, clients(8, 10*time.Minute)},
}

func (l *load) pool(rate float64, timeout, life time.Duration) {
	l.done(timeout, life)
	for range l.poisson(rate) {
		l.use(0, max(time.Second, l.exp(5*time.Second)))
	}
}

func leaks(every time.Duration, rate float64) func(*load) {
	next := time.Duration(0)
	return func(l *load) {
		if l.now == 0 {
			next = 0
		}
		l.pool(rate, 90*time.Second, 0)
		if l.now >= next {
			next = l.now + l.exp(every)
			l.dial(20*time.Second, -1)
			l.dial(20*time.Second, -1)
		}
	}
}

func clients(n int, timeout time.Duration) func(*load) {
	return func(l *load) {
		l.done(timeout, 0)
		for i := range n {
			if l.r.Float64() < 1.0/120 {
				l.use(i, 2*time.Second)
			}
		}
	}
}

// Ten hours of each load: every leak is found, and nobody else is called one.
func TestLeakSimulation(t *testing.T) {
	for _, load := range loads {
		t.Run(load.name, func(t *testing.T) {
			t.Parallel()
			simulate(t, load.second, load.leak, 0)
		})
	}
}

func simulate(t *testing.T, second func(*load), want time.Duration, seed uint64) {
	t.Helper()
	l := &load{r: rand.New(rand.NewPCG(seed, 2)), idle: make([][]*opened, 300), busy: make(map[*opened]busy)}
	watch, peak := &LeakWatch{}, 0
	for ; l.now < 10*time.Hour; l.now += time.Second {
		second(l)
		if l.now%(20*time.Second) != 0 {
			continue
		}
		l.sockets = slices.DeleteFunc(l.sockets, func(s *opened) bool { return s.close != 0 && l.now-s.Born > s.close })
		o := &fact.Openings{Now: l.now}
		for _, s := range l.sockets {
			if s.close == 0 {
				o.Open = append(o.Open, s.Opening)
			}
		}
		peak = max(peak, len(o.Open))
		watch.Look(o)
		for _, g := range watch.groups {
			if watch.judge([]*siteGroup{g}) != Leaking {
				continue
			}
			if want == 0 || l.now > want {
				t.Errorf("seed %d: called a leak after %v, with %d sockets", seed, l.now, peak)
			} else {
				t.Logf("seed %d: a leak after %v, with %d sockets", seed, l.now, peak)
			}
			return
		}
	}
	if want != 0 {
		t.Errorf("seed %d: not found, with %d sockets", seed, peak)
	}
}

func TestOperations(t *testing.T) {
	for want, born := range map[int][]time.Duration{
		0: {},
		1: {5},
		5: {0, 10e9, 20e9, 30e9, 41e9},
		3: {0, 1e6, 60e9, 60e9 + 1e6, 121e9, 121e9 + 2e6},
	} {
		if got := operations(born); got != want {
			t.Errorf("%v: %d, want %d", born, got, want)
		}
	}
}

// A hundred thousand sockets that are opened at once take no time to speak of.
func TestLeakWatchIsQuick(t *testing.T) {
	var w LeakWatch
	o := &fact.Openings{Now: time.Hour}
	for i := range 100_000 {
		o.Open = append(o.Open, fact.Opening{ID: uint64(i + 1), PID: 7, Protocol: fact.TCP, State: fact.Established, At: simTrace,
			Born: time.Duration(i), Used: fact.Seen(time.Duration(i)), Remote: netip.MustParseAddrPort("10.0.0.1:80")})
	}
	begin := time.Now()
	for range 5 {
		w.Look(o)
		if s := w.Sites(); len(s) != 1 || s[0].Verdict != Healthy || s[0].Open != len(o.Open) {
			t.Fatalf("got %+v", s)
		}
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("took %v", took)
	} else {
		t.Logf("took %v", took)
	}
}
