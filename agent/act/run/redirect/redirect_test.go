//go:build linux

package redirect

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestAddress(t *testing.T) {
	for _, text := range []string{"10.0.0.53:53", "[fd00::53]:53", "[::ffff:10.0.0.53]:53"} {
		ap := netip.MustParseAddrPort(text)
		want := address{netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), ap.Addr().Is6()}
		b := make([]byte, unix.SizeofSockaddrInet6)
		if want.inet6 {
			address{ap, true}.put(b)
		} else {
			want.put(b)
		}
		got, ok := parseAddress(b)
		if !ok || got != want {
			t.Errorf("%s becomes %v %v", text, got, ok)
		}
	}
}

func FuzzAddress(f *testing.F) {
	f.Add([]byte{2, 0, 0, 53, 10, 0, 0, 53, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(append([]byte{10, 0, 0, 53}, make([]byte, 24)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := parseAddress(b)
		if ok && (!a.IsValid() || a.Addr().Zone() != "") {
			t.Errorf("%v of %v", a, b)
		}
	})
}

// This test's own code is its own; that of a library that is mapped is not.
func TestBelongs(t *testing.T) {
	own, err := belongs(os.Getpid(), uint64(reflect.ValueOf(TestBelongs).Pointer()))
	if err != nil || !own {
		t.Errorf("own code: %v %v", own, err)
	}
	self, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	library, err := unix.Mmap(int(self.Fd()), 0, 1, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(library) }()
	if own, err := belongs(os.Getpid(), uint64(uintptr(unsafe.Pointer(&library[0])))); err != nil || own {
		t.Errorf("another file's: %v %v", own, err)
	}
	page, err := unix.Mmap(-1, 0, 1, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(page) }()
	if own, err := belongs(os.Getpid(), uint64(uintptr(unsafe.Pointer(&page[0])))); err != nil || !own {
		t.Errorf("no file's: %v %v", own, err)
	}
	if _, err := belongs(os.Getpid(), 16); err == nil {
		t.Error("code that is nowhere belongs somewhere")
	}
}

func FuzzMapping(f *testing.F) {
	f.Add([]byte("00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/dbus-daemon\n"), uint64(0x400001))
	f.Add([]byte("7f-80 r-xp 0 0:0 0\nff-"), uint64(0x7f))
	f.Fuzz(func(t *testing.T, maps []byte, at uint64) {
		if found, ok := mapping(maps, at); !ok && found != (file{}) {
			t.Errorf("%v", found)
		}
		entry(maps)
	})
}

// musl's array of nameservers is known by all of its bytes.
func TestIsMusl(t *testing.T) {
	servers := []netip.Addr{netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("fd00::53")}
	array := func(servers []netip.Addr, inet6 bool) []byte {
		b := make([]byte, muslServers*muslSize)
		for i, s := range servers {
			address{netip.AddrPortFrom(s, 53), inet6}.put(b[i*muslSize : (i+1)*muslSize])
		}
		return b
	}
	mixed := array(servers, true)
	binary.NativeEndian.PutUint32(mixed[muslSize+24:], 3) // a scope
	if !isMusl(mixed, servers, true) || !isMusl(array(servers[:1], false), servers[:1], false) {
		t.Error("musl's array is not known")
	}
	if isMusl(array(servers, true), servers[:1], true) || isMusl(array(servers[:1], true), servers, true) {
		t.Error("an array of other servers is musl's")
	}
	if isMusl(array(servers[:1], false), servers, false) {
		t.Error("IPv6 servers are in an IPv4 array")
	}
	for i := range array(servers[:1], false) {
		b := array(servers[:1], false)
		b[i]++
		if isMusl(b, servers[:1], false) {
			t.Errorf("byte %d does not matter", i)
		}
	}
}

// A new resolv.conf counts soon, and none at all means loopback.
func TestServers(t *testing.T) {
	s := servers{path: filepath.Join(t.TempDir(), "resolv.conf")}
	if !s.has(netip.MustParseAddr("127.0.0.1")) || !s.has(netip.IPv6Loopback()) {
		t.Error("without a file it is not loopback")
	}
	if err := os.WriteFile(s.path, []byte("nameserver 10.0.0.53\nnameserver fe80::1%eth0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.looked = s.looked.Add(-2 * lookAgain)
	if !s.has(netip.MustParseAddr("10.0.0.53")) || !s.has(netip.MustParseAddr("fe80::1")) || s.has(netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("the servers are %v", s.list())
	}
}

// Calls that were not answered when a process died are found in the journal.
func TestJournal(t *testing.T) {
	memory := make([]uint64, JournalSize/8)
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(&memory[0])), JournalSize)
	NewJournal(bytes).slots[3].ID = 7
	if NewJournal(bytes).slots[3].ID != 7 {
		t.Error("a call is lost")
	}
	var s slots
	for i := range mostSlow {
		if s.take() != i {
			t.Fatalf("slot %d is not free", i)
		}
	}
	if s.take() != -1 {
		t.Error("there is a slot too many")
	}
	s.free(5)
	if s.take() != 5 {
		t.Error("what was freed is not")
	}
}

// Who asks again within a second is not looked at again, and forgotten after.
func TestPlaces(t *testing.T) {
	var p places
	ip := uint64(reflect.ValueOf(TestPlaces).Pointer())
	c, err := p.of(os.Getpid(), ip)
	if err != nil || !c.own || c.program == "" {
		t.Errorf("%+v %v", c, err)
	}
	who := caller{os.Getpid(), ip}
	p.callers[who] = recent{code{program: "remembered"}, time.Now().Add(time.Minute)}
	if c, _ := p.of(os.Getpid(), ip); c.program != "remembered" {
		t.Error("it is looked at again")
	}
	p.callers[who] = recent{code{program: "old"}, time.Now().Add(-time.Minute)}
	if c, _ := p.of(os.Getpid(), ip); c.program == "old" {
		t.Error("it is not looked at again")
	}
}

// Descriptors that cannot be borrowed are described from /proc.
func TestDescribe(t *testing.T) {
	for _, test := range []struct {
		kind, flags int
		want        descriptor
	}{
		{unix.SOCK_DGRAM, unix.SOCK_NONBLOCK, descriptor{nonblock: true}},
		{unix.SOCK_STREAM, unix.SOCK_CLOEXEC, descriptor{stream: true, closeOnExec: true}},
	} {
		fd, err := unix.Socket(unix.AF_INET, test.kind|test.flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := describe(os.Getpid(), fd); err != nil || got != test.want {
			t.Errorf("%+v %v, want %+v", got, err, test.want)
		}
		unix.Close(fd)
	}
	if _, err := describe(os.Getpid(), 0); err == nil {
		t.Error("standard input is a socket")
	}
}

func TestTally(t *testing.T) {
	var tally Tally
	tally.fail("/b", unix.ENOENT)
	tally.add("/a", Redirected)
	tally.add("/a", Redirected)
	for i := range 2 * mostCounts {
		tally.add(string(rune('c'+i)), Libc)
	}
	counts := tally.Counts()
	if len(counts) != mostCounts || counts[0] != (Count{"/a", Redirected, "", 2}) || counts[1].Error != unix.ENOENT.Error() {
		t.Errorf("%d counts, %v", len(counts), counts[:2])
	}
}
