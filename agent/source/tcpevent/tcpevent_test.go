package tcpevent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

const patience = 20 * time.Second // that a busy machine may take

func open(t *testing.T) *Events {
	t.Helper()
	need.Root(t)
	e, err := Open()
	need.Feature(t, "BPF tracepoints and ring buffer", err)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

// await returns the first event of a kind in a namespace.
func await(t *testing.T, e *Events, kind Kind, netns uint32) Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		b, err := e.Next(ctx)
		if err != nil {
			t.Fatalf("no %v: %v", kind, err)
		}
		for _, event := range b.Events {
			if event.Kind == kind && event.Netns == netns {
				return event
			}
		}
	}
}

// pair is a connection between two hosts, by the address that the far one
// listens on.
func pair(t *testing.T, nearAddr, farAddr, listen string) (near, far *lab.Host, client, server net.Conn) {
	t.Helper()
	l := lab.New(t)
	near, far = l.Host("near"), l.Host("far")
	l.Wire(near, nearAddr, far, farAddr)
	near.Sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms", "600000")
	near.Sysctl("net.ipv6.neigh.eth0.base_reachable_time_ms", "600000")
	listener := far.Listen("tcp", listen)
	client = near.Dial("tcp", listen)
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return near, far, client, server
}

// A host that dies without a word is told by what is sent to it again.
func TestRetransmission(t *testing.T) {
	t.Parallel()
	for name, addresses := range map[string][3]string{
		"IPv4": {"10.77.1.1/24", "10.77.1.2/24", "10.77.1.2:80"},
		"IPv6": {"fd77::1/64", "fd77::2/64", "[fd77::2]:80"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := open(t)
			near, far, client, _ := pair(t, addresses[0], addresses[1], addresses[2])
			far.Unplug()
			sent := time.Now()
			if _, err := client.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
			got := await(t, e, Retransmit, near.Netns())
			took := time.Since(sent)
			t.Logf("seen after %v (aim 1 s): %+v", took.Round(time.Millisecond), got)
			if took > 3*time.Second {
				t.Errorf("seen only after %v", took)
			}
			if got.Local.String() != client.LocalAddr().String() || got.Remote.String() != addresses[2] || got.State != fact.Established || got.Retransmits == 0 {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// However many connections to one peer send again, it is told ten times a
// second of each kind at most.
func TestRate(t *testing.T) {
	t.Parallel()
	e := open(t)
	l := lab.New(t)
	near, far := l.Host("near"), l.Host("far")
	l.Wire(near, "10.77.1.1/24", far, "10.77.1.2/24")
	near.Sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms", "600000")
	far.Listen("tcp", "10.77.1.2:80")
	const many = 200
	var all []net.Conn
	for range many {
		all = append(all, near.Dial("tcp", "10.77.1.2:80"))
	}
	far.Unplug()
	for _, c := range all {
		if _, err := c.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	var told uint64
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // some timeouts of each connection
	defer cancel()
	for {
		b, err := e.Next(ctx)
		if err != nil {
			break
		}
		for _, event := range b.Events {
			if event.Netns != near.Netns() {
				continue
			}
			told++
			if event.Remote.Addr().IsLoopback() {
				t.Errorf("on loopback: %+v", event)
			}
		}
	}
	const kinds = 2                                                        // what is sent again for the first time is one of its own
	most := kinds * (uint64(time.Since(began)/(100*time.Millisecond)) + 2) // one for each processor may slip through at once
	t.Logf("%d connections sent again for 2 s: told %d times", many, told)
	if told == 0 || told > most {
		t.Errorf("told %d times, of at most %d", told, most)
	}
}

// What is not fetched is dropped and counted, and the rest still comes.
func TestLost(t *testing.T) { // alone: it fills the rings of the others too
	e := open(t)
	l := lab.New(t)
	near, far := l.Host("near"), l.Host("far")
	l.Wire(near, "10.77.1.1/24", far, "10.77.1.2/24")
	near.Route("10.78.0.0/16", "10.77.1.2")
	near.Sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms", "600000")
	far.Run("ip", "route", "add", "local", "10.78.0.0/16", "dev", "lo")
	far.Listen("tcp", "0.0.0.0:80")
	const peers = 1200 // a ring of 64 KiB has room for 910
	var all []net.Conn
	for i := range peers {
		all = append(all, near.Dial("tcp", netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 78, byte(i >> 8), byte(i)}), 80).String()))
	}
	far.Unplug()
	for _, c := range all {
		if _, err := c.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(2 * time.Second) // some timeouts of each connection
	var told, lost uint64
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for told+lost < peers {
		b, err := e.Next(ctx)
		if err != nil {
			t.Fatalf("%d told, %d lost, of %d: %v", told, lost, peers, err)
		}
		told, lost = told+uint64(len(b.Events)), lost+b.Lost
	}
	t.Logf("%d told, %d lost", told, lost)
	if told == 0 || lost == 0 {
		t.Errorf("%d told, %d lost", told, lost)
	}
}

// A call of Next ends with its context, and with Close, and a new one waits
// anew.
func TestNextEnds(t *testing.T) {
	e := open(t)
	for range 3 {
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(20*time.Millisecond, func() { cancel(errTest) })
		for {
			if _, err := e.Next(ctx); errors.Is(err, errTest) {
				break
			} else if err != nil {
				t.Fatalf("got %v", err)
			}
		}
	}
	time.AfterFunc(20*time.Millisecond, func() { _ = e.Close() })
	for {
		if _, err := e.Next(context.Background()); errors.Is(err, os.ErrClosed) {
			return
		} else if err != nil {
			t.Fatalf("closed: got %v", err)
		}
	}
}

var errTest = errors.New("enough")

// Closing leaves no program, map or link behind: a link would hold its program,
// and a program its maps. The variables are mapped until the garbage collector
// finds Events gone too.
func TestCloseLeavesNothing(t *testing.T) {
	need.Root(t)
	e, err := Open()
	need.Feature(t, "BPF tracepoints and ring buffer", err)
	var programs []ebpf.ProgramID
	for _, p := range e.loaded.Programs {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, ok := info.ID()
		need.Feature(t, "IDs of BPF programs", map[bool]error{false: errors.ErrUnsupported}[ok])
		programs = append(programs, id)
	}
	var maps []ebpf.MapID
	for _, m := range e.loaded.Maps {
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, ok := info.ID()
		need.Feature(t, "IDs of BPF maps", map[bool]error{false: errors.ErrUnsupported}[ok])
		maps = append(maps, id)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, id := range programs {
		gone(t, func() (io.Closer, error) { return ebpf.NewProgramFromID(id) })
	}
	e = nil
	for _, id := range maps {
		gone(t, func() (io.Closer, error) { return ebpf.NewMapFromID(id) })
	}
}

// gone waits until something does not exist: the kernel frees in the background.
func gone(t *testing.T, find func() (io.Closer, error)) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		runtime.GC()
		found, err := find()
		if errors.Is(err, os.ErrNotExist) {
			return
		}
		if err == nil {
			_ = found.Close()
		}
		if time.Now().After(deadline) {
			t.Fatalf("still loaded: %v", err)
		}
	}
}

func TestExplain(t *testing.T) {
	for _, test := range []struct {
		version uint32
		err     error
		is      error
		says    string
	}{
		{5<<16 | 4<<8, unix.EINVAL, errors.ErrUnsupported, "before Linux 5.9"},
		{6 << 16, ebpf.ErrNotSupported, errors.ErrUnsupported, "CONFIG_DEBUG_INFO_BTF"},
		{6 << 16, fmt.Errorf("load: %w", unix.EPERM), fs.ErrPermission, "needs "},
		{6 << 16, &ebpf.VerifierError{Cause: unix.EACCES}, errors.ErrUnsupported, "verifier"},
	} {
		err := explainOn(test.version, test.err)
		if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%v on %#x: %v", test.err, test.version, err)
		}
	}
	if err := explainOn(6<<16, unix.EIO); errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		t.Errorf("an error of another kind: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(ipv4Record(Retransmit))
	f.Add(ipv4Record(Probe))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := decode(raw)
		if (err == nil) != (len(raw) == recordSize && (raw[25] == unix.AF_INET || raw[25] == unix.AF_INET6)) {
			t.Errorf("%x: %+v, %v", raw, e, err)
		}
		if err == nil && (!e.Local.IsValid() || !e.Remote.IsValid() || e.Remote.Addr().Is4In6()) {
			t.Errorf("%x: %+v", raw, e)
		}
	})
}

