package act

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/capability"
	"github.com/lifeline-go/lifeline/agent/source/netns"
)

// CutOptions say how to cut. The zero CutOptions cut at [DefaultRate].
type CutOptions struct {
	Rate Rate

	// Before is called before each batch with what is left; an error stops the
	// cut, and the rest live. [StillSilent] is one for a cut that rests on a
	// verdict of silence. nil means that nothing is asked.
	Before func(ctx context.Context, left []*fact.Socket) error

	// After is called after each batch with what was done so far; nil means
	// that nobody wants to know.
	After func(CutReport)
}

// CutReport is what became of the connections that were to be cut. Each is in
// one of the lists.
type CutReport struct {
	Cut    []*fact.Socket // destroyed: their programs know it now
	Gone   []*fact.Socket // not there any more when their turn came
	Failed []Failure
	Left   []*fact.Socket // not touched, because the cut was stopped
}

// Failure is a socket that the kernel would not, or could not, act on.
type Failure struct {
	Socket *fact.Socket
	Err    error
}

// Cut destroys connections: whoever reads or writes here gets ECONNABORTED at
// once, and the other end, where it can be reached, ECONNRESET. Nothing that
// was waiting to be sent is sent. It cannot be undone.
//
// It needs CAP_NET_ADMIN, and CONFIG_INET_DIAG_DESTROY in a kernel from 4.5;
// without them it returns an [*Error] and destroys nothing. It returns early,
// with the cause, when ctx ends or Before says so. The report is complete in
// any case.
func Cut(ctx context.Context, m *fact.Machine, sockets []*fact.Socket, o CutOptions) (CutReport, error) {
	c := cutter{machine: m, open: make(map[uint32]*destroyer)}
	defer c.close()
	c.Left = slices.Clone(sockets)
	slices.SortStableFunc(c.Left, func(a, b *fact.Socket) int { return cmp.Compare(a.Netns, b.Netns) })
	pace := pace{rate: o.Rate}
	for len(c.Left) > 0 {
		n := min(o.Rate.batch(), len(c.Left))
		if err := pace.wait(ctx, n); err != nil {
			return c.CutReport, err
		}
		if o.Before != nil {
			if err := o.Before(ctx, c.Left); err != nil {
				return c.CutReport, err
			}
		}
		err := c.batch(n)
		if o.After != nil {
			o.After(c.CutReport)
		}
		if err != nil {
			return c.CutReport, err
		}
	}
	return c.CutReport, nil
}

// cutter is a cut under way.
type cutter struct {
	CutReport
	machine *fact.Machine
	open    map[uint32]*destroyer // by inode of the namespace
}

func (c *cutter) close() {
	for _, d := range c.open {
		d.close()
	}
}

// batch cuts the first n that are left, in runs of one namespace each.
func (c *cutter) batch(n int) error {
	for n > 0 {
		inode := c.Left[0].Netns
		run := 1
		for run < min(n, mostAtOnce) && c.Left[run].Netns == inode {
			run++
		}
		sockets := c.Left[:run]
		d, err := c.destroyer(inode)
		if errors.Is(err, netns.ErrGone) {
			c.Gone = append(c.Gone, sockets...) // nothing outlives its namespace
		} else if err != nil {
			return err
		} else if err := c.destroy(d, sockets); err != nil {
			return err
		}
		c.Left = c.Left[run:]
		n -= run
	}
	return nil
}

// destroyer returns the one for a namespace, opened inside it the first time.
func (c *cutter) destroyer(inode uint32) (*destroyer, error) {
	if d := c.open[inode]; d != nil {
		return d, nil
	}
	ns := c.machine.Namespace(inode)
	if ns == nil {
		return nil, &Error{Act: "cut", Err: fmt.Errorf("the network namespace %d is not among those that were looked at", inode)}
	}
	var d *destroyer
	err := netns.Do(*ns, func() (err error) {
		d, err = newDestroyer()
		return err
	})
	if err != nil {
		return nil, &Error{Act: "cut", Err: err, Needs: netns.Blindness("", err).Needs}
	}
	c.open[inode] = d
	return d, nil
}

