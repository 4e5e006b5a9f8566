package ssh

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/bound"
)

// What an [Error] can be about, for errors.Is. Beside these it can be
// [context.DeadlineExceeded] and [context.Canceled], [lifeline.ErrReset] and
// what else a network says.
var (
	// ErrSilent: nothing came from the server for [Liveness].Silence, or its
	// kernel stopped acknowledging. It is lifeline's own.
	ErrSilent = lifeline.ErrSilent
	// ErrClosed: the client was closed by [Client.Close]. It is package net's own.
	ErrClosed = net.ErrClosed
	// ErrDisconnected: the connection was ended by the server or on the way.
	ErrDisconnected = errors.New("the connection was ended by the other side")
	// ErrHostKey: the host key was not accepted.
	ErrHostKey = errors.New("the host key was not accepted")
	// ErrAuthentication: the server accepted none of what Config.Auth has.
	ErrAuthentication = errors.New("the server did not accept the user")
	// ErrRefused: the server refused a channel (too many sessions, often; a
	// [*golang.org/x/crypto/ssh.OpenChannelError] has its reason) or a request.
	ErrRefused = errors.New("refused by the server")
	// ErrNoStatus: the server closed the channel without saying how the command
	// ended.
	ErrNoStatus = errors.New("the server closed the channel without saying how the command ended")
	// ErrWaitAfterExit: the command has exited, and something kept its output
	// open for longer than Budgets.WaitAfterExit.
	ErrWaitAfterExit = errors.New("the command has exited but its output stays open: perhaps a child in the background has it")
	// ErrTooManyAbandoned: the server has left a hundred abandoned channels open,
	// or all that a [Pool] may have. Close the client and connect again.
	ErrTooManyAbandoned = errors.New("the server has not closed the channels that were given up: connect again")
)

// Phase is what a call was doing.
type Phase string

// The phases, in their order.
const (
	Connect        Phase = "connect"        // the TCP connection
	Handshake      Phase = "handshake"      // versions and keys, until the server has shown its host key
	Authentication Phase = "authentication" // the host key is checked, then the user
	Open           Phase = "open"           // a channel
	Request        Phase = "request"        // a terminal, the environment, the command
	Run            Phase = "run"            // the server has said that the command started
	Idle           Phase = "idle"           // no call: how the connection ended
)

// Fate is what may have become of a command.
type Fate uint8

const (
	// NotSent: the command did not reach the server, or was refused. It is safe
	// to try again.
	NotSent Fate = iota
	// MayHaveRun: the command was sent. It may have run, or still do.
	MayHaveRun
	// Exited: the server has said how the command ended.
	Exited
)

func (f Fate) String() string {
	switch f {
	case NotSent:
		return "not sent"
	case MayHaveRun:
		return "may have run"
	default:
		return "exited"
	}
}

// Error says in which phase a call ended, and why. It is a [net.Error].
type Error struct {
	Phase   Phase
	Host    string        // as it was dialed, or Config.Name
	Elapsed time.Duration // since the call began
	Fate    Fate          // of the command; NotSent where there is none
	Err     error         // the cause
}

var _ net.Error = (*Error)(nil)

// Error tells all of it in one line.
func (e *Error) Error() string {
	text := fmt.Sprintf("ssh: %s: %s: %v", e.Host, e.Phase, e.Err)
	if e.Elapsed > 0 {
		text += ", after " + bound.Format(e.Elapsed.Round(time.Millisecond))
	}
	if e.Fate == MayHaveRun {
		text += "; the command may have run"
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether time ran out: that of the context, a budget or the
// server's silence.
func (e *Error) Timeout() bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(e.Err, ErrSilent) || errors.As(e.Err, &timeout) && timeout.Timeout()
}

// Temporary is false. It is there because [net.Error] still asks for it.
func (e *Error) Temporary() bool { return false }

// SilenceError is the cause of a connection that was given up because nothing
// came from the server. It is [ErrSilent].
type SilenceError struct {
	Quiet time.Duration // since the last byte
}

func (e *SilenceError) Error() string {
	return fmt.Sprintf("%v, nothing heard for %s", ErrSilent, bound.Format(e.Quiet.Round(time.Millisecond)))
}

// Unwrap returns [ErrSilent].
func (e *SilenceError) Unwrap() error { return ErrSilent }

// Timeout is true, as in [net.Error].
func (e *SilenceError) Timeout() bool { return true }

// ExitError is the cause when a command did not end with status 0.
type ExitError struct{ Exit }

func (e *ExitError) Error() string { return "the command " + e.String() }

// Exit is how a command ended.
type Exit struct {
	Status  int    // of the process; -1 when it was ended by a signal
	Signal  Signal // without SIG; empty when it exited by itself
	Core    bool   // whether it dumped core
	Message string // what the server said of it, as it said it: do not print it to a terminal
}

// OK reports whether it ended by itself with status 0.
func (e Exit) OK() bool { return e.Status == 0 && e.Signal == "" }

func (e Exit) String() string {
	if e.Signal != "" {
		return fmt.Sprintf("was ended by signal %q", string(e.Signal))
	}
	return fmt.Sprintf("exited with status %d", e.Status)
}
