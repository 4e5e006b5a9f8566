package act

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestSelect(t *testing.T) {
	m := &fact.Machine{}
	add := func(p fact.Protocol, s fact.State, remote string, owner int32) {
		m.Sockets = append(m.Sockets, fact.Socket{Protocol: p, State: s, Family: fact.IPv4, Remote: netip.MustParseAddrPort(remote), Owners: []fact.Owner{{PID: owner}}})
	}
	add(fact.TCP, fact.Established, "10.0.0.1:80", 7)
	add(fact.TCP, fact.Established, "10.0.0.1:80", 8)
	add(fact.TCP, fact.CloseWait, "10.0.0.2:80", 8)
	add(fact.TCP, fact.TimeWait, "10.0.0.1:80", 8)
	add(fact.TCP, fact.Listen, "0.0.0.0:0", 8)
	add(fact.UDP, fact.Established, "10.0.0.1:53", 8)
	for _, test := range []struct {
		filter census.Filter
		self   int32
		want   int
	}{
		{census.Filter{}, 0, 3},
		{census.Filter{}, 7, 2},
		{to("10.0.0.1"), 0, 2},
		{census.Filter{PID: 7}, 7, 0},
		{census.Filter{Protocols: []fact.Protocol{fact.UDP}}, 0, 3},
		{census.Filter{States: []fact.State{fact.Listen, fact.TimeWait}}, 0, 2},
	} {
		if got := Select(m, test.filter, test.self); len(got) != test.want {
			t.Errorf("%+v without %d: %d sockets, want %d", test.filter, test.self, len(got), test.want)
		}
	}
}

// Programs at both ends learn of a cut at once, over IPv4, IPv6 and IPv4 spoken
// by an IPv6 socket; connections to others live.
func TestCut(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	v4 := dial(t, near, far, "10.77.1.2:80", 5)
	v6 := dial(t, near, far, "[fd77::2]:80", 5)
	mapped := far.Listen("tcp", "[::]:81")
	v4mapped := dialTo(t, near, mapped, "10.77.1.2:81", 5)

	m := look(t, near)
	report, err := Cut(t.Context(), m, Select(m, to("fd77::2"), 0), CutOptions{Rate: Unpaced})
	checkCut(t, report, err, 5, v6, func(l link) (cut, peer *net.TCPConn) { return l.near, l.far })

	m = look(t, near, far) // the sockets of the listener on [::] are v4-mapped
	sockets := Select(m, to("10.77.1.1"), 0)
	for _, s := range sockets {
		if want := s.Local.Port() == 81; s.Mapped != want {
			t.Errorf("%v: mapped is %v", s.Local, s.Mapped)
		}
	}
	report, err = Cut(t.Context(), m, sockets, CutOptions{Rate: Unpaced})
	checkCut(t, report, err, 10, append(v4, v4mapped...), func(l link) (cut, peer *net.TCPConn) { return l.far, l.near })
}

func checkCut(t *testing.T, r CutReport, err error, n int, links []link, ends func(link) (cut, peer *net.TCPConn)) {
	t.Helper()
	if err != nil || len(r.Cut) != n || len(r.Gone)+len(r.Failed)+len(r.Left) != 0 {
		t.Fatalf("got %v, %d cut, %d gone, %v failed, %d left; want %d cut", err, len(r.Cut), len(r.Gone), r.Failed, len(r.Left), n)
	}
	for _, l := range links {
		cut, peer := ends(l)
		if err := failed(t, cut); !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("here: %v, want ECONNABORTED", err)
		}
		if err := failed(t, peer); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("at the other end: %v, want ECONNRESET", err)
		}
	}
}

