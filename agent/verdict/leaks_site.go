package verdict

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// requester returns the calls from where a socket was opened to who asked for it,
// and the innermost of them that is the program's own code. Where the goroutine
// that opened it was begun by a library, who asked is in the one that began it.
func requester(one *fact.Opening, own func(fact.Call) bool) (chain []fact.Call, asked fact.Call, unknown string) {
	unknown = "who asked for it did so in another goroutine"
	for _, t := range append([]*fact.Trace{one.At}, one.Asked...) {
		if len(t.Calls) == 0 {
			unknown = t.Unknown
			break
		}
		chain = append(chain, t.Calls...)
		if t.Unknown != "" { // not Go
			return chain, foreign(t.Calls), t.Unknown
		}
		if c, ok := asking(t.Calls, own); ok {
			asked = c
		}
		if outermost := t.Calls[len(t.Calls)-1]; t.Cut || own(outermost) {
			unknown = ""
			break
		}
	}
	if asked.Func != "" {
		return chain, asked, ""
	}
	if n := len(chain); n > 0 && !Library(chain[n-1]) { // nothing of it is the program's own, by name
		asked, _ = asking(chain, func(c fact.Call) bool { return !Library(c) && !clientCall(c) })
	}
	return chain, asked, unknown
}

// ownOf tells the program's own calls, by its main module.
func ownOf(module string) func(fact.Call) bool {
	return func(c fact.Call) bool {
		p := c.Package()
		return p == "main" || module != "" && (p == module || strings.HasPrefix(p, module+"/")) && !vendored(p)
	}
}

// ownPath is the functions of the program's own on the way to a socket: what one
// function opens for several others is not one.
func ownPath(chain []fact.Call, own func(fact.Call) bool) string {
	var names []string
	for _, c := range chain {
		if own(c) {
			names = append(names, c.Func)
		}
	}
	return strings.Join(names, "<")
}

// foreign is the innermost call of a program that is not Go, outside of the C
// library.
func foreign(calls []fact.Call) fact.Call {
	for _, c := range calls {
		if !strings.Contains(c.Func, "libc") {
			return c
		}
	}
	return fact.Call{}
}

// asking is the innermost call of the program's own packages. One that a client
// library calls, to dial, is none: who asked is who called the library.
func asking(calls []fact.Call, own func(fact.Call) bool) (found fact.Call, ok bool) {
	through := true // a client library has been called since
	for _, c := range calls {
		switch {
		case own(c):
			if through {
				found, ok, through = c, true, false
			}
		case clientCall(c):
			through = true
		}
	}
	return found, ok && !through
}

// clientCall reports a call of a library that programs reach servers with. Package
// net/http is one too, where it does not serve.
func clientCall(c fact.Call) bool {
	if p := c.Package(); p == "net/http" {
		return strings.HasPrefix(c.Func, "net/http.(*Transport).") || strings.HasPrefix(c.Func, "net/http.(*Client).")
	}
	what, _ := clientKind([]fact.Call{c})
	return what != ""
}

// openedAt is the call that opened a socket, without what all of them go through.
func openedAt(t *fact.Trace) fact.Call {
	for _, c := range t.Calls {
		first, _, _ := strings.Cut(c.Package(), "/")
		if p := c.Package(); first != "internal" && first != "runtime" && first != "syscall" && p != "net" && p != "golang.org/x/sys/unix" {
			return c
		}
	}
	if len(t.Calls) > 0 {
		return t.Calls[0]
	}
	return fact.Call{}
}