func TestDecode(t *testing.T) {
	for kind, counts := range map[Kind][2]uint8{Retransmit: {3, 0}, Probe: {0, 3}} {
		got, err := decode(ipv4Record(kind))
		want := Event{Kind: kind, State: fact.Established, At: 11, Netns: 7, Interface: 5, Cookie: 9, Retransmits: counts[0], Unanswered: counts[1],
			Local: netip.MustParseAddrPort("10.0.0.1:80"), Remote: netip.MustParseAddrPort("10.0.0.2:256")}
		if err != nil || got != want {
			t.Errorf("got %+v, %v", got, err)
		}
	}
}

// ipv4Record is a record as the kernel writes it.
func ipv4Record(kind Kind) []byte {
	var raw []byte
	raw = binary.NativeEndian.AppendUint64(raw, 9)
	raw = binary.NativeEndian.AppendUint64(raw, 11)
	raw = binary.NativeEndian.AppendUint32(raw, 7)
	raw = binary.NativeEndian.AppendUint32(raw, 5)
	raw = append(raw, byte(kind), unix.AF_INET, byte(fact.Established), 3)
	raw = binary.NativeEndian.AppendUint16(raw, 80)
	raw = binary.BigEndian.AppendUint16(raw, 256)
	raw = append(raw, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	return append(raw, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
}
