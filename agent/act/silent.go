package act

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/netns"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
	"github.com/lifeline-go/lifeline/bound"
)

// signsApart is how far apart looks for a sign of life are at the least, so that a
// cut that is not paced does not spend its time on them.
const signsApart = 25 * time.Millisecond

// ErrAlive is the first sign of life: what was held for silent is not, and what
// was not done by then must not be done.
var ErrAlive = errors.New("there is a sign of life")

// end is the other end of connections. The same address is another machine in
// another namespace.
type end struct {
	netns uint32
	addr  netip.Addr
}

// StillSilent returns what stops a cut at the first sign of life, for
// [CutOptions]: an error that matches [ErrAlive] when the peer of any socket
// that is left has acknowledged or sent anything since the given time, on any
// connection. since is when the look began that the verdict rests on.
//
// Looking again costs a few microseconds for each TCP socket of the namespaces
// concerned, and is done 40 times a second at most. What cannot be looked at is an error too, so that nothing is cut
// blindly.
func StillSilent(m *fact.Machine, since time.Time) func(ctx context.Context, left []*fact.Socket) error {
	var sockets []fact.Socket // room that each look uses again
	var looked time.Time
	return func(_ context.Context, left []*fact.Socket) error {
		if time.Since(looked) < signsApart {
			return nil
		}
		defer func() { looked = time.Now() }()
		ends := make(map[end]bool)
		spaces := make(map[uint32]bool)
		for _, s := range left {
			ends[end{s.Netns, s.Remote.Addr()}] = true
			spaces[s.Netns] = true
		}
		for inode := range spaces {
			ns := m.Namespace(inode)
			if ns == nil {
				return fmt.Errorf("cannot look for signs of life: the network namespace %d is unknown", inode)
			}
			before := time.Now()
			err := netns.Do(*ns, func() (err error) {
				sockets, err = sockdiag.Read(sockets[:0], inode, sockdiag.Want{TCP: true})
				return err
			})
			if errors.Is(err, netns.ErrGone) {
				continue
			}
			if err != nil {
				return fmt.Errorf("cannot look for signs of life: %w", err)
			}
			if err := signOfLife(sockets, ends, before, since); err != nil {
				return err
			}
		}
		return nil
	}
}

// signOfLife returns an error that names the first end that was heard after
// since. Ages are counted from before the look, which makes what came seem older
// by as long as the look took, never newer.
func signOfLife(sockets []fact.Socket, ends map[end]bool, before, since time.Time) error {
	for i := range sockets {
		s := &sockets[i]
		if s.Conn == nil || s.State == fact.SynSent || s.State == fact.Close || !ends[end{s.Netns, s.Remote.Addr()}] {
			continue // who is in SYN_SENT never heard from its peer, and the age says nothing
		}
		if age := quiet(s.Conn); before.Add(-age).After(since) {
			return fmt.Errorf("%w: %v was heard %s ago on %v", ErrAlive, s.Remote.Addr(), bound.Format(age), s.Local)
		}
	}
	return nil
}

// quiet is since the peer was last heard. Data in order that acknowledges
// nothing new leaves LastAck as it is (tcp_rcv_established in
// net/ipv4/tcp_input.c), so who only reads must look at both.
func quiet(c *fact.Conn) time.Duration { return min(c.LastAck, c.LastReceived) }
