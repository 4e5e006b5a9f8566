package bpf

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

// childMode makes the test binary look once, say what it saw, and end.
const childMode = "LIFELINE_TEST_BPF_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childMode) != "" {
		json.NewEncoder(os.Stdout).Encode(look())
		return
	}
	leakcheck.Main(m)
}

// sight is what a child saw.
type sight struct {
	PID         int
	Own         []fact.Owned // of the child itself
	Error       string
	Needs       string
	Permission  bool
	Unsupported bool
}

func look() sight {
	s := sight{PID: os.Getpid()}
	all, err := readOnce()
	for _, o := range all {
		if int(o.PID) == s.PID {
			s.Own = append(s.Own, o)
		}
	}
	if err != nil {
		s.Error = err.Error()
		s.Permission = errors.Is(err, fs.ErrPermission)
		s.Unsupported = errors.Is(err, errors.ErrUnsupported)
	}
	var e *Error
	if errors.As(err, &e) {
		s.Needs = e.Needs
	}
	return s
}

func readOnce() ([]fact.Owned, error) {
	o, err := Open()
	if err != nil {
		return nil, err
	}
	defer o.Close()
	return o.Read(nil)
}

// child looks with other rights or from another namespace, and with one UDP
// socket as descriptor 3.
func child(t *testing.T, attr *syscall.SysProcAttr) sight {
	t.Helper()
	udp := os.NewFile(uintptr(socket(t, unix.AF_INET, unix.SOCK_DGRAM)), "udp")
	defer udp.Close()
	// Not os.Args[0]: its directory belongs to root alone.
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), childMode+"=1")
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{udp}
	cmd.SysProcAttr = attr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var s sight
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	return s
}

func open(t testing.TB) *Owners {
	t.Helper()
	need.Root(t)
	o, err := Open()
	need.Feature(t, "BPF iterators over files", err)
	t.Cleanup(func() {
		for range 2 { // the second must do no harm
			if err := o.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return o
}

func socket(t testing.TB, family, kind int) int {
	t.Helper()
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func find(t *testing.T, all []fact.Owned, fd int) fact.Owned {
	t.Helper()
	i := slices.IndexFunc(all, func(o fact.Owned) bool { return int(o.PID) == os.Getpid() && int(o.FD) == fd })
	if i < 0 {
		t.Fatalf("descriptor %d of this process is not among %d", fd, len(all))
	}
	return all[i]
}

func TestReadOptions(t *testing.T) {
	o := open(t)
	tcp := socket(t, unix.AF_INET6, unix.SOCK_STREAM)
	defer unix.Close(tcp)
	raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(raw)

	all, err := o.Read(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := find(t, all, tcp).Options; got != fact.Seen(bound.Options{}) {
		t.Errorf("untouched socket: %+v, want all zero", got)
	}
	if got := find(t, all, raw).Options; got.OK {
		t.Errorf("a raw socket of protocol 6 has options: %+v", got)
	}

	want := bound.Options{KeepAlive: true, Idle: 32767 * time.Second, Interval: time.Second, Count: 127, UserTimeout: 24 * time.Hour}
	for _, option := range [...]struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 32767},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 127},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 24 * 3600 * 1000},
	} {
		if err := unix.SetsockoptInt(tcp, option.level, option.name, option.value); err != nil {
			t.Fatal(err)
		}
	}
	all, err = o.Read(all[:0])
	if err != nil {
		t.Fatal(err)
	}
	if got := find(t, all, tcp).Options; got != fact.Seen(want) {
		t.Errorf("options: %+v, want %+v", got, want)
	}
}

func TestReadAppends(t *testing.T) {
	o := open(t)
	first := fact.Owned{Owner: fact.Owner{PID: 1, FD: 2}, Inode: 3}
	all, err := o.Read([]fact.Owned{first})
	if err != nil {
		t.Fatal(err)
	}
	if all[0] != first {
		t.Errorf("what was in dst became %+v", all[0])
	}
	if !slices.IsSortedFunc(all[1:], compare) {
		t.Error("not sorted by PID and descriptor")
	}
	var stat unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &stat); err != nil {
		t.Fatal(err)
	}
	tcp := socket(t, unix.AF_INET, unix.SOCK_STREAM)
	defer unix.Close(tcp)
	all, err = o.Read(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := find(t, all, tcp).Netns; got != uint32(stat.Ino) {
		t.Errorf("network namespace %d, want %d", got, stat.Ino)
	}
}

// TestReadSplits has more sockets than the kernel hands over at once.
func TestReadSplits(t *testing.T) {
	o := open(t)
	const sockets = 2*chunk/32 + 7
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur < sockets+100 {
		need.Feature(t, "2,200 files", errors.New("the limit of open files is lower"))
	}
	want := make(map[int32]bool)
	for range sockets {
		fd := socket(t, unix.AF_UNIX, unix.SOCK_DGRAM)
		defer unix.Close(fd)
		want[int32(fd)] = true
	}
	all, err := o.Read(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range all {
		if int(got.PID) == os.Getpid() {
			delete(want, got.FD)
		}
	}
	if len(want) > 0 {
		t.Errorf("%d of %d sockets were not seen", len(want), sockets)
	}
}

// TestRights holds Capabilities to be neither too few nor too many.
func TestRights(t *testing.T) {
	open(t)
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	for _, c := range []struct {
		name string
		caps []uintptr
		sees bool
	}{
		{"none", nil, false},
		{"bpf", []uintptr{unix.CAP_BPF}, false},
		{"perfmon", []uintptr{unix.CAP_PERFMON}, false},
		{"both", []uintptr{unix.CAP_BPF, unix.CAP_PERFMON}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := child(t, &syscall.SysProcAttr{Credential: nobody, AmbientCaps: c.caps})
			if c.sees {
				if s.Error != "" || len(s.Own) != 1 || s.Own[0].FD != 3 {
					t.Errorf("saw %+v", s)
				}
				return
			}
			if !s.Permission || s.Unsupported || s.Needs != Capabilities {
				t.Errorf("saw %+v, want a permission error that names the capabilities", s)
			}
		})
	}
}

// TestNestedPIDs reads from a PID namespace of its own, as in a container.
func TestNestedPIDs(t *testing.T) {
	open(t)
	s := child(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID})
	if s.Error != "" || s.PID != 1 || len(s.Own) != 1 || s.Own[0].PID != 1 || s.Own[0].FD != 3 {
		t.Errorf("saw %+v, want descriptor 3 of process 1", s)
	}
}

func TestErrorText(t *testing.T) {
	err := explain(unix.EPERM)
	if !errors.Is(err, fs.ErrPermission) || !strings.HasPrefix(err.Error(), "owners by BPF: ") || err.Needs == "" {
		t.Errorf("EPERM becomes %q, needs %q", err, err.Needs)
	}
	if err := explain(unix.EACCES); errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("EACCES becomes %q", err)
	}
}

func BenchmarkOpen(b *testing.B) {
	open(b)
	for b.Loop() {
		o, err := Open()
		if err != nil {
			b.Fatal(err)
		}
		o.Close()
	}
}

func BenchmarkRead(b *testing.B) {
	o := open(b)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	for i := range min(20_000, limit.Cur-100) {
		fd := socket(b, []int{unix.AF_INET, unix.AF_UNIX}[i%2], unix.SOCK_STREAM)
		defer unix.Close(fd)
	}
	var all []fact.Owned
	var err error
	for b.Loop() {
		if all, err = o.Read(all[:0]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(all)), "sockets")
}
