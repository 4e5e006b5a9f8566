package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// named makes a namespace that only its name keeps alive, bound where the test
// wants it.
func named(t testing.TB, path string) fact.Namespace {
	t.Helper()
	need.Root(t)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var ns fact.Namespace
	err := apart(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if ns.Inode, err = inode("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.Remove(path)); err != nil {
			t.Error(err)
		}
	})
	ns.Name = filepath.Base(path)
	return ns
}

// peopled starts a process in a namespace of its own. stop ends it and waits.
func peopled(t testing.TB) (ns fact.Namespace, stop func()) {
	t.Helper()
	need.Root(t)
	cmd := exec.Command(need.Program(t, "sleep"), "600")
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	started := make(chan error)
	ended := make(chan struct{})
	end := make(chan struct{})
	go func() { // the thread that starts it must live on, or Pdeathsig comes early
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			<-end
			cmd.Process.Kill()
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			close(end)
			<-ended
		}
	}
	t.Cleanup(stop)
	ns.PID = int32(cmd.Process.Pid)
	var err error
	if ns.Inode, err = inode(fmt.Sprintf("/proc/%d/ns/net", ns.PID)); err != nil {
		t.Fatal(err)
	}
	return ns, stop
}

// asNobody runs fn on a thread that has no rights.
func asNobody(t testing.TB, fn func() error) error {
	t.Helper()
	need.Root(t)
	return apart(func() error {
		const nobody = 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			return errno
		}
		return fn()
	})
}

func find(list []fact.Namespace, inode uint32) *fact.Namespace {
	return (&fact.Machine{Namespaces: list}).Namespace(inode)
}

