package act

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/internal/need"
)

// confirm confirms the silence of a peer of host.
func confirm(t *testing.T, host *lab.Host, peer string, pings Pings) Confirmation {
	t.Helper()
	m := look(t, host)
	c, err := Confirm(t.Context(), m.Namespaces[0], Select(m, to(peer), 0), pings)
	if err != nil {
		t.Fatalf("%v, %+v", err, c)
	}
	t.Logf("%+v", c)
	return c
}

func TestConfirm(t *testing.T) {
	for _, test := range []struct {
		peer  string
		links int
		pings Pings
		least time.Duration // generous at the other end: a machine may be slow
	}{
		{"10.77.1.2", 1, PingsAnswered, confirmShortest},
		{"10.77.1.2", 1, PingsUnknown, 4 * confirmWindow},
		{"10.77.1.2", 1, PingsIgnored, 7 * confirmWindow},
		{"fd77::2", 2, PingsAnswered, confirmShortest},
		{"fd77::2", 3, PingsUnknown, confirmShortest},
	} {
		t.Run(fmt.Sprintf("%s by %d, pings %d", test.peer, test.links, test.pings), func(t *testing.T) {
			t.Parallel()
			near, far := hosts(t)
			address := test.peer + ":80"
			if test.peer[0] == 'f' {
				address = "[" + test.peer + "]:80"
			}
			links := dial(t, near, far, address, test.links)
			tuned(t, append(links, links...)[:2])
			before := allOptions(t, links)
			time.Sleep(settle)
			alive := confirm(t, near, test.peer, PingsUnknown)
			if alive.Verdict != Alive || alive.Sockets != test.links || (alive.Pings == PingsAnswered) != (test.links < 3) || alive.Took > 5*time.Second {
				t.Errorf("alive: %+v", alive)
			}
			far.Unplug()
			dead := confirm(t, near, test.peer, test.pings)
			if dead.Verdict != Silent || dead.Took < test.least || dead.Took > confirmLongest || dead.Exchanges < confirmPinged || dead.Pings != test.pings {
				t.Errorf("dead: %+v", dead)
			}
			for i, after := range allOptions(t, links) {
				if after != before[i] {
					t.Errorf("connection %d had %+v, has %+v", i/2, before[i], after)
				}
			}
		})
	}
}

// An address that answers pings while its connections do not is not silent for
// sure.
func TestConfirmWhereOnlyPingsAreAnswered(t *testing.T) {
	t.Parallel()
	need.Program(t, "nft")
	near, far := hosts(t)
	dial(t, near, far, "10.77.1.2:80", 1)
	far.Nft("table ip loss {\nchain input {\ntype filter hook input priority 0\ntcp dport 80 drop\n}\n}")
	if c := confirm(t, near, "10.77.1.2", PingsUnknown); c.Verdict != Unsure || c.Pings != PingsAnswered {
		t.Errorf("got %+v", c)
	}
}

// Data in flight that nobody answers counts, and an answer to it too.
func TestConfirmWithDataInFlight(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	l := dial(t, near, far, "10.77.1.2:80", 1)[0]
	far.Unplug()
	if _, err := l.near.Write([]byte("lost")); err != nil {
		t.Fatal(err)
	}
	if c := confirm(t, near, "10.77.1.2", PingsUnknown); c.Verdict != Silent {
		t.Errorf("got %+v", c)
	}
	far.Plug()
	if c := confirm(t, near, "10.77.1.2", PingsUnknown); c.Verdict != Alive {
		t.Errorf("after the peer is back: %+v", c)
	}
	_ = l.far.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, err := l.far.Read(make([]byte, 8)); n != 4 || err != nil {
		t.Errorf("the data: %d bytes, %v", n, err)
	}
}

func TestConfirmEnds(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	dial(t, near, far, "10.77.1.2:80", 2)
	m := look(t, near)
	sockets := Select(m, to("10.77.1.2"), 0)
	if _, err := Confirm(t.Context(), m.Namespaces[0], nil, PingsUnknown); !errors.Is(err, ErrNoConnection) {
		t.Errorf("without connections: %v", err)
	}
	far.Unplug()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if c, err := Confirm(ctx, m.Namespaces[0], sockets, PingsUnknown); !errors.Is(err, context.DeadlineExceeded) || c.Verdict != Unsure {
		t.Errorf("%+v, %v", c, err)
	}
	for _, s := range sockets {
		s.Owners = nil
	}
	var refused *Error
	if c, err := Confirm(t.Context(), m.Namespaces[0], sockets, PingsUnknown); !errors.As(err, &refused) || c.Verdict != Unsure {
		t.Errorf("without owners: %+v, %v", c, err)
	}
}

// What did not run in time tells nothing.
func TestConfirmKnowsItsLateness(t *testing.T) {
	s := &subject{Poked: Poked{Socket: &fact.Socket{}, Err: os.ErrClosed}}
	c := confirmation{subjects: []*subject{s}, need: confirmPinged}
	if err := c.ask(&slow{t.Context().Done()}); !errors.Is(err, ErrLate) || c.Verdict != Unsure {
		t.Errorf("%+v, %v", c.Confirmation, err)
	}
}

// slow is the context of a machine that stands still.
type slow struct{ end <-chan struct{} }

func (s *slow) Done() <-chan struct{} {
	time.Sleep(2 * confirmLate)
	return s.end
}
func (s *slow) Deadline() (time.Time, bool) { return time.Time{}, false }
func (s *slow) Err() error                  { return nil }
func (s *slow) Value(any) any               { return nil }

func FuzzPing(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1, 0, 0, 0, 0, 1, 2, 0, 1}, false)
	f.Add([]byte{129, 0, 0, 0, 1, 2, 0, 1}, true)
	f.Add([]byte{0x4f}, false)
	f.Fuzz(func(t *testing.T, b []byte, v6 bool) {
		if isReply(b, v6, 0x102) && len(b) < echoLen {
			t.Error("an answer of no length")
		}
	})
}

func TestPingMessages(t *testing.T) {
	reply := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1, 0, 0, 0, 0, 1, 2, 0, 1}
	if !isReply(reply, false, 0x102) || isReply(reply, false, 0x103) || isReply(reply[:27], false, 0x102) || isReply(reply, true, 0x102) {
		t.Error("an answer over IPv4")
	}
	if !isReply([]byte{129, 0, 0, 0, 1, 2, 0, 1}, true, 0x102) || isReply([]byte{128, 0, 0, 0, 1, 2, 0, 1}, true, 0x102) {
		t.Error("an answer over IPv6")
	}
	b := []byte{echoRequest4, 0, 0, 0, 1, 2, 0, 1}
	sum := checksum(b)
	b[2], b[3] = byte(sum>>8), byte(sum)
	if checksum(b) != 0 {
		t.Errorf("checksum %x", sum)
	}
	if rawAddress(to("fd77::2").Peer.Addr(), 3).(*unix.SockaddrInet6).ZoneId != 0 || rawAddress(to("fe80::2").Peer.Addr(), 3).(*unix.SockaddrInet6).ZoneId != 3 {
		t.Error("zones")
	}
}
