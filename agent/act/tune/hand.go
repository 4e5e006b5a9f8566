//go:build linux

package tune

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/capability"
	"github.com/lifeline-go/lifeline/agent/source/netns"
)

// wish is what is wanted of a socket: that it has To, where each of its options
// still has the value of From, Also or To. Without Set it is only read.
type wish struct {
	From, Also, To values
	Set            uint32
}

// outcome is what became of a wish.
type outcome uint32

// The outcomes, the OUTCOME_ of options.bpf.c.
const (
	outcomeRead outcome = iota
	outcomeSet
	outcomeSame
	outcomeChanged
	outcomeState
	outcomeMultipath
	outcomeFailed
	outcomeGone // no answer came
)

// job is a socket, what is wanted of it, and what came of it.
type job struct {
	socket *fact.Socket
	wish
	outcome outcome
	was     values
	err     error // of outcomeFailed
	done    bool
}

var (
	errNotReached = errors.New("not reached")
	errMultipath  = fmt.Errorf("%w: it is a Multipath TCP connection", errors.ErrUnsupported)
)

func (j *job) failure() error {
	if j.outcome == outcomeMultipath {
		return errMultipath
	}
	return j.err
}

// hand reaches sockets of others.
type hand interface {
	// touch does the jobs, all of one namespace, and fills in what came of each.
	touch(ns fact.Namespace, jobs []job) error
	close() error
}

// Reach is a way to the sockets of others. It may serve one run after another,
// which saves each the loading of the BPF program, some 20 ms. Close it.
type Reach struct {
	hand  hand
	way   Way
	noBPF error // why BPF is not the way, nil when it is or was not asked for
}

// Open opens a way. The error is an [*act.Error].
func Open(way Way) (*Reach, error) {
	if way == ByLoan {
		return &Reach{hand: loans{}, way: ByLoan}, nil
	}
	h, err := newIterator()
	if err == nil {
		return &Reach{hand: h, way: ByBPF}, nil
	}
	if way == ByBPF {
		return nil, err
	}
	return &Reach{hand: loans{err}, way: ByLoan, noBPF: err}, nil
}

// Close gives back what was opened. It must be called once.
func (r *Reach) Close() error { return r.hand.close() }

// orOpen returns r, or a new one, and what ends it.
func (r *Reach) orOpen(way Way) (*Reach, func(), error) {
	if r != nil {
		return r, func() {}, nil
	}
	r, err := Open(way)
	if err != nil {
		return nil, nil, err
	}
	return r, func() { r.Close() }, nil
}

// touchAll does jobs, sorted by namespace. With a namespace all of its sockets
// are gone. Jobs that have no outcome after an error were not touched.
func touchAll(m *fact.Machine, h hand, jobs []job) error {
	for len(jobs) > 0 {
		inode, n := jobs[0].socket.Netns, 1
		for n < len(jobs) && jobs[n].socket.Netns == inode {
			n++
		}
		ns := m.Namespace(inode)
		if ns == nil {
			return &act.Error{Act: "tune", Err: fmt.Errorf("the network namespace %d is not among those that were looked at", inode)}
		}
		err := h.touch(*ns, jobs[:n])
		if errors.Is(err, netns.ErrGone) {
			for i := range jobs[:n] {
				jobs[i].outcome = outcomeGone
			}
		} else if err != nil {
			return err
		}
		jobs = jobs[n:]
	}
	return nil
}

// loans reach sockets without BPF, by copies of their descriptors.
type loans struct {
	noBPF error // why this way is taken, nil when it was asked for
}

func (loans) close() error { return nil }

// touch fails when every loan was refused for want of a right. A namespace need
// not be entered for it.
func (l loans) touch(_ fact.Namespace, jobs []job) error {
	refused := 0
	var why error
	for i := range jobs {
		j := &jobs[i]
		if !tunable(j.socket) {
			j.outcome = outcomeState
			continue
		}
		err := act.Borrow(j.socket, j.serve)
		switch {
		case err == nil:
		case errors.Is(err, act.ErrGone):
			j.outcome = outcomeGone
		default:
			j.outcome, j.err = outcomeFailed, err
			if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) || !capability.Held(unix.CAP_SYS_PTRACE) {
				refused, why = refused+1, err
			}
		}
	}
	if refused > 0 && refused == len(jobs) {
		e := act.Borrowing("tune", why)
		var also *act.Error
		if errors.As(l.noBPF, &also) && also.Needs != "" && e.Needs != "" {
			e.Needs += ", or for BPF " + also.Needs
		}
		return e
	}
	return nil
}

// tunable reports whether s is a connection of a program. The keepalive timer of
// one that was closed is its FIN_WAIT2 timer.
func tunable(s *fact.Socket) bool {
	return s.State == fact.Established || s.State == fact.CloseWait
}

// names are the options in the order of values.
var names = [...]struct{ level, name int }{
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
}

// serve does a job on a borrowed descriptor, in the way of options.bpf.c. Between
// the look and the change a program may set an option, and it is lost: that is
// the price of doing without BPF.
func (j *job) serve(fd int) error {
	for i, n := range names {
		v, err := unix.GetsockoptInt(fd, n.level, n.name)
		if err != nil {
			return err
		}
		j.was[i] = int32(v)
	}
	if j.Set == 0 {
		j.outcome = outcomeRead
		return nil
	}
	if j.outcome = j.judge(j.was); j.outcome != outcomeSet {
		return nil
	}
	for _, i := range [...]int{interval, count, userTimeout, keepAlive, idle} { // idle sets the timer
		if j.was[i] == j.To[i] && i != idle {
			continue
		}
		if err := unix.SetsockoptInt(fd, names[i].level, names[i].name, int(j.To[i])); err != nil {
			return err
		}
	}
	return nil
}
