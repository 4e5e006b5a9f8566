package opener

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/gosym"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func watch(t testing.TB, o Options) *Sockets {
	t.Helper()
	need.Root(t)
	s, err := Open(o)
	need.Feature(t, "BPF in cgroups", err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// own returns the sockets that this process opened.
func own(t testing.TB, s *Sockets) (mine []Socket) {
	t.Helper()
	all, err := s.Read(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		if one.PID == int32(os.Getpid()) {
			mine = append(mine, one)
		}
	}
	return mine
}

// functions are the names of the calls of a stack, innermost first.
func functions(t testing.TB, s *Sockets, key uint64) (names []string) {
	t.Helper()
	stack, ok := s.Stack(key)
	if !ok {
		t.Fatalf("no stack %#x", key)
	}
	table, err := gosym.OfProcess(int32(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	for i, pc := range stack.Counters {
		if i > 0 || stack.Logical {
			pc--
		}
		for _, f := range table.Lookup(pc) {
			names = append(names, f.Func)
			if stack.Logical {
				break
			}
		}
	}
	return names
}

const here = "github.com/lifeline-go/lifeline/agent/source/opener."

func accept(t testing.TB, l net.Listener) (accepted chan net.Conn) {
	accepted = make(chan net.Conn, 1000)
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	return accepted
}

// Both ends of a connection have the line of code that opened them, as long as
// they are open and no longer.
func TestBothEnds(t *testing.T) {
	s := watch(t, Options{Uses: true})
	for _, network := range []string{"tcp4", "tcp6", "unix"} {
		t.Run(network, func(t *testing.T) {
			address := map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "unix": filepath.Join(t.TempDir(), "s")}[network]
			l, err := net.Listen(network, address)
			if err != nil {
				t.Fatal(err)
			}
			accepted := accept(t, l)
			c, err := net.Dial(network, l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			far := <-accepted
			fmt.Fprint(c, "x")
			buf := make([]byte, 1)
			if _, err := far.Read(buf); err != nil {
				t.Fatal(err)
			}
			mine := own(t, s)
			checkEnd(t, s, mine, Connected, network, l.Addr().String(), "TestBothEnds")
			checkEnd(t, s, mine, Named, network, l.Addr().String(), "accept")
			c.Close()
			far.Close()
			l.Close()
			if left := own(t, s); len(left) > 0 {
				t.Errorf("still there: %+v", left)
			}
		})
	}
}

func checkEnd(t *testing.T, s *Sockets, mine []Socket, how How, network, address, by string) {
	t.Helper()
	i := slices.IndexFunc(mine, func(one Socket) bool {
		return one.How == how && (how == Connected || one.Remote.Port() != 0 || one.Peer != 0)
	})
	if i < 0 {
		t.Fatalf("no socket %v in %+v", how, mine)
	}
	one := mine[i]
	if one.Inode == 0 || one.Cookie == 0 || one.State != fact.Established || one.Uses != 1 || one.Used < one.Born {
		t.Errorf("got %+v", one)
	}
	peer := one.Remote.String()
	if how == Named {
		peer = one.Local.String()
	}
	if network == "unix" {
		peer = one.Path
	}
	if peer != address || one.Own != (network == "unix" && how == Named) {
		t.Errorf("peer %s, want %s: %+v", peer, address, one)
	}
	names := functions(t, s, one.Opened)
	if !slices.ContainsFunc(names, func(f string) bool { return strings.HasPrefix(f, here+by) }) {
		t.Errorf("opened in %q, want %s", names, by)
	}
	if how == Named && !slices.Contains(names, "net.(*netFD).accept") {
		t.Errorf("accepted in %q", names)
	}
	if used := functions(t, s, one.Last); !slices.Contains(used, here+"TestBothEnds.func1") && !slices.Contains(used, here+"TestBothEnds") {
		t.Errorf("used in %q", used)
	}
}

//go:noinline
func askHTTP(t *testing.T, client *http.Client, url string) {
	r, err := client.Get(url)
	if err != nil {
		t.Error(err)
		return
	}
	io.Copy(io.Discard, r.Body)
	r.Body.Close()
}

// Connections of net/http are dialed in goroutines of their own: the uprobes say
// who asked, and for which Transport.
func TestWhoAsked(t *testing.T) {
	s := watch(t, Options{})
	pid := int32(os.Getpid())
	table, err := gosym.OfProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	g, err := table.G()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Layout(pid, g); err != nil {
		t.Fatal(err)
	}
	trace, err := s.Trace(pid, table, true)
	need.Feature(t, "uprobes", err)
	defer trace.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler()}
	go server.Serve(l)
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	askHTTP(t, client, "http://"+l.Addr().String())
	plain := make(chan net.Conn)
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
		}
		plain <- c
	}()
	c := <-plain
	defer c.Close()
	if trace.Check() {
		t.Error("so few go statements are too many")
	}
	var asked []string
	for _, one := range own(t, s) {
		if one.How != Connected {
			continue
		}
		names := functions(t, s, one.Asked[0])
		asked = append(asked, strings.Join(names, " "))
		if dialed := slices.Contains(names, here+"askHTTP"); dialed != (one.Transport != 0) {
			t.Errorf("asked by %q for the Transport %#x", names, one.Transport)
		}
	}
	if all := strings.Join(asked, "\n"); len(asked) != 2 || !strings.Contains(all, here+"askHTTP") || !strings.Contains(all, here+"TestWhoAsked") {
		t.Errorf("asked by:\n%s", all)
	}
}

