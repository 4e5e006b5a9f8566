package pidfd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
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

// childMode makes the test binary hold its descriptors, or borrow from its
// parent the one that the environment names.
const childMode = "LIFELINE_TEST_PIDFD_CHILD"

func TestMain(m *testing.M) {
	switch mode := os.Getenv(childMode); mode {
	case "":
		leakcheck.Main(m)
	case "hold":
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
	default:
		s := make([]fact.Socket, 1)
		s[0].Protocol = fact.TCP
		s[0].Owners = []fact.Owner{{PID: int32(os.Getppid())}}
		fmt.Sscan(mode, &s[0].Owners[0].FD, &s[0].Inode)
		blind := Options(context.Background(), s)
		fmt.Printf("%v %+v\n", s[0].Options.OK, blind)
	}
}

// tcp opens a TCP socket with options of its own and returns it as a fact.
func tcp(t testing.TB) (fact.Socket, bound.Options) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	for _, option := range [...]struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 11},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 12},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 13},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 14},
	} {
		if err := unix.SetsockoptInt(fd, option.level, option.name, option.value); err != nil {
			t.Fatal(err)
		}
	}
	want := bound.Options{KeepAlive: true, Idle: 11 * time.Second, Interval: 12 * time.Second, Count: 13, UserTimeout: 14 * time.Millisecond}
	return socketFact(t, fd), want
}

func socketFact(t testing.TB, fd int) fact.Socket {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		t.Fatal(err)
	}
	return fact.Socket{
		Protocol: fact.TCP,
		Inode:    uint32(stat.Ino),
		Owners:   []fact.Owner{{PID: int32(os.Getpid()), FD: int32(fd)}},
	}
}

// supported needs the system calls.
func supported(t testing.TB) {
	t.Helper()
	s, _ := tcp(t)
	p, err := unix.PidfdOpen(os.Getpid(), 0)
	if err == nil {
		defer unix.Close(p)
		var fd int
		if fd, err = unix.PidfdGetfd(p, int(s.Owners[0].FD), 0); err == nil {
			unix.Close(fd)
		}
	}
	need.Feature(t, "pidfd_getfd", err)
}

func TestOptions(t *testing.T) {
	supported(t)
	mine, want := tcp(t)
	udp, known, unowned, other, closed, exited := mine, mine, mine, mine, mine, mine
	udp.Protocol = fact.UDP
	known.Options = fact.Seen(bound.Options{Count: 1})
	unowned.Owners = nil
	other.Inode++
	closed.Owners = []fact.Owner{{PID: int32(os.Getpid()), FD: 1 << 19}}
	exited.Owners = []fact.Owner{{PID: deadPID(t), FD: 3}}
	file := mine
	file.Owners = []fact.Owner{{PID: int32(os.Getpid()), FD: 1}}
	second := mine
	second.Owners = []fact.Owner{exited.Owners[0], closed.Owners[0], mine.Owners[0]}

	sockets := []fact.Socket{second, mine, udp, known, unowned, other, closed, exited, file}
	if blind := Options(t.Context(), sockets); len(blind) > 0 {
		t.Errorf("blind: %+v", blind)
	}
	for i, want := range []fact.Known[bound.Options]{
		fact.Seen(want), fact.Seen(want), {}, known.Options, {}, {}, {}, {}, {},
	} {
		if got := sockets[i].Options; got != want {
			t.Errorf("socket %d: %+v, want %+v", i, got, want)
		}
	}
}

// deadPID returns the number of a process that has ended.
func deadPID(t *testing.T) int32 {
	t.Helper()
	cmd := exec.Command(need.Program(t, "true"))
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return int32(cmd.Process.Pid)
}

// TestOptionsOfChild borrows from another process of the same user.
func TestOptionsOfChild(t *testing.T) {
	supported(t)
	mine, want := tcp(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), childMode+"=hold")
	again, err := unix.FcntlInt(uintptr(mine.Owners[0].FD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(again), "tcp") // closes its descriptor when nobody holds it any more
	defer file.Close()
	cmd.ExtraFiles = []*os.File{file}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); cmd.Wait() }()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the child said %q, %v", line, err)
	}
	mine.Owners = []fact.Owner{{PID: int32(cmd.Process.Pid), FD: 3}}
	sockets := []fact.Socket{mine}
	if blind := Options(t.Context(), sockets); len(blind) > 0 {
		t.Errorf("blind: %+v", blind)
	}
	if got := sockets[0].Options; got != fact.Seen(want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestRights has a child of another user borrow from this process.
func TestRights(t *testing.T) {
	need.Root(t)
	supported(t)
	mine, _ := tcp(t)
	for _, c := range []struct {
		name string
		caps []uintptr
		want string
	}{
		{"none", nil, "false [{Source:options Error:may not borrow TCP sockets from their processes (sockets: 1, processes: 1) Needs:CAP_SYS_PTRACE}]"},
		{"ptrace", []uintptr{unix.CAP_SYS_PTRACE}, "true []"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", childMode, mine.Owners[0].FD, mine.Inode))
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: c.caps}
			out, err := cmd.CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
				t.Errorf("%v: %s, want %s", err, got, c.want)
			}
		})
	}
}

func TestOptionsEnds(t *testing.T) {
	supported(t)
	mine, _ := tcp(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	sockets := slices.Repeat([]fact.Socket{mine}, 3)
	blind := Options(ctx, sockets)
	if len(blind) != 1 || !strings.Contains(blind[0].Error, "(sockets left: 3): context canceled") {
		t.Errorf("blind: %+v", blind)
	}
	if sockets[0].Options.OK {
		t.Error("went on after the end")
	}
}

func TestBlind(t *testing.T) {
	for err, needs := range map[error]string{
		unix.ENOSYS:     "Linux 5.6",
		unix.EMFILE:     "a higher limit of open files",
		unix.EOPNOTSUPP: "",
	} {
		var b blindness
		s, _ := tcp(t)
		b.add(loan{socket: &s}, err)
		b.add(loan{socket: &s}, errOther)
		got := b.report()
		if len(got) != 1 || got[0].Needs != needs || !strings.Contains(got[0].Error, "(sockets: 1): "+err.Error()) {
			t.Errorf("%v: %+v", err, got)
		}
	}
	var b blindness
	if got := b.report(); len(got) > 0 {
		t.Errorf("nothing failed: %+v", got)
	}
}

// TestOptionsWithinLimit has many more sockets than free descriptors.
func TestOptionsWithinLimit(t *testing.T) {
	supported(t)
	mine, want := tcp(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := unix.Rlimit{Cur: min(64, limit.Max), Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	sockets := slices.Repeat([]fact.Socket{mine}, 10_000)
	if blind := Options(t.Context(), sockets); len(blind) > 0 {
		t.Errorf("blind: %+v", blind)
	}
	for i := range sockets {
		if sockets[i].Options != fact.Seen(want) {
			t.Fatalf("socket %d: %+v, want %+v", i, sockets[i].Options, want)
		}
	}
}

func BenchmarkOptions(b *testing.B) {
	supported(b)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	var sockets []fact.Socket
	for range min(10_000, limit.Cur-100) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		defer unix.Close(fd)
		sockets = append(sockets, socketFact(b, fd))
	}
	for b.Loop() {
		for i := range sockets {
			sockets[i].Options = fact.Known[bound.Options]{}
		}
		if blind := Options(b.Context(), sockets); len(blind) > 0 {
			b.Fatalf("blind: %+v", blind)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(sockets)), "ns/socket")
	if !sockets[len(sockets)-1].Options.OK {
		b.Fatal(errors.New("the last socket has no options"))
	}
}
