// Package act does what Lifeline does to the connections of others, and
// nothing that was not asked for: an act is given the sockets that [Select]
// chose from one look at the machine, and touches no other.
//
// Acts name a connection by its cookie, which the kernel gives to one socket
// until reboot, so that another connection that came to have the same addresses
// or the same descriptor in the meantime is left alone. What is gone by then is
// said to be gone, and is no error.
//
// An act ends when its context does; what it has done by then is in its report.
// None of them logs: what a person should read comes through callbacks and
// reports.
package act

import (
	"slices"

	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/fact"
)

// Error says that an act could not be done at all, and what it would take.
//
// It matches fs.ErrPermission where a right is missing, and
// errors.ErrUnsupported where the kernel cannot do it.
type Error struct {
	Act   string // cut, poke
	Err   error
	Needs string // "" when nothing would help
}

func (e *Error) Error() string {
	text := "cannot " + e.Act + ": " + e.Err.Error()
	if e.Needs != "" {
		text += "; needs " + e.Needs
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// connected are the states in which a program has a connection that it could
// learn the end of. TIME_WAIT has no program any more, SYN_RECV none yet.
var connected = []fact.State{
	fact.Established, fact.SynSent, fact.FinWait1, fact.FinWait2, fact.CloseWait, fact.LastAck, fact.Closing,
}

// Select returns the TCP sockets of m that f takes, without those of the
// process self, which is the one that acts; 0 means nobody.
//
// Where f names no state it takes connections: a listener, or what is left of a
// connection in TIME_WAIT, must be asked for by its state.
func Select(m *fact.Machine, f census.Filter, self int32) []*fact.Socket {
	f.Protocols = []fact.Protocol{fact.TCP}
	if len(f.States) == 0 {
		f.States = connected
	}
	var chosen []*fact.Socket
	for i := range m.Sockets {
		s := &m.Sockets[i]
		mine := self != 0 && slices.ContainsFunc(s.Owners, func(o fact.Owner) bool { return o.PID == self })
		if !mine && f.Match(m, s) {
			chosen = append(chosen, s)
		}
	}
	return chosen
}