// destroy cuts some sockets of one namespace and puts each into its list. After
// an error those that the kernel said nothing about are still left.
func (c *cutter) destroy(d *destroyer, sockets []*fact.Socket) error {
	answered := make([]bool, len(sockets))
	var refused error
	err := d.destroy(sockets, func(i int, result unix.Errno) {
		s := sockets[i]
		ended := result == unix.ENOENT && s.State != fact.Listen || result == unix.EOPNOTSUPP && closedSince(s, len(c.Cut) > 0)
		if err := refusal(s, result); err != nil && !ended {
			refused = err
			return
		}
		answered[i] = true
		switch {
		case result == 0:
			c.Cut = append(c.Cut, s)
		case ended:
			c.Gone = append(c.Gone, s)
		default:
			c.Failed = append(c.Failed, Failure{s, failure(s, result)})
		}
	})
	if err == nil && refused == nil {
		return nil
	}
	if err != nil {
		refused = &Error{Act: "cut", Err: err}
	}
	var left []*fact.Socket
	for i, s := range sockets {
		if !answered[i] {
			left = append(left, s)
		}
	}
	c.Left = append(left, c.Left[len(sockets):]...)
	return refused
}

// closedSince says of a socket that the kernel does not support to destroy that it
// is closed, and nobody's any more: what is left of it waits in TIME_WAIT, which
// kernels before 6.0 or so do not destroy (tcp_abort in net/ipv4/tcp.c). In a dump
// it may be called FIN_WAIT2 then. Able is that the kernel has destroyed others: one
// that cannot refuses all.
func closedSince(s *fact.Socket, able bool) bool {
	return s.State == fact.FinWait2 || able && slices.Contains(connected, s.State)
}

// MayCut returns the error of a cut for want of a right, nil where this process has
// it: for who finds nothing to cut, and should not take that for a cut that works.
func MayCut() error {
	if capability.Held(unix.CAP_NET_ADMIN) {
		return nil
	}
	return &Error{Act: "cut", Err: unix.EPERM, Needs: "CAP_NET_ADMIN"}
}

// refusal returns the error of a kernel that will not do it for any socket,
// nil for every other result.
func refusal(s *fact.Socket, result unix.Errno) error {
	switch {
	case result == unix.EPERM:
		return &Error{Act: "cut", Err: result, Needs: capability.Missing("CAP_NET_ADMIN", unix.CAP_NET_ADMIN)}
	case result == unix.EOPNOTSUPP && s.State != fact.TimeWait && s.State != fact.NewSynRecv:
		return &Error{Act: "cut", Err: fmt.Errorf("%w: the kernel does not destroy sockets for others", errors.ErrUnsupported),
			Needs: "Linux 4.5 with CONFIG_INET_DIAG_DESTROY; without it, restart the program, or shorten its keepalive with lifeline tune"}
	}
	return nil
}

// failure puts the kernel's answer for one socket into words.
func failure(s *fact.Socket, result unix.Errno) error {
	switch {
	case result == unix.ENOENT: // inet_lookup_listener picks one of a group, and its cookie is another's
		return fmt.Errorf("the listener is gone, or shares its port with others (SO_REUSEPORT), of which the kernel finds only one: %w", result)
	case result == unix.EINVAL && s.State == fact.Listen: // tcp_abort_override in net/mptcp/subflow.c
		return fmt.Errorf("%w: the kernel does not destroy a Multipath TCP listener, as Go programs have since Go 1.24", errors.ErrUnsupported)
	case result == unix.EOPNOTSUPP:
		return fmt.Errorf("%w: this kernel destroys no socket in %s", errors.ErrUnsupported, s.State)
	}
	return result
}
