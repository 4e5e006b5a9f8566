package sockdiag

import (
	"fmt"
	"net"
	"testing"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// A tally sees the sockets that a look sees, in the same states, and of each the
// addresses; but for what only TCP_INFO tells.
func TestTally(t *testing.T) {
	quiet(t, func(inode uint32) error {
		if err := Tally(inode, func(s *fact.Socket) { t.Errorf("in an empty namespace: %+v", s) }); err != nil {
			return err
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		for range 200 { // more than one read of the kernel's answers
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return err
			}
			defer c.Close()
			s, err := l.Accept()
			if err != nil {
				return err
			}
			defer s.Close()
		}
		want, err := Read(nil, inode, Want{TCP: true, Held: true})
		if err != nil {
			return err
		}
		left := make(map[uint64]fact.Socket, len(want))
		for i := range want {
			left[want[i].Cookie] = want[i]
		}
		err = Tally(inode, func(s *fact.Socket) {
			w := left[s.Cookie]
			delete(left, s.Cookie)
			if w.Netns != s.Netns || w.Protocol != s.Protocol || w.State != s.State || w.Local != s.Local || w.Remote != s.Remote || w.Family != s.Family || s.Conn != nil {
				t.Errorf("%+v, a look says %+v", *s, w)
			}
		})
		if len(want) != 401 || len(left) != 0 {
			return fmt.Errorf("%d of %d sockets are missing", len(left), len(want))
		}
		return err
	})
}