// A program with so many go statements that looking at each would slow it down is
// not looked at there any more.
func TestTooManyGoStatements(t *testing.T) {
	s := watch(t, Options{})
	pid := int32(os.Getpid())
	table, err := gosym.OfProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	trace, err := s.Trace(pid, table, true)
	need.Feature(t, "uprobes", err)
	defer trace.Close()
	for begin := time.Now(); !trace.Check(); {
		if time.Since(begin) > 30*time.Second {
			t.Fatal("it goes on looking")
		}
		for range 20_000 {
			done := make(chan struct{})
			go close(done)
			<-done
		}
	}
	before := s.number(openerVarGoStatements)
	done := make(chan struct{})
	go close(done)
	<-done
	if now := s.number(openerVarGoStatements); now != before || !trace.Check() {
		t.Errorf("%d more go statements were seen", now-before)
	}
}

// Ten thousand open sockets are read in 50 ms or so; ten thousand stacks find
// room; what does not is counted.
func TestMany(t *testing.T) {
	s := watch(t, Options{})
	const n = 3000
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	accepted := accept(t, l)
	var open []net.Conn
	for range n {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c, <-accepted)
	}
	begin := time.Now()
	got := len(own(t, s))
	t.Logf("%d sockets in %v", got, time.Since(begin))
	if got != 2*n+1 { // and the listener, which package net asks for its name too
		t.Errorf("%d sockets, of %d", got, 2*n+1)
	}
	if err := s.set(openerVarLeft, uint64(1)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c, <-accepted)
	}
	if sockets, _ := s.Dropped(); sockets < 3 {
		t.Errorf("%d sockets are said to have found no room", sockets)
	}
	for _, c := range open {
		c.Close()
	}
	l.Close()
	if left := own(t, s); len(left) > 0 {
		t.Errorf("%d are still there, such as %+v", len(left), left[0])
	}
}

// Nobody is hindered by records that nobody could have written.
func FuzzDecode(f *testing.F) {
	row := make([]byte, rowSize+8)
	row[unsafe.Offsetof(openerRow{}.Family)] = 1
	row[unsafe.Offsetof(openerRow{}.Path)] = 5
	copy(row[rowSize:], "\x00name")
	f.Add(row)
	f.Add(row[:rowSize])
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		found := 0
		left, err := decode(raw, make(map[uint64]bool), func(*Socket) { found++ })
		if err == nil && len(raw) > left && found == 0 || left < 0 || left > len(raw) {
			t.Errorf("nothing, and no error; %d of %d bytes are left", left, len(raw))
		}
	})
}

