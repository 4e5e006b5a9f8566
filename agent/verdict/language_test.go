package verdict

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

// The language of scenarios. One line is one kind of fact:
//
//	earlier 1s                                      there was a look so long before
//	ns 1 local=10.0.0.1,10.0.0.2 name=blue          a namespace; sysctl=unknown hides its settings
//	process 100 nginx files=812/1024 go=go1.26 cgo=no container=ID unit=x.service module=M
//	listen 0.0.0.0:443 pid=100
//	socket 4224x tcp estab 10.0.0.1:443 10.77.1.2:20000+ pid=100 ack=12s probes=1 keepalive=15s/15s/9
//	pair 18000x /run/docker.sock client=7 server=8  both ends of unix connections
//	conntrack 900/1000 was=880
//	flow 4224x tcp ESTABLISHED 203.0.113.7:40000+ 10.77.1.2:30080 answers=10.77.2.2:8080 sees=10.77.2.1:40000+
//	                                                a flow that is forwarded; entries with none is a table without
//	resolv 10.8.0.1 10.8.0.2 timeout=1s attempts=2 rotate
//	nameserver 10.8.0.1 answers=2ms [code=FORMERR] | silent="timed out" | noroute="why" | unasked
//	           plain=2ms | "timed out", tcp=… the same without EDNS, and over TCP
//	lookup api.corp                                 what came of looking a name up; language_names_test.go
//	program /usr/bin/kubectl go=go1.23.8 cgo=no     an executable file; the same
//	nsswitch files mdns4_minimal [NOTFOUND=return] dns
//	goroutine 4000x 21 pid=7 state="chan receive" since=4m stack=a.f<b.g<main.main
//	                                                goroutines that wait, innermost call first
//	near S001 S002                                  these rules must stay silent
//
// Nx repeats a line; + after an address or a port counts it up. A key that
// begins with was. holds for the earlier look only, where ages are otherwise
// what they were then; new and gone say that a socket is in one look only.

// world is what a scenario builds.
type world struct {
	now, was *fact.Machine
	elapsed  time.Duration // 0: there is no earlier look
	cookie   uint64
	near     []string
}

// scenarioTime is the moment of every scenario's look.
var scenarioTime = time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)

// parse reads the facts of a scenario. near are the codes that must stay silent.
func parse(text string) (m *fact.Machine, near []string, err error) {
	w := &world{now: &fact.Machine{Host: "box", Time: scenarioTime}, was: &fact.Machine{Host: "box"}}
	lines := strings.Split(text, "\n")
	for _, line := range lines {
		if age, found := strings.CutPrefix(line, "earlier "); found {
			if w.elapsed, err = time.ParseDuration(strings.TrimSpace(age)); err != nil {
				return nil, nil, err
			}
		}
	}
	for _, line := range lines {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		l, err := splitLine(line)
		if err == nil {
			err = w.add(l)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", line, err)
		}
	}
	for _, m := range []*fact.Machine{w.now, w.was} {
		if len(m.Namespaces) == 0 {
			m.Namespaces = []fact.Namespace{{Inode: 1, Own: true, Sysctl: fact.Seen(bound.Sysctl{})}}
		}
		slices.SortFunc(m.Processes, func(a, b fact.Process) int { return int(a.PID) - int(b.PID) })
	}
	if w.elapsed != 0 {
		w.was.Time = scenarioTime.Add(-w.elapsed)
		w.now.Earlier = w.was
	}
	return w.now, w.near, nil
}

// words are a line's bare words and its key=value pairs, each to be taken once.
type words struct {
	bare  []string
	pairs map[string]string
}

func splitLine(line string) (words, error) {
	l := words{pairs: make(map[string]string)}
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		end := strings.IndexByte(line, ' ')
		if quote := strings.IndexByte(line, '"'); quote >= 0 && (end < 0 || quote < end) {
			length := strings.IndexByte(line[quote+1:], '"')
			if length < 0 {
				return l, fmt.Errorf("unended quote")
			}
			end = quote + 1 + length + 1
		}
		if end < 0 {
			end = len(line)
		}
		word := strings.ReplaceAll(line[:end], `"`, "")
		line = line[end:]
		if key, value, found := strings.Cut(word, "="); found && !strings.HasPrefix(word, "[") {
			l.pairs[key] = value
		} else {
			l.bare = append(l.bare, word)
		}
	}
	return l, nil
}

func (l *words) next() string {
	if len(l.bare) == 0 {
		return ""
	}
	word := l.bare[0]
	l.bare = l.bare[1:]
	return word
}

func (l *words) flag(name string) bool {
	at := slices.Index(l.bare, name)
	if at < 0 {
		return false
	}
	l.bare = slices.Delete(l.bare, at, at+1)
	return true
}

func (l *words) take(key string) (string, bool) {
	value, found := l.pairs[key]
	delete(l.pairs, key)
	return value, found
}

func (l *words) text(key string) string { value, _ := l.take(key); return value }

func (l *words) unused() error {
	if len(l.bare)+len(l.pairs) > 0 {
		return fmt.Errorf("not understood: %v %v", l.bare, l.pairs)
	}
	return nil
}

// set fills target from a key where there is one.
func set[T any](l *words, key string, target *T, convert func(string) (T, error)) error {
	text, found := l.take(key)
	if !found {
		return nil
	}
	value, err := convert(text)
	if err == nil {
		*target = value
	}
	return err
}

