package verdict

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Waiter is a goroutine that waits for an answer from the network.
type Waiter struct {
	*fact.Goroutine
	For    string         // what it waits for, in words
	Prompt bool           // of the kind that every living peer answers at once
	Asked  fact.Call      // the code that asked, outside of the libraries that wait; empty when they asked themselves
	Peer   netip.AddrPort // of the connection that it waits for; not valid: not known
}

// answers are what functions of Go's libraries wait for. A goroutine that waits
// within one of them, and within libraries only, waits for that. Readers of
// connections, servers and subscriptions are not among them: they wait by
// design.
var answers = []struct {
	function string
	what     string
	prompt   bool
}{
	{"golang.org/x/crypto/ssh.(*mux).openChannel", "an SSH channel to be confirmed", true},
	{"golang.org/x/crypto/ssh.(*channel).SendRequest", "the answer to an SSH request", true},
	{"golang.org/x/crypto/ssh.(*mux).SendRequest", "the answer to an SSH request", true},
	{"golang.org/x/crypto/ssh.(*connection).clientAuthenticate", "SSH authentication", false}, // by hand, at times
	{"golang.org/x/crypto/ssh.(*connection).clientHandshake", "the SSH handshake", true},
	{"golang.org/x/crypto/ssh.(*Session).Wait", "a command over SSH to end", false},
	{"crypto/tls.(*Conn).clientHandshake", "the TLS handshake", true},
	{"net.(*Resolver).lookupIPAddr", "a name to be resolved", true},
	{"net.(*Resolver).goLookupIPCNAMEOrder", "a name to be resolved", true},
	{"net.(*Dialer).DialContext", "a connection to be established", true},
	{"net/http.(*persistConn).roundTrip", "an HTTP answer", false},
	{"net/http.(*http2ClientConn).roundTrip", "an HTTP/2 answer", false},
	{"golang.org/x/net/http2.(*ClientConn).roundTrip", "an HTTP/2 answer", false},
	{"net/http.(*Transport).getConn", "a connection for an HTTP request", false},
	{"google.golang.org/grpc.invoke", "a gRPC answer", false},
	{"net/rpc.(*Client).Call", "an RPC answer", false},
	{"database/sql.(*DB).conn", "a free database connection", false},
}

// standard are the first elements of the paths of the standard library.
var standard = strings.Fields("archive bufio bytes cmp compress container context crypto database debug embed encoding errors expvar flag fmt " +
	"go hash html image index internal io iter log maps math mime net os path plugin reflect regexp runtime slices sort strconv strings " +
	"structs sync syscall testing text time unicode unique unsafe vendor weak")

// Library reports a function of the standard library, or of a library that Go
// programs reach the network with and whose answers are known here.
func Library(c fact.Call) bool {
	path := c.Package()
	for _, known := range []string{"golang.org/x/", "google.golang.org/grpc/"} {
		if strings.HasPrefix(path+"/", known) {
			return true
		}
	}
	first, _, _ := strings.Cut(path, "/")
	return slices.Contains(standard, first)
}

// Waiters returns the goroutines that wait for an answer, the longest first.
func Waiters(g *fact.Goroutines) (all []Waiter) {
	for i := range g.Parked {
		if w, ok := waiter(&g.Parked[i]); ok {
			all = append(all, w)
		}
	}
	slices.SortStableFunc(all, func(a, b Waiter) int { return cmp.Compare(b.Since, a.Since) })
	return all
}

func waiter(g *fact.Goroutine) (w Waiter, ok bool) {
	for i := range g.Stack {
		if !Library(g.Stack[i]) {
			return w, false // a callback, whose own business this is
		}
		for _, a := range answers {
			if g.Stack[i].Func == a.function {
				return Waiter{Goroutine: g, For: a.what, Prompt: a.prompt, Asked: asker(g.Stack[i:])}, true
			}
		}
	}
	return w, false
}