func TestDecode(t *testing.T) {
	var r openerRow
	r.Birth = openerBirth{Born: 1, Used: 2, Uses: 3, Cookie: 4, Opened: 5, Asked: [3]uint64{6, 7, 8}, Last: 9, Transport: 10, Pid: 11, Exec: 12, How: 2}
	r.Inode, r.Peer, r.Netns, r.Family, r.State, r.Type, r.Path, r.Own = 13, 14, 15, 1, 1, 1, 5, 1
	raw, err := binary.Append(nil, binary.NativeEndian, r)
	if err != nil || len(raw) != rowSize {
		t.Fatal(err, len(raw))
	}
	var list []Socket
	raw = append(raw, "\x00name\x00\x00\x00"...)
	take := func(s *Socket) { list = append(list, *s) }
	for _, size := range []int{len(raw) - 1, rowSize + 1, 7} { // a piece of it
		if left, err := decode(raw[:size], make(map[uint64]bool), take); left != size || err != nil || len(list) != 0 {
			t.Errorf("of %d bytes %d are left, %v", size, left, err)
		}
	}
	left, err := decode(append(raw, raw[:9]...), make(map[uint64]bool), take)
	want := Socket{Cookie: 4, Inode: 13, Peer: 14, Netns: 15, Protocol: fact.UnixStream, Family: fact.Unix, State: fact.Established, Path: "@name", Own: true,
		How: Named, PID: 11, Exec: 12, Born: 1, Used: 2, Uses: 3, Opened: 5, Asked: [3]uint64{6, 7, 8}, Last: 9, Transport: 10}
	if err != nil || left != 9 || len(list) != 1 || list[0] != want {
		t.Errorf("got %+v, %v", list, err)
	}
}

// The slow path sees the same, by inode.
func TestByInode(t *testing.T) {
	need.Root(t)
	var s *Sockets
	inTracefs(t, func() (err error) {
		s, err = Open(Options{withoutHooks: true})
		return err
	})
	defer s.Close()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := accept(t, l)
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer (<-accepted).Close()
	mine := own(t, s)
	if !s.ByInode() || len(mine) != 2 {
		t.Fatalf("got %+v", mine)
	}
	for _, one := range mine {
		names := functions(t, s, one.Opened)
		by := map[How]string{Connected: "TestByInode", Accepted: "accept"}[one.How]
		if one.Inode == 0 || by == "" || !slices.ContainsFunc(names, func(f string) bool { return strings.HasPrefix(f, here+by) }) {
			t.Errorf("%+v opened in %q", one, names)
		}
	}
	s.Forget(mine)
	if left := own(t, s); len(left) > 0 {
		t.Errorf("still there: %+v", left)
	}
}

func BenchmarkConnect(b *testing.B) {
	need.Root(b)
	for _, with := range []string{"without", "with"} {
		b.Run(with, func(b *testing.B) {
			if with == "with" {
				s, err := Open(Options{})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
			}
			l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
			if err != nil {
				b.Fatal(err)
			}
			accepted := accept(b, l)
			for b.Loop() {
				c, err := new(net.Dialer).DialContext(context.Background(), "unix", l.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				(<-accepted).Close()
				c.Close()
			}
			l.Close()
		})
	}
}

func TestErrorsSayWhatHelps(t *testing.T) {
	for _, c := range []struct {
		version uint32
		held    bool
		err     error
		is      error
	}{
		{5 << 16, true, errors.New("x"), errors.ErrUnsupported},
		{6 << 16, true, os.ErrNotExist, errors.ErrUnsupported},
		{6 << 16, true, os.ErrPermission, nil},
		{6 << 16, true, unix.EPERM, fs.ErrPermission},
		{6 << 16, true, fmt.Errorf("map %w", ebpf.ErrNotSupported), errors.ErrUnsupported},
		{6 << 16, false, unix.EPERM, fs.ErrPermission},
		{6 << 16, false, fmt.Errorf("map %w", ebpf.ErrNotSupported), fs.ErrPermission},
	} {
		got := explainOn(c.version, c.held, c.err)
		if c.is != nil && !errors.Is(got, c.is) || Blind(got).Source != "openers" || !strings.HasPrefix(got.Error(), "who opens sockets, by BPF: ") {
			t.Errorf("%d %v: %v", c.version, c.err, got)
		}
	}
}
