// Package ledger knows what is open in this process: every connection and
// listener that package lifeline made, with the line that opened it, since when
// it is open, when it was last used, and the [Scope] it belongs to.
//
//	for _, e := range ledger.Open() {
//		fmt.Println(e.Remote, e.Opened, e.Site(), e.Scope)
//	}
//
// [Write] tells that to people and [WriteJSON] to programs; package ledgerhttp
// serves both. [Profile] shows it to go tool pprof.
//
// An entry is taken out when the program closes it, when lifeline gave it up and
// closed it, when its scope is closed, and when the garbage collector has found
// that nobody can close it any more: of such [Dropped] tells.
//
// A connection costs some hundred nanoseconds and bytes: its stack is told by
// frame pointers, and lines are looked up when somebody asks for them.
package ledger

import (
	"cmp"
	"runtime/pprof"
	"slices"
	"sync"
	"time"
)

// Entry is one line of the ledger, as it was when it was asked for.
type Entry struct {
	ID      uint64    `json:"id"`      // in the order in which they were opened, from 1
	Scope   string    `json:"scope"`   // names of scopes, the outermost first, with slashes between; "" = of the process
	Op      string    `json:"op"`      // what opened it: dial, accept, listen or wrap, or what was said to Enter
	Network string    `json:"network"` // tcp, unix, udp, …; "" = it has no address
	Local   string    `json:"local"`
	Remote  string    `json:"remote"` // "" for a listener, and for a unix socket whose other end has no name
	Opened  time.Time `json:"opened"`
	Used    time.Time `json:"used"` // when a Read or Write returned last; Opened when none has

	// Stack is where it was opened, the innermost frame first, without those of
	// this library; entries share it. A client that dials in a goroutine of its own, as net/http
	// does, hides who asked for it there. Asked tells that where it is known.
	Stack []Frame `json:"stack"`
	Asked *Frame  `json:"asked"` // where [Scope.Context] was called for its context; nil = it was not

	stack *stack
	asked uintptr
}

// Site returns the frame that says most about who opened it: Asked, or the
// innermost frame of the program's own module, or of any module, or of all.
func (e Entry) Site() Frame {
	if e.Asked != nil {
		return *e.Asked
	}
	return Site(e.Stack)
}

// book is all that is open, by scope. One mutex guards it, and nothing is done
// under it but to change a list, or to copy one.
var book struct {
	mu       sync.Mutex
	last     uint64 // ID
	stacks   stacks
	watchers []*watcher
	profile  *pprof.Profile // nil until somebody asks for it
}

// process is the scope of what has no other.
var process Scope

// epoch is what times are counted from.
var epoch = time.Now()

func now() int64 { return int64(time.Since(epoch)) }

// Open returns all that is open in this process, in the order in which it was
// opened.
func Open() []Entry { return process.Open() }

// A watcher is who wants to know of what is opened.
type watcher struct{ tell func(Entry) }

// OnOpen calls f for each new entry, on the goroutine that opens it and before
// the opener has it, until stop is called. It is for tests and tracers, because
// everything that is opened waits for f.
func OnOpen(f func(Entry)) (stop func()) {
	book.mu.Lock()
	defer book.mu.Unlock()
	w := &watcher{f}
	book.watchers = append(slices.Clone(book.watchers), w)
	return func() {
		book.mu.Lock()
		defer book.mu.Unlock()
		book.watchers = slices.DeleteFunc(slices.Clone(book.watchers), func(other *watcher) bool { return other == w })
	}
}

// Profile returns the profile "lifeline" of package runtime/pprof: the stacks
// that opened what is open. Package net/http/pprof lists it with the others.
//
// It knows what is opened after the first call, so a program that wants it calls
// Profile when it starts. From then on each connection costs a microsecond and
// some 350 bytes more, which that package takes.
func Profile() *pprof.Profile {
	book.mu.Lock()
	defer book.mu.Unlock()
	if book.profile == nil {
		book.profile = pprof.NewProfile("lifeline")
	}
	return book.profile
}

// Most returns how many are open in this process, and the site of most of them
// with its number.
func Most() (open int, most Frame, of int) {
	book.mu.Lock()
	defer book.mu.Unlock()
	var known *stack
	for _, s := range book.stacks.byHash {
		for ; s != nil; s = s.other {
			if s.open > of {
				known, of = s, s.open
			}
		}
	}
	if known != nil {
		most = Site(known.frames())
	}
	return process.open, most, of
}

// describe returns the entries of tickets, in the order of opening.
func describe(tickets []*Ticket) []Entry {
	slices.SortFunc(tickets, func(a, b *Ticket) int { return cmp.Compare(a.id, b.id) })
	all := make([]Entry, 0, len(tickets))
	for _, t := range tickets {
		all = append(all, t.entry())
	}
	return all
}