// asker is the innermost call that is of no library.
func asker(stack []fact.Call) fact.Call {
	for _, c := range stack {
		if !Library(c) {
			return c
		}
	}
	return fact.Call{}
}

// hungWait is the time after which an answer that comes at once has not come.
// The slowest on the list, a name lookup with Go's defaults over three servers
// that do not answer, and sshd's own connecting for a forwarded channel, give up
// after 30 s or so; TCP's connecting takes 127 s at most by default, and who
// waits for that has no timeout.
const hungWait = time.Minute

var hungGoroutine = Rule{
	Code:    "C002",
	Promise: Calls,
	Title:   "a goroutine waits for an answer that is given at once",
	Worst:   Warn,
	Sees:    []string{"goroutines"},
	Meaning: `Every living peer answers some questions at once: a TCP or TLS handshake, the opening of an SSH channel, a request on one, a name lookup. This Go program has waited over a minute for such an answer. Nothing but a deadline will end the wait; where other traffic keeps the connection alive (keepalives that are answered), not even its death does.

The goroutine was the same in several looks, and a garbage collection has seen it wait over a minute ago. What is told is read from the program's memory and executable, without stopping it; it needs no symbols.`,
	Wrong: `A server that makes its clients wait on purpose (a tarpit), or that asks a person before it opens a channel. HTTP, gRPC and SQL answers may take as long as they like and are not judged by this rule; lifeline calls lists them. A program that hardly allocates, or whose garbage collector is off, collects no garbage, and nothing else tells how long its goroutines have waited: it is seen only when the look itself takes over a minute (--for 61s).`,
	Fix: []string{
		"lifeline calls --pid PID shows the stack of each goroutine that waits",
		"give the call a deadline: a context where it takes one, SetDeadline on the connection where it does not (golang.org/x/crypto/ssh)",
		"look at the other end: it took the connection and does not answer",
	},
	judge: judgeHung,
}

func judgeHung(v *view) []Finding {
	type key struct {
		pid   int32
		what  string
		asked fact.Call
	}
	index := make(map[key]int)
	var groups [][]Waiter
	var pids []int32
	for i := range v.Goroutines {
		for _, w := range Waiters(&v.Goroutines[i]) {
			if !w.Prompt || w.Since <= hungWait {
				continue
			}
			k := key{v.Goroutines[i].PID, w.For, w.Asked}
			at, found := index[k]
			if !found {
				at = len(groups)
				index[k] = at
				groups, pids = append(groups, nil), append(pids, k.pid)
			}
			groups[at] = append(groups[at], w)
		}
	}
	var findings []Finding
	for i, g := range groups {
		findings = append(findings, v.hungFinding(pids[i], g))
	}
	return findings
}

func (v *view) hungFinding(pid int32, g []Waiter) Finding {
	first := g[0]
	f := Finding{
		Severity: Warn,
		Title: fmt.Sprintf("%s of %s %s for %s, %sfor at least %s", count(len(g), "goroutine"), v.called(pid), choose(len(g), "waits", "wait"),
			first.For, choose(len(g), "", "the longest "), span(first.Since)),
		Why:      "A living peer answers this at once. The program has no deadline there, and nothing else will end the wait.",
		Subject:  v.about(pid).add("count", len(g)),
		Evidence: Values{{"longest_wait_seconds", seconds(first.Since)}, {"goroutine", first.ID}, {"state", first.State}, {"waits_in", first.Stack[0].Func}},
		weight:   len(g),
		fill:     []string{"PID", fmt.Sprint(pid)},
	}
	if first.Asked.Func != "" {
		f.Why = fmt.Sprintf("It was asked in %s (%s:%d). %s", first.Asked.Func, first.Asked.File, first.Asked.Line, f.Why)
		f.Evidence = f.Evidence.add("asked_in", first.Asked.Func).add("file", first.Asked.File).add("line", first.Asked.Line)
	}
	return f
}
