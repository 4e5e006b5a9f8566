package procfs

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/procfs/bounded"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// child starts a program that waits for its standard input to end, and returns
// its PID. The test's end ends it.
func child(t testing.TB, set func(*exec.Cmd)) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(need.Program(t, "cat"))
	if set != nil {
		set(cmd)
	}
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
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	// It answers once it has been executed, so what is read is not the fork.
	if _, err := in.Write([]byte{'\n'}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestReadSelf(t *testing.T) {
	p, blind, err := Read(int32(os.Getpid()), Full)
	if err != nil || len(blind) != 0 {
		t.Fatalf("%v, blind to %v", err, blind)
	}
	if p.Name != filepath.Base(os.Args[0]) {
		t.Errorf("Name %q, want %q", p.Name, filepath.Base(os.Args[0]))
	}
	if !slices.Equal(p.Command, os.Args) {
		t.Errorf("Command %q, want %q", p.Command, os.Args)
	}
	if p.UID != uint32(os.Geteuid()) {
		t.Errorf("UID %d", p.UID)
	}
	if p.Started <= 0 || p.Started > time.Hour {
		t.Errorf("age %v", p.Started)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil || uint64(p.Netns) != st.Ino {
		t.Errorf("Netns %d, want %d (%v)", p.Netns, st.Ino, err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || p.Files.Value.Limit != limit.Cur {
		t.Errorf("limit %d, want %d (%v)", p.Files.Value.Limit, limit.Cur, err)
	}
	if !strings.HasPrefix(p.Cgroup, "/") {
		t.Errorf("Cgroup %q", p.Cgroup)
	}
}

// The size of /proc/PID/fd, its entries, and what the process was given agree.
func TestOpenFiles(t *testing.T) {
	const extra = 100
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd := child(t, func(c *exec.Cmd) { c.ExtraFiles = slices.Repeat([]*os.File{null}, extra) })
	entries, err := os.ReadDir(fmt.Sprint("/proc/", cmd.Process.Pid, "/fd"))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) < 3+extra { // more where the test itself was given some
		t.Fatalf("the process has %d descriptors, given %d", len(entries), 3+extra)
	}
	l := FS{}.look(Full)
	if !l.counts {
		t.Log("this kernel does not count (before 6.2)")
	}
	for _, counts := range []bool{l.counts, false} {
		l.counts = counts
		p, _, err := l.process(int32(cmd.Process.Pid))
		if n := p.Files.Value.Open; n != len(entries) || err != nil {
			t.Errorf("counted by the kernel %v: %d, %v; want %d", counts, n, err, len(entries))
		}
	}
}

func TestBriefLooksAtNoMore(t *testing.T) {
	p, _, err := Read(int32(child(t, nil).Process.Pid), Brief)
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "cat" || p.Command != nil || p.Started != 0 || p.Netns != 0 || p.Files.OK || p.Program != nil {
		t.Errorf("%+v", p)
	}
}

func TestNames(t *testing.T) {
	cat, err := os.ReadFile(need.Program(t, "cat"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"fifteen-bytes-x":                  "fifteen-bytes-x",
		"a-name-of-more-than-fifteen":      "a-name-of-more-than-fifteen",
		"with ) S 1 (parens":               "with ) S 1 (parens",
		"paren) R 1":                       "paren) R 1",
		"new\nline":                        `new\nline`,
		"\x1b]0;title\a":                   `\x1b]0;title\a`,
		"bad\xff\xfeutf":                   `bad\xff\xfeutf`,
		"日本語の名前です長い":                       "日本語の名前です長い",
		"left\u202eright":                  `left\u202eright`,
		"a-name-of-more\x1b[2Jthan-screen": `a-name-of-more\x1b[2Jthan-screen`,
	} {
		t.Run(want, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(path, cat, 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := child(t, func(c *exec.Cmd) { c.Path, c.Args = path, []string{path} })
			for _, detail := range []Detail{Brief, Full} {
				p, blind, err := Read(int32(cmd.Process.Pid), detail)
				if err != nil || blind != nil || p.Name != want {
					t.Errorf("detail %d: %q, %v, %v; want %q", detail, p.Name, blind, err, want)
				}
				if detail == Full && p.Started == 0 {
					t.Error("the name hides the start time")
				}
			}
		})
	}
}

func TestCommandLine(t *testing.T) {
	long := strings.Repeat("x", mostBytes)
	cmd := child(t, func(c *exec.Cmd) { c.Args = []string{"ca\x1bt", "-", "-"} })
	p, _, err := Read(int32(cmd.Process.Pid), Full)
	if want := []string{`ca\x1bt`, "-", "-"}; err != nil || !slices.Equal(p.Command, want) {
		t.Errorf("%q, %v; want %q", p.Command, err, want)
	}
	cmd = child(t, func(c *exec.Cmd) { c.Args = []string{"cat", "-", long} })
	p, _, err = Read(int32(cmd.Process.Pid), Full)
	if err != nil || len(p.Command) != 3 || !strings.HasSuffix(p.Command[2], "x…") {
		t.Errorf("a long one: %d arguments, %v", len(p.Command), err)
	}
}

func TestGone(t *testing.T) {
	cmd := exec.Command(need.Program(t, "true"))
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	pid := int32(cmd.Process.Pid)
	for _, detail := range []Detail{Brief, Full} {
		if _, _, err := Read(pid, detail); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), strconv.Itoa(int(pid))) {
			t.Errorf("got %v", err)
		}
		self := int32(os.Getpid())
		processes, blind := ReadAll([]int32{pid, math.MaxInt32, self, 0, -1, self}, detail)
		if len(processes) != 1 || processes[0].PID != self || len(blind) != 0 {
			t.Errorf("%+v, blind to %v", processes, blind)
		}
	}
}

// Once the directory of a process is open, a process that exits and is waited
// for in between is gone at every later read.
func TestGoneInBetween(t *testing.T) {
	cmd := exec.Command(need.Program(t, "sleep"), "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open("/proc/"+strconv.Itoa(cmd.Process.Pid), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cmd.Process.Kill()
	cmd.Wait()
	l := FS{}.look(Full)
	for _, step := range steps {
		p := fact.Process{Name: "fifteen-bytes-x"}
		err := gone(step.read(l, fd, make([]byte, mostBytes), &p))
		if !errors.Is(err, os.ErrNotExist) && step.what != "the network namespace" {
			t.Errorf("%s: %v", step.what, err)
		}
	}
}

func TestZombie(t *testing.T) {
	cmd := exec.Command(need.Program(t, "sleep"), "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	cmd.Process.Kill()
	// It is a zombie once waitid sees it, which with WNOWAIT leaves it there.
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	p, blind, err := Read(int32(cmd.Process.Pid), Full)
	if err != nil || len(blind) != 0 {
		t.Fatalf("%v, blind to %v", err, blind)
	}
	if p.Name != "sleep" || p.Command == nil || len(p.Command) != 0 || p.Netns != 0 || p.Started == 0 || p.Files.Value.Open != 0 {
		t.Errorf("%+v", p)
	}
}

// A kernel thread has a command line that is empty, and not unknown. One is
// made up, because a PID namespace has none to look at.
func TestKernelThread(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "2")
	if err := os.MkdirAll(filepath.Join(dir, "fd"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"comm": "kthreadd\n", "cmdline": "", "cgroup": "0::/\n", "limits": "Max open files            1024                 524288               files\n",
		"stat": "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 1 0 0 20 0 1 0 2 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, _, err := FS{Root: root}.Read(2, Full)
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "kthreadd" || p.Command == nil || len(p.Command) != 0 {
		t.Errorf("%s with Command %#v, want kthreadd with one that is empty and not nil", p.Name, p.Command)
	}
}

// Processes come and go all the time while all are read again and again.
func TestReadAllUnderChurn(t *testing.T) {
	path := need.Program(t, "true")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				exec.Command(path).Run()
			}
		}
	}()
	for range 30 {
		pids, err := PIDs()
		if err != nil {
			t.Fatal(err)
		}
		pids = slices.DeleteFunc(pids, func(pid int32) bool { // those of others, even of a stronger root
			_, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
			return errors.Is(err, os.ErrPermission)
		})
		slices.Reverse(pids)
		processes, blind := ReadAll(pids, Full)
		if !slices.IsSortedFunc(processes, func(a, b fact.Process) int { return int(a.PID - b.PID) }) {
			t.Fatal("not sorted")
		}
		for _, b := range blind {
			if strings.HasSuffix(b.Error, bounded.ErrHung.Error()) {
				t.Logf("starved: %+v", b) // on a busy machine anything may take a second
				continue
			}
			t.Errorf("blind to %+v", b)
		}
	}
	close(stop)
	<-stopped
}

// asNobody runs f while this process has another effective user and group, and
// with it no capabilities; the saved ids bring all back.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	need.Root(t)
	groups, err := syscall.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	defer func() {
		err := errors.Join(syscall.Setresuid(-1, 0, -1), syscall.Setresgid(-1, 0, -1), syscall.Setgroups(groups))
		if err != nil {
			panic(err) // no later test could be trusted
		}
	}()
	err = errors.Join(syscall.Setgroups(nil), syscall.Setresgid(-1, nobody, -1), syscall.Setresuid(-1, nobody, -1))
	if err != nil {
		t.Fatal(err)
	}
	f()
}

func TestOrdinaryUser(t *testing.T) {
	a, b := child(t, nil), child(t, nil)
	pids := []int32{int32(a.Process.Pid), int32(b.Process.Pid)}
	slices.Sort(pids)
	asNobody(t, func() {
		processes, blind := ReadAll(pids, Full)
		if len(processes) != 2 {
			t.Fatalf("saw %v, blind to %v", processes, blind)
		}
		for _, p := range processes {
			if p.Name != "cat" || p.UID != 0 || p.Netns != 0 || p.Files.Value.Limit == 0 || len(p.Command) != 1 || p.Started == 0 {
				t.Errorf("%+v", p)
			}
		}
		want := []fact.Blind{{
			Source: "processes",
			Error:  fmt.Sprintf("the network namespace of 2 processes (%d first): permission denied", pids[0]),
			Needs:  "CAP_SYS_PTRACE",
		}}
		if !slices.Equal(blind, want) {
			t.Errorf("blind to %+v, want %+v", blind, want)
		}

		// Linux before 6.2.
		l := FS{}.look(Full)
		l.counts = false
		p, misses, err := l.process(pids[0])
		if err != nil || p.Files.OK || len(misses) != 2 {
			t.Fatalf("%+v, %v, %v", p, misses, err)
		}
		if got := misses[0].needs(); got != "CAP_DAC_READ_SEARCH, or Linux 6.2" {
			t.Errorf("needs %q", got)
		}
	})
}

func TestHidepid(t *testing.T) {
	need.Root(t)
	for _, option := range []string{"hidepid=1", "hidepid=2"} {
		t.Run(option, func(t *testing.T) {
			root := t.TempDir()
			if err := os.Chmod(filepath.Dir(root), 0o755); err != nil {
				t.Fatal(err)
			}
			err := unix.Mount("proc", root, "proc", 0, option)
			need.Feature(t, "proc with "+option, err)
			defer unix.Unmount(root, unix.MNT_DETACH)
			pid := int32(child(t, nil).Process.Pid)
			if _, blind := (FS{root}).ReadAll([]int32{pid}, Full); len(blind) != 0 {
				t.Errorf("root is blind to %v", blind)
			}
			asNobody(t, func() {
				processes, blind := FS{root}.ReadAll([]int32{pid}, Brief)
				if len(processes) != 0 || len(blind) != 1 || !strings.Contains(blind[0].Needs, "CAP_SYS_PTRACE") {
					t.Errorf("saw %v, blind to %+v", processes, blind)
				}
				t.Logf("%+v", blind)
			})
		})
	}
}

// fixture makes what looks like a proc file system with one process.
func fixture(t *testing.T, pid int, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"1", fmt.Sprint(pid, "/fd"), fmt.Sprint(pid, "/ns"), "self", "net"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, strconv.Itoa(pid), name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("net:[4026531840]", filepath.Join(root, strconv.Itoa(pid), "ns/net")); err != nil {
		t.Fatal(err)
	}
	return root
}

var postgres = map[string]string{
	"comm":    "postgres\n",
	"cmdline": "postgres: checkpointer \x00\x00\x00\x00",
	"cgroup":  "0::/system.slice/postgresql@15-main.service\n",
	"limits":  "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 524288               files     \n",
	"stat":    "77 (postgres) S 1 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 100 1 1 1\n",
	"fd/0":    "", "fd/1": "",
}

func TestRoot(t *testing.T) {
	fs := FS{fixture(t, 77, postgres)}
	if pids, err := fs.PIDs(); err != nil || !slices.Equal(pids, []int32{1, 77}) {
		t.Errorf("PIDs %v, %v", pids, err)
	}
	p, blind, err := fs.Read(77, Full)
	if err != nil || len(blind) != 0 {
		t.Fatalf("%v, blind to %v", err, blind)
	}
	if p.Started <= 0 {
		t.Errorf("age %v", p.Started)
	}
	p.Started, p.UID = 0, 0
	want := fact.Process{
		PID: 77, Name: "postgres", Command: []string{"postgres: checkpointer"},
		Netns: 4026531840, Unit: "postgresql@15-main.service",
		Cgroup: "/system.slice/postgresql@15-main.service",
		Files:  fact.Seen(fact.Files{Open: 2, Limit: 1024}),
	}
	if fmt.Sprintf("%+v", p) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", p, want)
	}
	if _, err := (FS{filepath.Join(fs.Root, "missing")}).PIDs(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing root: %v", err)
	}
}