func integer[T ~int | ~int32 | ~uint8 | ~uint32](s string) (T, error) {
	n, err := strconv.ParseInt(s, 10, 33)
	return T(n), err
}

func seen[T any](convert func(string) (T, error)) func(string) (fact.Known[T], error) {
	return func(s string) (fact.Known[T], error) {
		if s == "unknown" {
			return fact.Known[T]{}, nil
		}
		value, err := convert(s)
		return fact.Seen(value), err
	}
}

func (w *world) add(l words) error {
	kind := l.next()
	n := 1
	if len(l.bare) > 0 {
		if times, found := strings.CutSuffix(l.bare[0], "x"); found {
			if parsed, err := strconv.Atoi(times); err == nil && parsed > 0 && parsed <= 50_000 {
				n = parsed
				l.next()
			}
		}
	}
	var err error
	switch kind {
	case "earlier":
		l.next()
	case "near":
		w.near, l.bare = append(w.near, l.bare...), nil
	case "ns":
		err = w.namespace(&l)
	case "process":
		err = w.process(&l)
	case "listen":
		l.bare = append([]string{"tcp", "listen"}, l.bare...)
		err = w.socket(&l, 1)
	case "socket":
		err = w.socket(&l, n)
	case "pair":
		err = w.pair(&l, n)
	case "conntrack":
		err = w.conntrack(&l)
	case "flow":
		err = w.flow(&l, n)
	case "goroutine":
		err = w.goroutine(&l, n)
	case "resolv", "nameserver", "nsswitch", "environment", "lookup", "way", "program":
		err = w.names(kind, &l)
	default:
		err = fmt.Errorf("unknown word %q", kind)
	}
	if err != nil {
		return err
	}
	return l.unused()
}

func (w *world) namespace(l *words) error {
	inode, err := integer[uint32](l.next())
	ns := fact.Namespace{Inode: inode, Own: true, Sysctl: fact.Seen(bound.Sysctl{}), Name: l.text("name")}
	if l.text("sysctl") == "unknown" {
		ns.Sysctl.OK = false
	}
	for word := range strings.SplitSeq(l.text("local"), ",") {
		if addr, err := netip.ParseAddr(word); err == nil {
			ns.Local = append(ns.Local, addr)
		}
	}
	w.now.Namespaces = append(w.now.Namespaces, ns)
	w.was.Namespaces = append(w.was.Namespaces, ns)
	return err
}

func (w *world) process(l *words) error {
	pid, err := integer[int32](l.next())
	if err != nil {
		return err
	}
	p := fact.Process{PID: pid, Name: l.next(), Container: l.text("container"), Unit: l.text("unit")}
	if version, found := l.take("go"); found {
		p.Program = &fact.Program{Go: version, Module: l.text("module"), CGO: fact.Seen(true)}
		switch l.text("cgo") {
		case "no":
			p.Program.CGO.Value = false
		case "unknown":
			p.Program.CGO.OK = false
		}
	}
	was := p
	if files, found := l.take("files"); found {
		if p.Files, err = parseFiles(files); err != nil {
			return err
		}
		was.Files = p.Files
	}
	if err := set(l, "was.files", &was.Files.Value.Open, integer[int]); err != nil {
		return err
	}
	w.now.Processes = append(w.now.Processes, p)
	w.was.Processes = append(w.was.Processes, was)
	return nil
}

func parseFiles(s string) (fact.Known[fact.Files], error) {
	open, limit, _ := strings.Cut(s, "/")
	n, err := strconv.Atoi(open)
	if err != nil {
		return fact.Known[fact.Files]{}, err
	}
	files := fact.Files{Open: n, Limit: math.MaxUint64}
	if limit != "unlimited" {
		files.Limit, err = strconv.ParseUint(limit, 10, 64)
	}
	return fact.Seen(files), err
}

func (w *world) conntrack(l *words) error {
	used, most, _ := strings.Cut(l.next(), "/")
	now := fact.Conntrack{Netns: 1}
	var errs [2]error
	now.Count, errs[0] = seen(integer[int])(used)
	now.Max, errs[1] = seen(integer[int])(most)
	was := now
	err := set(l, "was", &was.Count.Value, integer[int])
	w.now.Conntrack = append(w.now.Conntrack, now)
	w.was.Conntrack = append(w.was.Conntrack, was)
	return firstError([]error{errs[0], errs[1], err})
}

func (w *world) goroutine(l *words, n int) error {
	id, err := integer[uint32](l.next())
	g := fact.Goroutine{State: l.text("state")}
	var pid int32
	errs := []error{err, set(l, "pid", &pid, integer[int32]), set(l, "since", &g.Since, time.ParseDuration)}
	for name := range strings.SplitSeq(l.text("stack"), "<") {
		g.Stack = append(g.Stack, fact.Call{Func: name, File: "/src/file.go", Line: 10 * (len(g.Stack) + 1)})
	}
	at := slices.IndexFunc(w.now.Goroutines, func(g fact.Goroutines) bool { return g.PID == pid })
	if at < 0 {
		at = len(w.now.Goroutines)
		w.now.Goroutines = append(w.now.Goroutines, fact.Goroutines{PID: pid})
	}
	for i := range n {
		g.ID = uint64(id) + uint64(i)
		w.now.Goroutines[at].Parked = append(w.now.Goroutines[at].Parked, g)
	}
	return firstError(errs)
}
