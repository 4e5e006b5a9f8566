// Package node takes looks at this machine: it asks every source, each in the
// way that costs least here, joins what they saw into one set of facts, and
// keeps account of what none of them could see.
package node

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/bpf"
	"github.com/lifeline-go/lifeline/agent/source/gobin"
	"github.com/lifeline-go/lifeline/agent/source/pidfd"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
)

// borrowTime bounds the reading of socket options without BPF: a few
// microseconds for each of as many as a machine can have.
const borrowTime = 5 * time.Second

// Node keeps open, between looks, what is costly to open. Use New; Close it. It
// takes one look at a time.
type Node struct {
	// Spaces, where they are set, are shared with others. Those that gather what is
	// in each namespace now and then may use a list that is 5 s old.
	Spaces *Spaces

	programs gobin.Cache
	onPath   gobin.Programs

	openOnce   sync.Once
	owners     *bpf.Owners // nil where BPF is not to be had
	withoutBPF bool        // for tests: as if it were not

	owned owned // of the last look
}

// rooms are those of looks whose facts nobody uses any more. They are for the next
// look, of whatever Node or watch, if it comes soon: else the collector has them.
var rooms sync.Pool // of *[]fact.Socket

func takeRoom() []fact.Socket {
	if room, ok := rooms.Get().(*[]fact.Socket); ok {
		return *room
	}
	return nil
}

// giveRoom gives back the room of a look.
func giveRoom(m *fact.Machine) {
	room := m.Sockets[:0]
	m.Sockets = nil
	rooms.Put(&room)
}

// New returns a Node. It opens nothing before the first look needs it.
func New() *Node { return &Node{} }

// Close ends what is open. The Node must not be used after it.
func (n *Node) Close() error {
	n.openOnce.Do(func() {})
	if n.owners == nil {
		return nil
	}
	return n.owners.Close()
}

// Recycle gives the room of a look back for the next one. Nobody may use the
// facts of m any more, nor what knows m as its Earlier.
func (n *Node) Recycle(m *fact.Machine) { giveRoom(m) }

// Want says what to look at. The zero Want is what a census needs: all sockets
// of all namespaces with their owners and options, and the names of processes.
type Want struct {
	Sockets    sockdiag.Want
	Namespaces Namespaces
	Held       bool   // of the sockets only those that a program holds or will: those in TIME_WAIT are counted, fact.Namespace
	Full       bool   // also processes in full, conntrack, own addresses and name resolution
	Naming     Naming // with Full: what of name resolution

	// Goroutines chooses among the processes with connections of their own those
	// whose goroutines [Node.Watch] looks at, where they are Go programs; nil
	// chooses none.
	Goroutines func(*fact.Process) bool

	// Process is the one process that matters; zero means all. Its goroutines may
	// be looked at whatever sockets it holds.
	Process int32

	first bool // with Full: only what is compared with a later look
}

// Watch takes a look, waits, and takes another; the second one knows the first
// as its Earlier. It ends early, with an error, when ctx does.
func (n *Node) Watch(ctx context.Context, d time.Duration, w Want) (*fact.Machine, error) {
	first := w
	first.first = true
	earlier, err := n.Look(ctx, first)
	if err != nil {
		return nil, err
	}
	parked, blind, err := n.watchGoroutines(ctx, d, w, earlier)
	if err != nil {
		return nil, err
	}
	m, err := n.Look(ctx, w)
	if err != nil {
		return nil, err
	}
	m.Earlier, m.Goroutines, m.Blind = earlier, parked, append(m.Blind, blind...)
	return m, nil
}

// Look takes one look. It returns an error only when there is nothing to see at
// all: no namespace whose sockets can be read. All else that fails is in Blind.
func (n *Node) Look(ctx context.Context, w Want) (*fact.Machine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var (
		l  = look{Machine: &fact.Machine{Host: hostname(), Sockets: takeRoom()}, want: w}
		wg sync.WaitGroup
	)
	wg.Go(func() {
		l.blind(n.readOwners()...)
		n.processes(&l)
	})
	if w.Full && !w.first {
		wg.Go(func() {
			if err := l.names(ctx, w.Naming); err != nil {
				l.blind(fact.Blind{Source: "names", Error: err.Error()})
			}
		})
	}
	begun := time.Now()
	err := l.spaces(n.Spaces)
	wg.Wait()
	if err != nil {
		return nil, err
	}
	n.owned.join(l.Sockets)
	n.owned = owned{}
	if n.owners == nil || n.withoutBPF {
		borrowing, cancel := context.WithTimeout(ctx, borrowTime)
		l.blind(pidfd.Options(borrowing, l.Sockets)...)
		cancel()
	}
	l.Time = time.Now()
	l.Took = l.Time.Sub(begun)
	return l.Machine, ctx.Err()
}

// look is a Machine while it is being filled.
type look struct {
	*fact.Machine
	want   Want
	failed error      // why the last namespace could not be read
	mu     sync.Mutex // guards Blind while sources run side by side
}

func (l *look) blind(list ...fact.Blind) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Blind = append(l.Blind, list...)
}

// Alive reports whether there is a process with this PID.
func Alive(pid int32) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return err == nil
}