func TestList(t *testing.T) {
	byName := named(t, filepath.Join(t.TempDir(), "with space"))
	byProcess, _ := peopled(t)
	own, err := inode("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}

	list, blind := List()
	if _, err := inode("/proc/1/ns/net"); err == nil && len(blind) != 0 {
		t.Errorf("root is blind: %+v", blind)
	} // else this root is one of a sandbox, and right to say that it is blind
	if len(list) == 0 || !list[0].Own || list[0].Inode != own || list[0].PID == 0 {
		t.Fatalf("the own namespace %d does not come first: %+v", own, list)
	}
	if ns := find(list, byName.Inode); ns == nil || ns.Name != "with space" || ns.PID != 0 || ns.Own {
		t.Errorf("found %+v, want %+v", ns, byName)
	}
	if ns := find(list, byProcess.Inode); ns == nil || ns.Name != "" || ns.PID != byProcess.PID || ns.Own {
		t.Errorf("found %+v, want %+v", ns, byProcess)
	}
	seen := make(map[uint32]bool)
	for _, ns := range list {
		if seen[ns.Inode] {
			t.Errorf("%d came twice", ns.Inode)
		}
		seen[ns.Inode] = true
	}
}

func TestListWithoutRights(t *testing.T) {
	byName := named(t, filepath.Join(t.TempDir(), "visible"))
	var list []fact.Namespace
	var blind []fact.Blind
	err := asNobody(t, func() error {
		list, blind = List()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 || !list[0].Own || find(list, byName.Inode) == nil {
		t.Errorf("found %+v, want at least the own one and %+v", list, byName)
	}
	if len(blind) != 1 || blind[0].Needs != "CAP_SYS_PTRACE" || !strings.Contains(blind[0].Error, "permission denied") {
		t.Errorf("blind: %+v", blind)
	}
}

func TestDo(t *testing.T) {
	byName := named(t, filepath.Join(t.TempDir(), "name"))
	byProcess, _ := peopled(t)
	own, err := inode("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	mine := errors.New("mine")
	for range 20 {
		for _, ns := range []fact.Namespace{byName, byProcess, {Inode: own, Own: true}} {
			ran := false
			err := Do(ns, func() error {
				ran = true
				if here, err := inode("/proc/thread-self/ns/net"); err != nil || here != ns.Inode {
					return fmt.Errorf("in %d (%v), want %d", here, err, ns.Inode)
				}
				// From inside one namespace, the way to another, and back.
				return Do(fact.Namespace{Inode: own, PID: int32(os.Getpid())}, func() error {
					if here, err := inode("/proc/thread-self/ns/net"); err != nil || here != own {
						return fmt.Errorf("in %d (%v), want %d", here, err, own)
					}
					return mine
				})
			})
			if !ran || err != mine {
				t.Errorf("ran %v, error %v, want the function's own", ran, err)
			}
		}
		if here, err := inode("/proc/self/ns/net"); err != nil || here != own {
			t.Fatalf("this process is in %d now (%v), want %d", here, err, own)
		}
	}
}

func TestDoInTheOwnNamespaceStaysOnTheThread(t *testing.T) {
	own, err := inode("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := 0
	if err := Do(fact.Namespace{Inode: own, Own: true}, func() error { thread = unix.Gettid(); return nil }); err != nil {
		t.Fatal(err)
	}
	if thread != unix.Gettid() {
		t.Errorf("ran on thread %d, not on %d", thread, unix.Gettid())
	}
}

func TestDoInVanishedNamespaces(t *testing.T) {
	never := func() error { t.Error("the function ran"); return nil }
	exited, stop := peopled(t)
	reused, _ := peopled(t)
	stop()
	reused.Inode = exited.Inode // its process is in another namespace
	unnamed := fact.Namespace{Inode: 1, Name: "unnamed"}
	for _, ns := range []fact.Namespace{exited, reused, unnamed} {
		err := Do(ns, never)
		var entering *Error
		if !errors.Is(err, ErrGone) || !errors.As(err, &entering) || entering.Namespace.PID != ns.PID {
			t.Errorf("%+v: %v", ns, err)
		}
		if blind := Blindness("sockets", err); blind.Source != "sockets" || blind.Needs != "" || !strings.Contains(blind.Error, "it is gone") {
			t.Errorf("blind: %+v", blind)
		}
	}
}

func TestDoWithoutRights(t *testing.T) {
	path := filepath.Join(t.TempDir(), "name")
	byName := named(t, path)
	byProcess, _ := peopled(t)
	for ns, enter := range map[*fact.Namespace]func() error{
		&byProcess: func() error { return Do(byProcess, func() error { t.Error("the function ran"); return nil }) },
		&byName: func() error { // what Do calls, on this thread: only it has no rights
			if _, err := openNow(path); err != nil {
				return &Error{byName, err}
			}
			return nil
		},
	} {
		err := asNobody(t, enter)
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%+v: got %v, want that it is not permitted", ns, err)
		}
		if blind := Blindness("sockets", err); blind.Needs != "CAP_SYS_ADMIN and CAP_SYS_PTRACE" {
			t.Errorf("blind: %+v", blind)
		}
	}
}

// TestDoOutlivesGoexit: a function that ends its goroutine, as t.FailNow does,
// must not leave its caller waiting.
func TestDoOutlivesGoexit(t *testing.T) {
	ns, _ := peopled(t)
	err := Do(ns, func() error { runtime.Goexit(); return nil })
	if err == nil {
		t.Error("no error")
	}
}

func TestSysctl(t *testing.T) {
	ns := named(t, filepath.Join(t.TempDir(), "name"))
	before, err := Sysctl()
	if err != nil {
		t.Fatal(err)
	}
	want := bound.Sysctl{
		KeepAliveTime: 11 * time.Second, KeepAliveInterval: 12 * time.Second, KeepAliveProbes: 13,
		Retries2: -1, SynRetries: 5, SynLinearTimeouts: -1, SynAckRetries: 7,
	}
	values := map[string]string{
		"tcp_keepalive_time": "11", "tcp_keepalive_intvl": "12", "tcp_keepalive_probes": "13",
		"tcp_retries2": "0", "tcp_syn_retries": "5", "tcp_syn_linear_timeouts": "0", "tcp_synack_retries": "7", "tcp_rto_max_ms": "9000",
	}
	var got bound.Sysctl
	err = Do(ns, func() error {
		for name, value := range values {
			err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0)
			switch {
			case errors.Is(err, fs.ErrNotExist): // an older kernel
			case err != nil:
				return err
			case name == "tcp_rto_max_ms":
				want.RTOMax = 9 * time.Second
			}
		}
		var err error
		got, err = Sysctl()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if after, err := Sysctl(); err != nil || after != before || after == got {
		t.Errorf("the own namespace: %+v, then %+v (%v)", before, after, err)
	}
}

func TestMissingSetting(t *testing.T) {
	var r settings
	if got := r.readIfAny("tcp_of_the_future", -1); got != -1 || r.err != nil {
		t.Errorf("got %d, error %v", got, r.err)
	}
	r.read("tcp_of_the_future")
	if !errors.Is(r.err, fs.ErrNotExist) {
		t.Errorf("error %v", r.err)
	}
	if got := r.readIfAny("tcp_of_the_future", -1); got == -1 || r.err == nil {
		t.Errorf("got %d, and the first error became %v", got, r.err)
	}
}

func TestUnread(t *testing.T) {
	for _, test := range []struct {
		blind int
		why   error
		first bool
		want  string
		needs string
	}{
		{0, nil, true, "", ""},
		{7, unix.EACCES, true, "the namespace of 7 of 9 processes: permission denied", "CAP_SYS_PTRACE"},
		{7, unix.EACCES, false, "the namespace of 7 of 9 processes: permission denied", "CAP_SYS_PTRACE"},
		{1, nil, true, "the namespace of 1 of 9 processes: the kernel calls it something unknown", ""},
		{0, nil, false, "processes of others are hidden: /proc is mounted with hidepid", "CAP_SYS_PTRACE"},
	} {
		got := fact.Blind{}
		if blind := unread(9, test.blind, test.why, test.first, "CAP_SYS_PTRACE"); blind != nil {
			got = *blind
		}
		if got.Error != test.want || got.Needs != test.needs {
			t.Errorf("%+v: got %+v", test, got)
		}
	}
}

func BenchmarkList(b *testing.B) {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	b.ReportAllocs()
	for b.Loop() {
		List()
	}
	b.ReportMetric(float64(len(processes)), "processes")
}

func BenchmarkDo(b *testing.B) {
	ns, _ := peopled(b)
	for b.Loop() {
		if err := Do(ns, func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