func TestGarbage(t *testing.T) {
	garbage := map[string]string{}
	for name := range postgres {
		garbage[name] = strings.Repeat("\xff\x00()/:\n", 5000)
	}
	processes, blind := FS{fixture(t, 77, garbage)}.ReadAll([]int32{77}, Full)
	if len(processes) != 1 || processes[0].Files.OK || processes[0].Started != 0 {
		t.Errorf("%+v", processes)
	}
	if len(blind) != 3 { // cgroup, age, files
		t.Errorf("blind to %+v", blind)
	}
}

// A command line that does not come, here a FIFO that nobody writes to, costs
// Patience once and only itself.
func TestHungRead(t *testing.T) {
	root := fixture(t, 77, postgres)
	cmdline := filepath.Join(root, "77/cmdline")
	if err := errors.Join(os.Remove(cmdline), unix.Mkfifo(cmdline, 0o644)); err != nil {
		t.Fatal(err)
	}
	fs := FS{root}
	start := time.Now()
	for range 3 {
		processes, blind := fs.ReadAll([]int32{77}, Full)
		if len(processes) != 1 || processes[0].Name != "postgres" || processes[0].Command != nil || !processes[0].Files.OK {
			t.Fatalf("%+v", processes)
		}
		want := []fact.Blind{{Source: "processes", Error: "the command line and cgroup of process 77: " + bounded.ErrHung.Error()}}
		if !slices.Equal(blind, want) {
			t.Errorf("blind to %+v, want %+v", blind, want)
		}
	}
	if took := time.Since(start); took < bounded.Patience || took > 30*bounded.Patience {
		t.Errorf("three looks took %v, want one Patience", took)
	}

	// The read comes back, and so does the command line.
	w, err := os.OpenFile(cmdline, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := errors.Join(os.Remove(cmdline), os.WriteFile(cmdline, []byte("postgres\x00"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		p, blind, err := fs.Read(77, Full)
		if err == nil && len(blind) == 0 && slices.Equal(p.Command, []string{"postgres"}) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v, %v, %v", p, blind, err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	pid := int32(child(b, nil).Process.Pid)
	for name, detail := range map[string]Detail{"Brief": Brief, "Full": Full} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			l := FS{}.look(detail)
			for b.Loop() {
				if _, _, err := l.process(pid); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
