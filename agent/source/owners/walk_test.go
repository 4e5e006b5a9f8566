package owners

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

// childMode makes the test binary do something else than test, and end.
const childMode = "LIFELINE_TEST_OWNERS_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childMode) {
	case "":
		leakcheck.Main(m)
	case "walk":
		json.NewEncoder(os.Stdout).Encode(walkOnce())
	case "hold":
		hold(false)
	case "hold alone":
		hold(true)
	case "wait":
		os.Stdin.Read(make([]byte, 1))
	}
}

// sight is what one walk saw.
type sight struct {
	PID   int
	Found []fact.Owned
	Blind []fact.Blind
}

func walkOnce() sight {
	found, blind := Walk(nil)
	return sight{os.Getpid(), found, blind}
}

// command runs this test binary in a mode. Not by os.Args[0]: its directory
// belongs to one user alone.
func command(t testing.TB, mode string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), childMode+"="+mode)
	cmd.Stderr = os.Stderr
	return cmd
}

// walkAs walks in a child with other rights.
func walkAs(t *testing.T, attr *syscall.SysProcAttr, files ...*os.File) sight {
	t.Helper()
	cmd := command(t, "walk")
	cmd.SysProcAttr, cmd.ExtraFiles = attr, files
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

func (s sight) has(pid, fd int) bool {
	return slices.ContainsFunc(s.Found, func(o fact.Owned) bool { return int(o.PID) == pid && int(o.FD) == fd })
}

func udp(t testing.TB) *os.File {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "udp")
	t.Cleanup(func() { file.Close() })
	return file
}

func TestWalk(t *testing.T) {
	fd := int(udp(t).Fd())
	first := fact.Owned{Owner: fact.Owner{PID: 1, FD: 2}, Inode: 3}
	all, blind := Walk([]fact.Owned{first})
	for _, b := range blind {
		if os.Geteuid() == 0 && (b.Needs == Capabilities || !strings.Contains(b.Error, "may not")) {
			t.Errorf("root is blind: %+v", b)
		}
	}
	if all[0] != first {
		t.Errorf("what was in dst became %+v", all[0])
	}
	if !(sight{Found: all}).has(os.Getpid(), fd) {
		t.Errorf("descriptor %d of this process is not among %d", fd, len(all))
	}
}

// TestRights holds Capabilities to be neither too few nor too many.
func TestRights(t *testing.T) {
	need.Root(t)
	roots := int(udp(t).Fd())
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	for _, c := range []struct {
		name string
		caps []uintptr
		sees bool
	}{
		{"none", nil, false},
		{"ptrace", []uintptr{unix.CAP_SYS_PTRACE}, false},
		{"search", []uintptr{unix.CAP_DAC_READ_SEARCH}, false},
		{"both", []uintptr{unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := walkAs(t, &syscall.SysProcAttr{Credential: nobody, AmbientCaps: c.caps}, udp(t))
			if !s.has(s.PID, 3) {
				t.Error("does not see its own socket")
			}
			if got := s.has(os.Getpid(), roots); got != c.sees {
				t.Errorf("sees the socket of another user: %v, want %v", got, c.sees)
			}
			// Some machines shield a process from root too.
			lacks := slices.ContainsFunc(s.Blind, func(b fact.Blind) bool { return b.Needs == Capabilities })
			if lacks == c.sees {
				t.Errorf("blind: %+v", s.Blind)
			}
			for _, b := range s.Blind {
				if b.Source != "owners" || b.Needs == "" || !strings.Contains(b.Error, "may not see the files of") {
					t.Errorf("blind: %+v", b)
				}
			}
		})
	}
}

// TestWalkExiting walks while processes come and go: none of them is a blind
// spot.
func TestWalkExiting(t *testing.T) {
	need.Root(t)
	program := need.Program(t, "true")
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := exec.Command(program).Run(); err != nil {
				done <- err
				return
			}
		}
	}()
	fd := int(udp(t).Fd())
	all, before := Walk(nil)
	for start := time.Now(); time.Since(start) < time.Second; {
		var blind []fact.Blind
		all, blind = Walk(all[:0])
		if !slices.Equal(blind, before) {
			t.Fatalf("blind: %+v, and %+v before", blind, before)
		}
		if !(sight{Found: all}).has(os.Getpid(), fd) {
			t.Fatal("does not see its own socket")
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestWalkHidden mounts a /proc of its own that hides other users' processes.
func TestWalkHidden(t *testing.T) {
	need.Root(t)
	sh, mount, setpriv := need.Program(t, "sh"), need.Program(t, "mount"), need.Program(t, "setpriv")
	cmd := exec.CommandContext(t.Context(), sh, "-ec",
		mount+" --make-private /proc && "+mount+" -t proc -o hidepid=2 proc /proc && exec "+setpriv+" --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all /proc/self/fd/3")
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	cmd.Env = append(os.Environ(), childMode+"=walk")
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{exe}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var s sight
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(s.Blind, func(b fact.Blind) bool {
		return strings.Contains(b.Error, "hidepid") && b.Needs == "CAP_SYS_PTRACE"
	}) {
		t.Errorf("blind: %+v, want hidepid named", s.Blind)
	}
}

func BenchmarkWalk(b *testing.B) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	for i := range min(20_000, limit.Cur-100) {
		fd, err := unix.Socket([]int{unix.AF_INET, unix.AF_UNIX}[i%2], unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		defer unix.Close(fd)
	}
	var all []fact.Owned
	for b.Loop() {
		all, _ = Walk(all[:0])
	}
	b.ReportMetric(float64(len(all)), "sockets")
}