// The same addresses may belong to another connection by now.
func TestCutSparesTheSuccessor(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	ln := far.Listen("tcp", "10.77.1.2:80")
	first := dialTo(t, near, ln, "10.77.1.2:80", 1)[0]
	m := look(t, near)
	old := Select(m, to("10.77.1.2"), 0)

	_ = first.near.SetLinger(0)
	_ = first.near.Close()
	if err := failed(t, first.far); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	var second net.Conn
	err := near.Do(func() (err error) {
		second, err = (&net.Dialer{LocalAddr: first.near.LocalAddr(), Timeout: 10 * time.Second}).Dial("tcp", "10.77.1.2:80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()

	report, err := Cut(t.Context(), m, old, CutOptions{})
	if err != nil || len(report.Gone) != 1 || len(report.Cut) != 0 {
		t.Errorf("got %+v, %v; want one that is gone", report, err)
	}
	link{second.(*net.TCPConn), peer.(*net.TCPConn)}.say(t)
}

// A listener is only cut when its state was asked for, and one of Multipath
// TCP is refused by the kernel.
func TestCutListener(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	far.Listen("tcp", "[::]:81") // of Multipath TCP, where the kernel has it
	var plain net.Listener
	err := far.Do(func() (err error) {
		var tcp net.ListenConfig
		tcp.SetMultipathTCP(false)
		plain, err = tcp.Listen(t.Context(), "tcp", "10.77.1.2:80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	m := look(t, near, far)
	if all := Select(m, census.Filter{}, 0); len(all) != 0 {
		t.Fatalf("chosen without being asked for: %+v", all)
	}
	report, err := Cut(t.Context(), m, Select(m, census.Filter{States: []fact.State{fact.Listen}}, 0), CutOptions{})
	if err != nil || len(report.Cut)+len(report.Failed) != 2 {
		t.Fatalf("got %+v, %v; want two listeners cut or refused", report, err)
	}
	for _, f := range report.Failed {
		if f.Socket.Local.Port() != 81 || !errors.Is(f.Err, errors.ErrUnsupported) {
			t.Errorf("%v: %v", f.Socket.Local, f.Err)
		}
	}
	if left := look(t, far).Sockets; len(left) != len(report.Failed) {
		t.Errorf("still there: %+v", left)
	}
}

// The path comes back during a paced cut: it stops, and the rest live.
func TestCutStopsAtTheFirstSignOfLife(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	const all, enough = 40, 10
	links := dial(t, near, far, "10.77.1.2:80", all)
	far.Unplug()
	since := time.Now().Add(20 * time.Millisecond) // ages come in ticks of up to 10 ms
	time.Sleep(50 * time.Millisecond)
	m := look(t, near)
	byPort := make(map[uint16]link)
	for _, l := range links {
		byPort[l.near.LocalAddr().(*net.TCPAddr).AddrPort().Port()] = l
	}
	var back bool
	report, err := Cut(t.Context(), m, Select(m, to("10.77.1.2"), 0), CutOptions{
		Rate:   200,
		Before: StillSilent(m, since),
		After: func(r CutReport) {
			if len(r.Cut) >= enough && !back {
				back = true
				far.Plug()
				byPort[r.Left[len(r.Left)-1].Local.Port()].say(t)
			}
		},
	})
	if !errors.Is(err, ErrAlive) || !strings.Contains(err.Error(), "10.77.1.2") {
		t.Fatalf("got %v, want ErrAlive that names the peer", err)
	}
	if len(report.Cut) != enough || len(report.Left) != all-enough {
		t.Errorf("%d cut, %d left; want %d and %d", len(report.Cut), len(report.Left), enough, all-enough)
	}
	for _, s := range report.Left {
		byPort[s.Local.Port()].say(t)
	}
}

// What cannot be looked at is not cut blindly; what is gone with its namespace
// is gone.
func TestCutInANamespaceThatIsGone(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	dial(t, near, far, "10.77.1.2:80", 2)
	m := look(t, near)
	sockets := Select(m, to("10.77.1.2"), 0)
	for i := range m.Namespaces { // as if it had ended since the look
		m.Namespaces[i].Inode = 1
		m.Namespaces[i].PID = 0
	}
	for _, s := range sockets {
		s.Netns = 1
	}
	report, err := Cut(t.Context(), m, sockets, CutOptions{Rate: Unpaced, Before: StillSilent(m, time.Now())})
	if err != nil || len(report.Gone) != 2 {
		t.Errorf("got %+v, %v; want both gone", report, err)
	}
	m.Namespaces = nil
	var refused *Error
	if report, err := Cut(t.Context(), m, sockets, CutOptions{}); !errors.As(err, &refused) || len(report.Left) != 2 {
		t.Errorf("in a namespace that nobody looked at: got %+v, %v", report, err)
	}
	if _, err := Cut(t.Context(), m, sockets, CutOptions{Before: StillSilent(m, time.Now())}); err == nil || errors.Is(err, ErrAlive) {
		t.Errorf("where signs of life cannot be looked for: %v", err)
	}
}

func TestCutEndsWithItsContext(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	links := dial(t, near, far, "10.77.1.2:80", 3)
	m := look(t, near)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	report, err := Cut(ctx, m, Select(m, to("10.77.1.2"), 0), CutOptions{Rate: 1, After: func(CutReport) { cancel(enough) }})
	if !errors.Is(err, enough) || len(report.Cut) != 1 || len(report.Left) != 2 {
		t.Errorf("got %+v, %v; want one cut and the cause of the end", report, err)
	}
	alive := 0
	for _, l := range links {
		if _, err := l.near.Write([]byte{1}); err == nil {
			alive++
		}
	}
	if alive != 2 {
		t.Errorf("%d connections live, want 2", alive)
	}
}

func TestRefusals(t *testing.T) {
	established, waiting := &fact.Socket{State: fact.Established}, &fact.Socket{State: fact.TimeWait}
	if err := refusal(established, unix.EOPNOTSUPP); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "CONFIG_INET_DIAG_DESTROY; without it, restart") {
		t.Errorf("EOPNOTSUPP: %v", err)
	}
	if err := refusal(waiting, unix.EOPNOTSUPP); err != nil {
		t.Errorf("EOPNOTSUPP for TIME_WAIT says nothing about others, but: %v", err)
	}
	if err := failure(waiting, unix.EOPNOTSUPP); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "TIME_WAIT") {
		t.Errorf("EOPNOTSUPP for TIME_WAIT: %v", err)
	}
	for _, c := range []struct {
		s    fact.State
		able bool
		want bool
	}{{fact.FinWait2, false, true}, {fact.Established, false, false}, {fact.Established, true, true}, {fact.TimeWait, true, false}, {fact.Listen, true, false}} {
		if got := closedSince(&fact.Socket{State: c.s}, c.able); got != c.want {
			t.Errorf("%v that cannot be destroyed, others can: %v, is closed: %v", c.s, c.able, got)
		}
	}
	if err := refusal(established, unix.EPERM); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("EPERM: %v", err)
	}
}

func TestSignOfLife(t *testing.T) {
	now := time.Now()
	socket := func(state fact.State, remote string, age time.Duration) fact.Socket {
		return fact.Socket{State: state, Netns: 1, Remote: netip.MustParseAddrPort(remote), Conn: &fact.Conn{Life: fact.Life{LastAck: age}, Exchange: fact.Exchange{LastReceived: time.Minute}}}
	}
	talking := socket(fact.Established, "10.0.0.1:80", time.Minute)
	talking.Conn.LastReceived = time.Millisecond
	ends := map[end]bool{{1, netip.MustParseAddr("10.0.0.1")}: true}
	for _, test := range []struct {
		name  string
		s     fact.Socket
		alive bool
	}{
		{"acknowledged before", socket(fact.Established, "10.0.0.1:80", 2*time.Second), false},
		{"acknowledged since", socket(fact.Established, "10.0.0.1:80", 500*time.Millisecond), true},
		{"closing, acknowledged since", socket(fact.FinWait1, "10.0.0.1:80", 500*time.Millisecond), true},
		{"sent something since", talking, true},
		{"another peer", socket(fact.Established, "10.0.0.2:80", 0), false},
		{"never connected", socket(fact.SynSent, "10.0.0.1:80", 0), false},
		{"unknown", fact.Socket{State: fact.TimeWait, Netns: 1, Remote: netip.MustParseAddrPort("10.0.0.1:80")}, false},
	} {
		if err := signOfLife([]fact.Socket{test.s}, ends, now, now.Add(-time.Second)); errors.Is(err, ErrAlive) != test.alive {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestResults(t *testing.T) {
	message := func(kind uint16, sequence uint32, result int32) []byte {
		b := make([]byte, 36)
		binary.NativeEndian.PutUint32(b, 36)
		binary.NativeEndian.PutUint16(b[4:], kind)
		binary.NativeEndian.PutUint32(b[8:], sequence)
		binary.NativeEndian.PutUint32(b[16:], uint32(result))
		return b
	}
	got := make(map[uint32]unix.Errno)
	b := append(message(unix.NLMSG_ERROR, 1, 0), message(unix.NLMSG_NOOP, 2, -1)...)
	b = append(b, message(unix.NLMSG_ERROR, 3, -int32(unix.ENOENT))...)
	if err := results(b, func(s uint32, r unix.Errno) { got[s] = r }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[1] != 0 || got[3] != unix.ENOENT {
		t.Errorf("got %v", got)
	}
	for _, bad := range [][]byte{b[:10], b[:40], message(unix.NLMSG_ERROR, 1, 0)[:18]} {
		if err := results(bad, func(uint32, unix.Errno) {}); !errors.Is(err, errMalformed) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func FuzzResults(f *testing.F) {
	f.Add([]byte{20, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff})
	f.Add([]byte{16, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		err := results(b, func(_ uint32, r unix.Errno) {
			n++
			_ = r.Error()
		})
		if n > len(b)/unix.NLMSG_HDRLEN {
			t.Errorf("%d results in %d bytes", n, len(b))
		}
		if err != nil && !errors.Is(err, errMalformed) {
			t.Errorf("%v", err)
		}
	})
}

// BenchmarkCut cuts as many connections as the node of the story carried, beside
// ss, and tells what a paced cut really paces.
func BenchmarkCut(b *testing.B) {
	need.Program(b, "ss")
	near, far := hosts(b)
	ln := far.Listen("tcp", "10.77.1.2:80")
	for _, bench := range []struct {
		name string
		n    int
		cut  func(b *testing.B, m *fact.Machine, sockets []*fact.Socket)
	}{
		{"lifeline", 4224, func(b *testing.B, m *fact.Machine, sockets []*fact.Socket) {
			if r, err := Cut(b.Context(), m, sockets, CutOptions{Rate: Unpaced}); err != nil || len(r.Cut) != len(sockets) {
				b.Fatalf("%d cut, %v", len(r.Cut), err)
			}
		}},
		{"ss -K", 4224, func(*testing.B, *fact.Machine, []*fact.Socket) { near.Run("ss", "-K", "dst", "10.77.1.2") }},
		{"at 1000 a second", 1000, func(b *testing.B, m *fact.Machine, sockets []*fact.Socket) {
			start := time.Now()
			if r, err := Cut(b.Context(), m, sockets, CutOptions{Rate: 1000, Before: StillSilent(m, start.Add(time.Hour))}); err != nil || len(r.Cut) != len(sockets) {
				b.Fatalf("%d cut, %v", len(r.Cut), err)
			}
			last := Rate(1000).batch() // is cut when the one before it has had its time
			b.ReportMetric(float64(len(sockets)-last)/time.Since(start).Seconds(), "conns/s")
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				links := dialTo(b, near, ln, "10.77.1.2:80", bench.n)
				m := look(b, near)
				sockets := Select(m, to("10.77.1.2"), 0)
				b.StartTimer()
				bench.cut(b, m, sockets)
				b.StopTimer()
				if left := Select(look(b, near), to("10.77.1.2"), 0); len(left) > 0 {
					b.Errorf("%d connections live", len(left))
				}
				for _, l := range links {
					_, _ = l.near.Close(), l.far.Close()
				}
				b.StartTimer()
			}
		})
	}
}