// site is one line of the result. It is left out when nothing of it is open.
func (w *LeakWatch) site(groups []*siteGroup) (s LeakSite, ok bool) {
	g := groups[0]
	s = LeakSite{key: fmt.Sprint(g.key.pid, g.key.asked, g.key.at, g.key.accepted), PID: g.key.pid, AskedBy: g.asked, Stack: g.chain, Unknown: g.chainUnknown, Accepted: g.key.accepted}
	if s.Peer, s.Peers = peersText(groups); s.Peers == 1 {
		s.key += s.Peer
	}
	var born []time.Duration
	clients, used := make(map[uint64]bool), make(map[fact.Call]int)
	var program fact.Opener
	for i := range w.last.Programs {
		if w.last.Programs[i].PID == s.PID {
			program = w.last.Programs[i]
		}
	}
	for _, g := range groups {
		s.Opened += g.opened + g.unseen
		s.Open += len(g.open)
		for _, one := range g.open {
			s.OpenedAt = openedAt(one.At)
			born = append(born, one.Born)
			if one.Client != 0 {
				clients[one.Client] = true
			}
			if one.UsedBy != nil && one.UsedBy.Unknown == "" {
				if c, ok := user(one.UsedBy.Calls); ok {
					used[c]++
				}
			}
			if one.Peer != 0 {
				s.PeerPID, s.PeerProcess = one.Peer, w.last.Peers[one.Peer]
			}
			w.idleness(&s, one)
		}
	}
	if s.Open == 0 {
		return s, false
	}
	slices.Sort(born)
	s.Process, s.Container, s.Clients, s.Operations = program.Name, program.Container, len(clients), operations(born)
	for c, n := range used {
		if n > used[s.UsedAt] || n == used[s.UsedAt] && c.Func < s.UsedAt.Func {
			s.UsedAt = c
		}
	}
	s.Verdict = w.judge(groups)
	s.Left = left(&program, s.Open, w.last.Now-born[0], s.Verdict)
	s.Diagnosis = diagnosis(&s, &program)
	return s, true
}

// user is the innermost call that is of no library.
func user(calls []fact.Call) (c fact.Call, ok bool) {
	at := slices.IndexFunc(calls, func(c fact.Call) bool { return !Library(c) })
	if at < 0 {
		return c, false
	}
	return calls[at], true
}

func (w *LeakWatch) idleness(s *LeakSite, one *fact.Opening) {
	used, ok := one.Used.Get()
	if !ok {
		return
	}
	idle := w.last.Now - used
	s.Idle = fact.Seen(max(idle, s.Idle.Value))
	if idle > w.soon() {
		s.IdleMany++
	}
}

// left is how long the process can go on so: at the rate at which what is open has
// been opened.
func left(p *fact.Opener, open int, in time.Duration, v LeakVerdict) (known fact.Known[time.Duration]) {
	files, ok := p.Files.Get()
	if !ok || v == Healthy || in <= 0 || files.Limit > 1<<31 {
		return known
	}
	const forever = 1e9 // seconds; a duration holds little more
	seconds := float64(max(int(files.Limit)-files.Open, 0)) * in.Seconds() / float64(open)
	return fact.Seen(time.Duration(min(seconds, forever) * float64(time.Second)))
}

// clientKinds are what programs build once and keep, by the packages that their
// connections go through, those first that use the others.
var clientKinds = []struct{ path, what, end string }{
	{"github.com/docker/docker/client", "a Docker client", "Close"},
	{"github.com/moby/moby/client", "a Docker client", "Close"},
	{"k8s.io/client-go", "a Kubernetes client", "CloseIdleConnections of its HTTP client"},
	{"github.com/redis/go-redis", "a Redis client", "Close"},
	{"github.com/jackc/pgx/v5/pgxpool", "a PostgreSQL pool", "Close"},
	{"database/sql", "a sql.DB", "Close"},
	{"github.com/jackc/pgx", "a PostgreSQL connection", "Close"},
	{"google.golang.org/grpc", "a gRPC connection", "Close"},
	{"golang.org/x/crypto/ssh", "an SSH client", "Close"},
	{"net/http", "an HTTP client with a Transport of its own", "CloseIdleConnections"},
	{"net/rpc", "an RPC client", "Close"},
}

