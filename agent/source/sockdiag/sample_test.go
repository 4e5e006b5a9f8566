package sockdiag

import (
	"net"
	"testing"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Each connection is in one part, or in two where both ports are high, and
// looks there as it does in full.
func TestSample(t *testing.T) {
	quiet(t, func(inode uint32) error {
		l, err := net.Listen("tcp", "127.0.0.1:80")
		if err != nil {
			return err
		}
		defer l.Close()
		for range 1000 {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return err
			}
			defer c.Close()
			p, err := l.Accept()
			if err != nil {
				return err
			}
			defer p.Close()
		}
		all, err := Read(nil, inode, Want{TCP: true})
		if err != nil {
			return err
		}
		cookies := make(map[uint64]bool)
		for i := range all {
			cookies[all[i].Cookie] = all[i].State == fact.Established
		}
		found, largest := 0, 0
		for part := range Samples {
			some, err := Sample(nil, inode, part)
			if err != nil {
				return err
			}
			for i := range some {
				s := &some[i]
				in := func(port uint16) bool { return port >= sampledPorts && int(port/portsEach)%Samples == part }
				if !cookies[s.Cookie] || s.Conn == nil || !in(s.Local.Port()) && !in(s.Remote.Port()) {
					t.Errorf("part %d has %+v", part, s)
				}
			}
			found += len(some)
			largest = max(largest, len(some))
		}
		if found != 2000 || largest > 1200 {
			t.Errorf("%d sockets in all parts, at most %d in one; want 2,000", found, largest)
		}
		return nil
	})
}

func BenchmarkSample(b *testing.B) {
	quiet(b, func(inode uint32) error {
		var room []fact.Socket
		for b.Loop() {
			var err error
			if room, err = Sample(room[:0], inode, 3); err != nil {
				return err
			}
		}
		return nil
	})
}
