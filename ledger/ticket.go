package ledger

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/lifeline-go/lifeline/internal/tcpinfo"
)

// Ticket is what the opener of something keeps, to tell the ledger what becomes
// of it. No method waits, and a nil Ticket does nothing.
type Ticket struct {
	what       io.Closer
	scope      *Scope
	stack      *stack
	asked      uintptr
	prev, next *Ticket // in the list of the scope; guarded by book.mu, as is open
	id         uint64
	opened     int64 // since epoch, as used
	used       atomic.Int64
	op         string
	open       bool
	shared     atomic.Bool
	ended      atomic.Bool // by its scope
	over       atomic.Bool // and its opener was told
}

// Enter puts something that was just opened into the ledger, as op did it. It
// belongs to the scope, if that is nil to the scope of the context, and if that
// has none to the process. Package lifeline does that for its connections; Enter
// is for those who open something by other means and close it by Close.
//
// It returns a [*LimitError] when the scope, or one around it, has as much open
// as it may, and one that is [ErrClosed] when one of them is closed: then what was opened is
// not in the ledger, and the caller must close it.
func Enter(ctx context.Context, scope *Scope, op string, what io.Closer) (*Ticket, error) {
	in, _ := ctx.Value(key{}).(asked)
	if scope == nil {
		scope = in.scope
	}
	if scope == nil {
		scope = &process
	}
	t := &Ticket{what: what, scope: scope, op: op, asked: in.at, opened: now(), open: true}
	t.used.Store(t.opened)
	watchers, err := t.enter()
	if err != nil {
		return nil, err
	}
	for _, w := range watchers {
		w.tell(t.entry())
	}
	return t, nil
}

// enter adds the ticket to the lists, and returns who wants to know.
func (t *Ticket) enter() ([]*watcher, error) {
	var found trace
	found.capture()
	book.mu.Lock()
	defer book.mu.Unlock()
	if err := t.scope.refusal(); err != nil {
		return nil, err
	}
	t.stack = book.stacks.of(&found)
	t.stack.open++
	book.last++
	t.id = book.last
	t.scope.add(t)
	if book.profile != nil {
		book.profile.Add(t, t.stack.own+2) // Add itself, this function, and the library's
	}
	return book.watchers, nil
}

// leave takes the ticket out of the lists, and reports whether it was in them.
// The caller holds book.mu.
func (t *Ticket) leave() bool {
	if !t.open {
		return false
	}
	t.open = false
	t.stack.open--
	t.scope.remove(t)
	if book.profile != nil {
		book.profile.Remove(t)
	}
	return true
}

// Use says that it was used just now. For a [net.TCPConn] there is no need to on
// Linux, whose kernel knows.
func (t *Ticket) Use() {
	if t != nil {
		t.used.Store(now())
	}
}

// Leave says that it is closed, or about to be. It may be called again.
func (t *Ticket) Leave() {
	if t == nil {
		return
	}
	book.mu.Lock()
	defer book.mu.Unlock()
	t.leave()
}

// Share says that parts of it were given away, and may be in use after its owner
// is gone. Such are not counted as dropped.
func (t *Ticket) Share() {
	if t != nil {
		t.shared.Store(true)
	}
}

// Drop says that nobody can close it any more: the garbage collector found its
// owner. Give it to [runtime.AddCleanup].
func (t *Ticket) Drop() {
	if t == nil {
		return
	}
	book.mu.Lock()
	defer book.mu.Unlock()
	if t.leave() && !t.shared.Load() {
		t.stack.dropped++
	}
}

// Scope returns the scope that it belongs to.
func (t *Ticket) Scope() *Scope { return t.scope }

// Over is Ended, and true once: for Close, which may be called after its scope
// has closed it, and not a second time.
func (t *Ticket) Over() bool { return t != nil && t.ended.Load() && !t.over.Swap(true) }

// Ended reports whether it was closed by its scope.
func (t *Ticket) Ended() bool { return t != nil && t.ended.Load() }

func (t *Ticket) entry() Entry {
	e := Entry{
		ID: t.id, Scope: t.scope.path(), Op: t.op, Stack: t.stack.frames(),
		Opened: epoch.Add(time.Duration(t.opened)), Used: epoch.Add(time.Duration(max(t.used.Load(), t.data()))),
		stack: t.stack, asked: t.asked,
	}
	if t.asked != 0 {
		e.Asked = &framesOf([]uintptr{t.asked})[0]
	}
	switch what := t.what.(type) {
	case interface {
		LocalAddr() net.Addr
		RemoteAddr() net.Addr
	}:
		e.Network, e.Local = named(what.LocalAddr())
		_, e.Remote = named(what.RemoteAddr())
	case interface{ Addr() net.Addr }:
		e.Network, e.Local = named(what.Addr())
	}
	return e
}

// data returns when the kernel last sent or received something of it, 0 when it
// does not tell: of TCP it does, on Linux.
func (t *Ticket) data() int64 {
	conn, ok := t.what.(*net.TCPConn)
	if !ok {
		return 0
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	info, err := tcpinfo.Read(raw)
	if err != nil {
		return 0
	}
	return now() - int64(info.LastData)
}

func named(a net.Addr) (network, address string) {
	if a == nil {
		return "", ""
	}
	return a.Network(), a.String()
}