// clientKind is what was built to open a socket, "" for a plain connection.
func clientKind(stack []fact.Call) (what, end string) {
	for _, k := range clientKinds {
		for _, c := range stack {
			p := c.Package()
			if at := strings.LastIndex(p, "/vendor/"); at >= 0 {
				p = p[at+len("/vendor/"):]
			}
			if p == k.path || strings.HasPrefix(p, k.path+"/") {
				return k.what, k.end
			}
		}
	}
	return "", "Close"
}

// diagnosis says in words what is wrong and what to do.
func diagnosis(s *LeakSite, p *fact.Opener) string {
	who := "Code that is not known"
	if s.Process != "" {
		who = "Code of " + s.Process + " that is not known"
	}
	switch {
	case s.AskedBy.Func != "":
		who = fmt.Sprintf("%s (%s)", s.AskedBy.Func, where(s.AskedBy))
	case s.UsedAt.Func != "":
		who += fmt.Sprintf(" (%s, %s, used them last)", s.UsedAt.Func, where(s.UsedAt))
	}
	if s.Verdict == Healthy {
		return ""
	}
	if s.Accepted {
		return accepted(s, who)
	}
	each := count(s.PerOperation(), "connection")
	to := s.Peer
	if s.PeerProcess != "" {
		to += fmt.Sprintf(" of %s (pid %d)", s.PeerProcess, s.PeerPID)
	}
	text := fmt.Sprintf("%s opens %s to %s at a time, although %s that it opened before are open and not used any more: ", who, each, to, Number(max(s.IdleMany, 2)))
	if s.Peers > 1 {
		text = fmt.Sprintf("%s opens connections to ever more peers and none of them is used or closed again: ", who)
	}
	if s.Peers > 1 {
		text += "close them, or give the client a time after which it does (IdleConnTimeout of http.Transport)"
	} else {
		text += cause(s, p)
	}
	if s.Verdict == Suspected {
		text += ". To be sure look longer: --for or --watch"
	}
	return text
}

func cause(s *LeakSite, p *fact.Opener) string {
	what, end := clientKind(s.Stack)
	waits, asked := p.Waits.Get()
	switch {
	case strings.Contains(what, "HTTP") && asked && waits.Bodies > waits.Idle || s.Clients == 1:
		return "the bodies of responses are not closed, so their connections can serve no other request: read the body to its end and close it"
	case what == "":
		return "the connections are not closed: close each when it has served its purpose"
	case s.Clients > 1 && s.Clients*s.PerOperation() >= s.Open:
		return fmt.Sprintf("%s is built each time (%s for %s) and never closed: build one and reuse it, or call %s", what, count(s.Clients, "http.Transport"), count(s.Open, "connection"), end)
	case s.AskedBy.Func == "":
		return fmt.Sprintf("%s is built each time and never closed: build one and reuse it, or call %s. Which code does so is told when the program is started with GODEBUG=tracebackancestors=10 (lifeline leaks -- CMD does that), or with --pid", what, end)
	}
	return fmt.Sprintf("%s is built per call of %s and never closed: build one and reuse it, or call %s", what, shortFunc(s.AskedBy.Func), end)
}

// accepted is the diagnosis of connections that others opened.
func accepted(s *LeakSite, who string) string {
	text := fmt.Sprintf("connections that %s accepts from %s are open and not used any more, nearly all that it ever accepted", who, s.Peer)
	if s.UsedAt.Func != "" {
		text += fmt.Sprintf(": %s (%s) used them last and does not close them", s.UsedAt.Func, where(s.UsedAt))
	}
	return capital(text) + ". If they are not meant to be kept idle, close them, or give them a deadline (IdleTimeout of http.Server)"
}

// where is a place in short.
func where(c fact.Call) string {
	file := shortFunc(c.File)
	if c.Line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, c.Line)
}

// shortFunc is a function without the path of its package, or a file without its
// directory.
func shortFunc(f string) string { return f[strings.LastIndexByte(f, '/')+1:] }
