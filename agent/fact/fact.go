// Package fact says what was seen: plain values without I/O, clock or
// judgement. Sources fill them in, verdicts read them. The time is a fact too.
//
// Unknown is not zero: what a source could not see is absent (a [Known] that is
// not OK, a nil pointer) and is named in [Machine.Blind].
package fact

import (
	"sort"
	"time"
)

// Known is a value that may not have been seen. The zero Known is unknown.
type Known[T any] struct {
	Value T
	OK    bool
}

// Seen returns a known value.
func Seen[T any](v T) Known[T] { return Known[T]{Value: v, OK: true} }

// Get returns the value and whether it is known.
func (k Known[T]) Get() (T, bool) { return k.Value, k.OK }

// Machine is one look at one machine.
type Machine struct {
	Host       string
	Time       time.Time     // when the look ended
	Took       time.Duration // by how much sockets may have been read before Time; 0 = not measured
	Namespaces []Namespace   // sorted by inode
	Sockets    []Socket
	Processes  []Process // sorted by PID; those that hold a socket, or all where the look asked for all
	Conntrack  []Conntrack
	Names      *Names       // nil when not looked at
	Lookups    []Lookup     // names that were asked for in every way
	Programs   *Executables // on the machine, whether they run or not; nil when not looked for
	Goroutines []Goroutines // by PID, of the Go processes that were asked for
	Blind      []Blind

	// Earlier is the look before this one, nil when there was only one. Rules
	// that speak of rates or of something that stays compare the two.
	Earlier *Machine
}

// Blind is what could not be looked at, and what would let it be seen.
type Blind struct {
	Source string // the source's name: namespaces, sockets, owners, options, processes, goroutines, routes, conntrack, names, programs
	Error  string // what happened, in one line
	Needs  string // the capability, kernel version or program that would show it; "" when nothing would
}

// Process returns the process with this PID, nil when it was not seen.
func (m *Machine) Process(pid int32) *Process {
	i := sort.Search(len(m.Processes), func(i int) bool { return m.Processes[i].PID >= pid })
	if i == len(m.Processes) || m.Processes[i].PID != pid {
		return nil
	}
	return &m.Processes[i]
}

// Namespace returns the network namespace with this inode, nil when it was not
// seen.
func (m *Machine) Namespace(inode uint32) *Namespace {
	i := sort.Search(len(m.Namespaces), func(i int) bool { return m.Namespaces[i].Inode >= inode })
	if i == len(m.Namespaces) || m.Namespaces[i].Inode != inode {
		return nil
	}
	return &m.Namespaces[i]
}
