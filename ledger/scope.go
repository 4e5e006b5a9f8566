package ledger

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
)

// ErrClosed is what a closed scope answers to whoever opens something in it; ask
// with errors.Is.
var ErrClosed = errors.New("closed already")

// LimitError says that a scope has as much open as it may.
type LimitError struct {
	Scope string // as in [Entry]
	Limit int
	Most  Frame // the site of most of what is open in it
	Of    int   // so many were opened there
}

// Error tells all of it in one line.
func (e *LimitError) Error() string {
	return fmt.Sprintf("scope %q has the %d open that it may have, %d of them opened by %s", e.Scope, e.Limit, e.Of, e.Most)
}

// Scope is an owner of connections: a build, a request, a plug-in. What is
// opened in it and still open when it is closed is closed with it.
//
//	scope := lifeline.NewScope("build 42")
//	defer scope.Close()
//	err := run(scope.Context(ctx))
//
// A connection belongs to the scope of the context that it was dialed with, or to
// that which its dialer was given. A pool that outlives the scope must not have
// its connections: what one request opened there, another one uses later. Give its
// dialer a scope that lives as long as the pool.
//
// A scope with nothing open costs nothing, and need not be closed. The methods
// may be called from any goroutine.
type Scope struct {
	name   string
	parent *Scope

	// Guarded by book.mu.
	first    *Ticket
	children map[*Scope]struct{} // those that have something open
	open     int                 // in it and in the scopes within
	limit    int                 // 0 = none of its own
	closed   bool
}

// NewScope returns a scope of the process.
func NewScope(name string) *Scope { return process.NewScope(name) }

// NewScope returns a scope within this one. Who closes the outer one closes the
// inner one too.
func (s *Scope) NewScope(name string) *Scope { return &Scope{name: name, parent: s} }

// SetLimit bounds how many may be open in the scope and those within it, from
// now on. What is opened beyond that is refused at once. 0 means that only the
// limits of the scopes around it hold; that of the process is what the system
// lets it open.
func (s *Scope) SetLimit(open int) {
	book.mu.Lock()
	defer book.mu.Unlock()
	s.limit = max(open, 0)
}

type (
	key   struct{}
	asked struct {
		scope *Scope
		at    uintptr // who called Context
	}
)

// Context returns a context whose connections belong to the scope, also those
// that a client opens later with the values of that context, as http.Transport
// does. It is not canceled when the scope is closed.
func (s *Scope) Context(ctx context.Context) context.Context {
	var caller [1]uintptr
	runtime.Callers(2, caller[:])
	return context.WithValue(ctx, key{}, asked{s, caller[0]})
}

// FromContext returns the scope of a context, nil when it has none.
func FromContext(ctx context.Context) *Scope {
	in, _ := ctx.Value(key{}).(asked)
	return in.scope
}

// Room returns the error that [Enter] would give now, for those who want to
// know before they open something.
func Room(ctx context.Context, scope *Scope) error {
	if scope == nil {
		scope = FromContext(ctx)
	}
	book.mu.Lock()
	defer book.mu.Unlock()
	return scope.refusal()
}

// Open returns what is open in the scope and in those within it, in the order in
// which it was opened.
func (s *Scope) Open() []Entry {
	book.mu.Lock()
	all := s.tickets(nil)
	book.mu.Unlock()
	return describe(all)
}

// Close closes the scope, with all that is open in it and in the scopes within
// it, and returns what that was. From then on nothing can be opened in it. Read
// and Write of what it closed return an error that says so.
//
// It waits for nobody: for what cannot be closed at once, because the program
// holds a lock of it, 0.3 s in all at most. That is closed when the lock is free.
// What was written is still sent, in the background.
func (s *Scope) Close() []Entry {
	book.mu.Lock()
	s.close()
	left := s.tickets(nil)
	for _, t := range left {
		t.leave()
		t.ended.Store(true)
	}
	book.mu.Unlock()
	all := describe(left)
	closeAll(left)
	return all
}

// The caller of all that follows holds book.mu.

// close closes the scope and those within, from which nothing is taken yet.
func (s *Scope) close() {
	s.closed = true
	for child := range s.children {
		child.close()
	}
}

// refusal returns why nothing can be opened in the scope.
func (s *Scope) refusal() error {
	for ; s != nil; s = s.parent {
		if s.closed {
			return fmt.Errorf("scope %q: %w", s.path(), ErrClosed)
		}
		if s.limit > 0 && s.open >= s.limit {
			return s.full()
		}
	}
	return nil
}

// enough is how much of a scope is looked at to say what is wrong with it.
const enough = 1000

// full returns the error of a scope that has reached its limit.
func (s *Scope) full() error {
	type opener struct {
		stack *stack
		asked uintptr
	}
	e, count := &LimitError{Scope: s.path(), Limit: s.limit}, make(map[opener]int)
	var most *Ticket
	for i, t := range s.tickets(nil) {
		if i == enough {
			break
		}
		by := opener{t.stack, t.asked}
		if count[by]++; count[by] > e.Of {
			most, e.Of = t, count[by]
		}
	}
	if most != nil {
		e.Most = most.entry().Site()
	}
	return e
}

// tickets appends those of the scope and of the scopes within.
func (s *Scope) tickets(all []*Ticket) []*Ticket {
	for t := s.first; t != nil; t = t.next {
		all = append(all, t)
	}
	for child := range s.children {
		all = child.tickets(all)
	}
	return all
}

// add adds a ticket to the list.
func (s *Scope) add(t *Ticket) {
	if t.next = s.first; t.next != nil {
		t.next.prev = t
	}
	s.first = t
	for ; s != nil; s = s.parent {
		if s.open++; s.open == 1 && s.parent != nil {
			if s.parent.children == nil {
				s.parent.children = make(map[*Scope]struct{})
			}
			s.parent.children[s] = struct{}{}
		}
	}
}

// remove takes a ticket off the list, and a scope that has nothing left out of
// the one around it.
func (s *Scope) remove(t *Ticket) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		s.first = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.prev, t.next = nil, nil
	for ; s != nil; s = s.parent {
		if s.open--; s.open == 0 && s.parent != nil {
			delete(s.parent.children, s)
		}
	}
}

// path returns the names of the scope and of those around it.
func (s *Scope) path() string {
	if s.parent == nil {
		return ""
	}
	return strings.TrimPrefix(s.parent.path()+"/"+s.name, "/")
}
