package verdict

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Looks at nothing but the peers of which the kernel told, and those that are
// doubted, say what looks at all say: of paths that lose, and of peers that die and
// come back.
func TestNarrowLooks(t *testing.T) {
	t.Parallel()
	for _, conns := range []int{1, 5, 40} {
		t.Run(fmt.Sprintf("%d connections to each", conns), func(t *testing.T) {
			t.Parallel()
			var whole, narrow Detector
			var peers [4]*lossy
			for i := range peers {
				peers[i] = newLossy(uint64(i), []float64{0, 0.05, 0.4, 0}[i], conns)
			}
			looked, seen, verdicts := 0, 0, 0
			for at := step; at < 3*time.Minute; at += step {
				if peers[3].loss = 0; at > time.Minute && at < 2*time.Minute {
					peers[3].loss = 1
				}
				m := &fact.Machine{}
				for i, l := range peers {
					l.advance(at)
					one := bare(l.look())
					for k := range one.Sockets {
						one.Sockets[k].Cookie += uint64(i) << 32
						one.Sockets[k].Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 443)
					}
					one.Sockets = append(m.Sockets, one.Sockets...)
					m = one
				}
				part := *m
				about := narrow.Doubted()
				for i := range m.Sockets {
					if s := &m.Sockets[i]; isDoubtful(s) { // the kernel tells of it
						about = append(about, s.Remote.Addr())
					}
				}
				part.Sockets = nil
				for _, s := range m.Sockets {
					if slices.Contains(about, s.Remote.Addr()) {
						part.Sockets = append(part.Sockets, s)
					}
				}
				looked, seen = looked+len(m.Sockets), seen+len(part.Sockets)
				want, got := whole.Look(m, step), narrow.Look(&part, step)
				verdicts += len(want)
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("after %v: %+v, of all %+v", at, got, want)
				}
				if whole.Suspicious() != narrow.Suspicious() || len(whole.Suspects()) != len(narrow.Suspects()) || len(whole.Asking()) != len(narrow.Asking()) {
					t.Fatalf("after %v: suspicious %v, of all %v", at, narrow.Suspicious(), whole.Suspicious())
				}
			}
			t.Logf("%d verdicts fell or were lifted; %d of %d sockets were looked at", verdicts, seen, looked)
			if conns > 1 && verdicts < 2 || seen >= looked { // one connection takes longer to tell
				t.Errorf("%d verdicts, %d of %d sockets", verdicts, seen, looked)
			}
		})
	}
}
