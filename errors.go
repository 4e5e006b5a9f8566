package lifeline

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/lifeline-go/lifeline/bound"
)

// What an [Error] is about; ask with errors.Is.
var (
	// ErrSilent: the peer has stopped answering, and the connection was given up.
	ErrSilent = errors.New("the peer is silent")
	// ErrReset: the peer, or something on the way, says that there is no such
	// connection (any more).
	ErrReset = errors.New("reset by the peer")
	// ErrCut: somebody on this machine destroyed the connection, as
	// `lifeline cut` and `ss -K` do. The peer need not be dead; connect again.
	ErrCut = errors.New("cut by an administrator of this machine")
	// ErrMute: the program at the other end has left the question of a
	// [Heartbeat] unanswered. Its host may well live.
	ErrMute = errors.New("the program at the other end does not answer")
	// ErrUnanswered: within [Policy.Connect] there was no answer to an attempt to
	// connect.
	ErrUnanswered = errors.New("no answer to the attempt to connect")
	// ErrTooMany: its [Scope] has as many connections open as it may, or the
	// process as many files.
	ErrTooMany = errors.New("too many connections are open")
	// ErrScopeClosed: the [Scope] of the connection was closed, and the connection
	// with it.
	ErrScopeClosed = errors.New("its scope is closed")
)

// Promise names one of the four promises.
type Promise string

// The promises that an [Error] can speak of.
const (
	Names   Promise = "names"   // its name resolves
	Calls   Promise = "calls"   // its calls return
	Silence Promise = "silence" // its silence is noticed
	Leaks   Promise = "leaks"   // its socket is closed
)

// Error says which promise about a connection was kept by giving it up, or by not
// opening it. It is a
// [net.Error].
type Error struct {
	Promise Promise
	Op      string        // dial, accept, wrap, read, write, close, set deadline, or ping
	Peer    string        // address of the other end, as it was dialed or accepted
	Quiet   time.Duration // since the peer's last acknowledgement or answer, or since the dial began; 0 if unknown
	Kind    error         // one of the errors above
	Err     error         // what the system said; for a connection that lifeline gave up, its words for that: ETIMEDOUT
}

var _ net.Error = (*Error)(nil)

// Error tells all of it in one line.
func (e *Error) Error() string {
	text := fmt.Sprintf("lifeline: %s: %s %s: %v", e.Promise, e.Op, e.Peer, e.Kind)
	if e.Quiet > 0 {
		text += ", nothing heard for " + bound.Format(e.Quiet)
	}
	return fmt.Sprintf("%s: %v", text, e.Err)
}

// Unwrap returns what the error is about and what caused it.
func (e *Error) Unwrap() []error { return []error{e.Kind, e.Err} }

// Timeout reports whether time ran out, as it did for a silent peer: then the
// request may have been carried out, or may be still. It did not run out for a
// reset and a cut.
func (e *Error) Timeout() bool {
	return e.Kind == ErrSilent || e.Kind == ErrMute || e.Kind == ErrUnanswered
}

// Temporary reports whether there may be room later, for servers that ask that
// of an error of Accept, as net/http does, and go on. What is given up does not
// come back.
func (e *Error) Temporary() bool { return e.Kind == ErrTooMany }

// during returns the error for another operation.
func (e *Error) during(op string) *Error {
	other := *e
	other.Op = op
	return &other
}
