package goroutines

import (
	"bufio"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/gosym"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// build builds one of the programs in testdata; empty where the toolchain that
// env names cannot be had.
func build(t *testing.T, program string, env []string, flags ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), program)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	golang := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, need.Program(t, "go"), args...)
		cmd.Dir = filepath.Join("testdata", program)
		cmd.Env = append(append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOWORK=off", "CGO_ENABLED=0"), env...)
		return cmd.CombinedOutput()
	}
	if out, err := golang("version"); err != nil {
		t.Logf("not tested with %v, which cannot be had here: %v: %s", env, err, out)
		return ""
	}
	if out, err := golang(append([]string{"build", "-o", path}, flags...)...); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

var stripped = []string{"-ldflags=-s -w", "-trimpath"}

// child is a running program that answers questions.
type child struct {
	t     *testing.T
	pid   int32
	begun time.Time
	in    interface{ Write([]byte) (int, error) }
	out   *bufio.Scanner
	said  []string // until its first end
}

func start(t *testing.T, path string, args ...string) *child {
	t.Helper()
	return run(t, exec.Command(path, args...))
}

func run(t *testing.T, cmd *exec.Cmd) *child {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, begun: time.Now(), in: in, out: bufio.NewScanner(out)}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	c.pid = int32(cmd.Process.Pid)
	c.said = c.read()
	return c
}

func (c *child) read() (lines []string) {
	for c.out.Scan() {
		if c.out.Text() == "end" {
			return lines
		}
		lines = append(lines, c.out.Text())
	}
	c.t.Fatalf("the program ended: %q, %v", lines, c.out.Err())
	return nil
}

func (c *child) ask(question string) []string {
	if _, err := c.in.Write([]byte(question + "\n")); err != nil {
		c.t.Fatal(err)
	}
	return c.read()
}

// parked takes looks at a process over some time.
func parked(t *testing.T, pid int32, over time.Duration) fact.Goroutines {
	t.Helper()
	target, err := Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	for i := range 4 {
		if i > 0 {
			time.Sleep(over / 3)
		}
		if err := target.Look(); err != nil {
			t.Fatal(err)
		}
	}
	all, err := target.Parked()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// trace is a goroutine as Go prints it.
type printed struct {
	state   string
	calls   []string // "function file:line"
	created string
}

var (
	headLine = regexp.MustCompile(`^goroutine (\d+) .*\[([^,\]]+)`)
	codeLine = regexp.MustCompile(`^\t(.*:\d+)`)
)

func parse(lines []string) map[uint64]printed {
	all := make(map[uint64]printed)
	for i := 0; i < len(lines); i++ {
		head := headLine.FindStringSubmatch(lines[i])
		if head == nil {
			continue
		}
		id, _ := strconv.ParseUint(head[1], 10, 64)
		p := printed{state: head[2]}
		for i++; i+1 < len(lines) && lines[i] != ""; i++ {
			if strings.HasPrefix(lines[i], "...") {
				break
			}
			code := codeLine.FindStringSubmatch(lines[i+1])
			if code == nil {
				break
			}
			if name, found := strings.CutPrefix(lines[i], "created by "); found {
				name, _, _ = strings.Cut(name, " in goroutine")
				p.created = name + " " + code[1]
			} else {
				p.calls = append(p.calls, lines[i][:strings.LastIndexByte(lines[i], '(')]+" "+code[1])
			}
			i++
		}
		all[id] = p
	}
	return all
}

// TestAgainstGo compares what is read from outside with what programs print of
// themselves.
func TestAgainstGo(t *testing.T) {
	for _, c := range []struct {
		name  string
		env   []string
		flags []string
	}{
		{"stripped", nil, stripped},
		{"pie", nil, []string{"-buildmode=pie", "-ldflags=-s -w"}},
		{"go1.21", []string{"GOTOOLCHAIN=go1.21.13"}, stripped},
		{"go1.23", []string{"GOTOOLCHAIN=go1.23.12"}, stripped},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := build(t, "waits", c.env, c.flags...)
			if path == "" {
				return
			}
			const crowd = 4000
			program := start(t, path, strconv.Itoa(crowd))
			begin := time.Now()
			all := parked(t, program.pid, 300*time.Millisecond)
			took := time.Since(begin)
			own := parse(program.ask("stacks"))
			right := 0
			seen := make(map[string]bool)
			for i := range all.Parked {
				g := &all.Parked[i]
				want, ok := own[g.ID]
				if !ok || g.State == "waiting" {
					t.Errorf("goroutine %d (%s) is not one of the program's: %v", g.ID, g.State, g.Stack)
					continue
				}
				seen[g.State] = true
				if g.Socket.OK != (g.State == "IO wait") {
					t.Errorf("goroutine %d (%s): socket %v", g.ID, g.State, g.Socket)
				}
				if compare(t, g, &want) {
					right++
				}
				if strings.Contains(fmt.Sprint(g.Stack), "pingPong") {
					t.Errorf("goroutine %d does not wait: %v", g.ID, g.Stack)
				}
			}
			// All the patient ones, the hung call with its three of package http, and
			// the reader of standard input or not, as it is in a system call.
			if right < crowd+9 {
				t.Errorf("%d of %d goroutines, of %d in all", right, len(all.Parked), len(own))
			}
			for _, state := range []string{"chan receive", "chan send", "select", "select (no cases)", "IO wait", "sync.Mutex.Lock", "sync.Cond.Wait", "sleep"} {
				if !seen[state] {
					t.Errorf("no goroutine in state %s", state)
				}
			}
			t.Logf("%d goroutines, %d as Go prints them, in %v beside 300 ms of waiting", all.Total, right, took-300*time.Millisecond)
		})
	}
}

// compare compares one goroutine. A trace of Go leaves out what is in the middle
// of a deep stack.
func compare(t *testing.T, g *fact.Goroutine, want *printed) bool {
	var got []string
	for _, c := range g.Stack {
		got = append(got, fmt.Sprintf("%s %s:%d", c.Func, c.File, c.Line))
	}
	n := min(len(got), len(want.calls))
	if g.Cut {
		n = min(n, 40)
	}
	stateOK := g.State == want.state || strings.HasPrefix(want.state, "sync.") || want.state == "semacquire"
	created := ""
	if g.Created.Func != "" {
		created = fmt.Sprintf("%s %s:%d", g.Created.Func, g.Created.File, g.Created.Line)
	}
	if slices.Equal(got[:n], want.calls[:n]) && (len(got) == len(want.calls) || n > 30) && stateOK && created == want.created {
		return true
	}
	t.Errorf("goroutine %d\n got %s: %s\n     by %s\nwant %s: %s\n     by %s", g.ID, g.State, strings.Join(got, "\n\t"), created,
		want.state, strings.Join(want.calls, "\n\t"), want.created)
	return false
}

// TestStory finds the call of the story in an unmodified, stripped program, with
// a time that is true, while its connection is alive all the time.
func TestStory(t *testing.T) {
	path := build(t, "story", nil, stripped...)
	host := start(t, path, "host")
	manager := start(t, path, "manager", host.said[0])
	id, err := strconv.ParseUint(manager.said[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	find := func(over time.Duration) fact.Goroutine {
		all := parked(t, manager.pid, over)
		i := slices.IndexFunc(all.Parked, func(g fact.Goroutine) bool { return g.ID == id })
		if i < 0 {
			t.Fatalf("goroutine %d is not among %v", id, all.Parked)
		}
		return all.Parked[i]
	}
	time.Sleep(200 * time.Millisecond)

	const over = 600 * time.Millisecond
	g := find(over)
	if most := time.Since(manager.begun); g.Since < over || g.Since > most || !g.Looked {
		t.Errorf("waits for %v, which is not from %v to %v", g.Since, over, most)
	}
	var calls []string
	for _, c := range g.Stack {
		calls = append(calls, c.Func)
	}
	const lib = "golang.org/x/crypto/ssh."
	if want := []string{lib + "(*mux).openChannel", lib + "(*mux).OpenChannel", lib + "(*Client).NewSession", "main.reconcile"}; !slices.Equal(calls, want) {
		t.Errorf("called from %v, not %v", calls, want)
	}
	if g.State != "chan receive" || g.Created.Func != "main.main" {
		t.Errorf("%s, created by %v", g.State, g.Created)
	}

	// A garbage collection sees it wait: from then on the time grows beyond that
	// of the looks.
	// The first collection only leaves a time for the second to give.
	manager.ask("gc")
	time.Sleep(1500 * time.Millisecond)
	manager.ask("gc")
	seen := time.Now()
	time.Sleep(time.Second)
	least := time.Since(seen)
	if g = find(30 * time.Millisecond); g.Since < least || g.Since > least+time.Second || g.Looked {
		t.Errorf("waits for %v, which is not from %v to a second more", g.Since, least)
	}
	t.Logf("goroutine %d, %s, for at least %v of %v: %s", g.ID, g.State, g.Since, time.Since(manager.begun), strings.Join(calls, " < "))
}

// TestWhichConnection tells to which host each of several calls is that block,
// though another goroutine than the one that asked reads each connection. What a
// stack was used for before may be left on it and make it two that are possible:
// then it is not told, and another program has another past.
func TestWhichConnection(t *testing.T) {
	path := build(t, "story", nil, stripped...)
	for tries := 0; ; tries++ {
		asked, found, all := connectionsTold(t, path, 3)
		if len(found) == len(asked) {
			return
		}
		t.Logf("%d of %d: %v, of %v and %+v", len(found), len(asked), found, asked, all)
		if tries == 3 {
			t.Fatal("in no program are all told")
		}
	}
}

// connectionsTold runs a program with calls to some hosts that do not answer, and
// returns whom each goroutine asked, and whom it is found to wait for.
func connectionsTold(t *testing.T, path string, hosts int) (asked map[string]string, found []string, all fact.Goroutines) {
	t.Helper()
	args := []string{"manager"}
	for range hosts {
		args = append(args, start(t, path, "host").said[0])
	}
	manager := start(t, path, args...)
	asked = map[string]string{manager.said[0]: manager.said[1]}
	for len(asked) < hosts {
		said := manager.read()
		asked[said[0]] = said[1]
	}
	time.Sleep(2 * time.Second) // so that each waits, also where the machine is busy
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", manager.pid))
	if err != nil {
		t.Fatal(err)
	}
	ports := make(map[string]string) // of peers, by inode
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 9 {
			port, _ := strconv.ParseUint(f[2][strings.IndexByte(f[2], ':')+1:], 16, 16)
			ports[f[9]] = strconv.FormatUint(port, 10)
		}
	}
	for tries := 0; len(found) < hosts && tries < 5; tries++ { // what is read of a busy program may be torn
		found = nil
		all = parked(t, manager.pid, time.Second)
		for _, g := range all.Parked {
			address, ok := asked[strconv.FormatUint(g.ID, 10)]
			if !ok || !g.Socket.OK {
				continue
			}
			if port := ports[strconv.FormatUint(uint64(g.Socket.Value), 10)]; strings.HasSuffix(address, ":"+port) && port != "" {
				found = append(found, address)
			} else {
				t.Fatalf("goroutine %d waits for %s, and is said to wait for socket %v, to port %q", g.ID, address, g.Socket, port)
			}
		}
	}
	return asked, found, all
}

// TestNotStopped looks at a busy program as often as it can.
func TestNotStopped(t *testing.T) {
	program := start(t, build(t, "waits", nil, stripped...), "1000", "busy")
	count := func() int {
		n, err := strconv.Atoi(program.ask("count")[0])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	rate := func(d time.Duration, meanwhile func()) float64 {
		begin, first := time.Now(), count()
		for time.Since(begin) < d {
			meanwhile()
		}
		return float64(count()-first) / time.Since(begin).Seconds()
	}
	target, err := Open(program.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	looks, traced := 0, ""
	look := func() {
		looks++
		if err := target.Look(); err != nil {
			t.Fatal(err)
		}
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", program.pid))
		if !strings.Contains(string(text), "\nTracerPid:\t0\n") || strings.Contains(string(text), "\nState:\tt") || strings.Contains(string(text), "\nState:\tT") {
			traced = string(text)
		}
		time.Sleep(20 * time.Millisecond)
	}
	var alone, watched []float64
	for range 3 {
		alone = append(alone, rate(300*time.Millisecond, func() { time.Sleep(20 * time.Millisecond) }))
		watched = append(watched, rate(300*time.Millisecond, look))
	}
	if traced != "" {
		t.Errorf("it was stopped or traced: %s", traced)
	}
	slices.Sort(alone)
	slices.Sort(watched)
	t.Logf("%.0f operations a second alone, %.0f under %d looks: %.1f %%", alone[1], watched[1], looks, 100*watched[1]/alone[1])
	if watched[2] < alone[0]/3 {
		t.Error("it is much slower while it is looked at")
	}
}

// TestContainer looks at a program in PID and mount namespaces of its own whose
// executable was deleted.
func TestContainer(t *testing.T) {
	need.Root(t)
	path := build(t, "waits", nil, stripped...)
	cmd := exec.Command(path, "10")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	program := run(t, cmd)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if all := parked(t, program.pid, 30*time.Millisecond); len(all.Parked) < 10 {
		t.Errorf("got %+v", all)
	}
}

// TestFindCode finds runtime.allgs in code of both architectures, and compares
// with the symbol table.
func TestFindCode(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		for _, toolchain := range []string{"GOTOOLCHAIN=local", "GOTOOLCHAIN=go1.21.13"} {
			path := build(t, "waits", []string{"GOARCH=" + arch, toolchain})
			if path == "" {
				continue
			}
			f, err := elf.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			symbols, err := f.Symbols()
			f.Close()
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == "runtime.allgs" })
			table, err := gosym.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			entry, end, ok := table.Extent("runtime.allgadd")
			found := triples(referenced(table, entry, table.Read(entry, int(end-entry))))
			if !ok || !slices.Contains(found, symbols[i].Value) || len(found) > 3 {
				t.Errorf("%s %s: %#x are candidates, it is %#x", arch, toolchain, found, symbols[i].Value)
			}
			table.Close()
		}
	}
}

func TestErrors(t *testing.T) {
	need.Root(t)
	if _, err := Open(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
	sleep := exec.Command(need.Program(t, "sleep"), "100")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer sleep.Wait()
	defer sleep.Process.Kill()
	if _, err := Open(int32(sleep.Process.Pid)); !errors.Is(err, gosym.ErrNotGo) {
		t.Errorf("not a Go program: %v", err)
	}

	program := start(t, build(t, "waits", nil, stripped...), "10")
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with its user
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			done <- errno
			return
		}
		_, err := Open(program.pid)
		if b := Blind(err); err != nil && b.Needs == "" {
			err = fmt.Errorf("nothing is said to be needed: %v: %w", b, err)
		} else {
			t.Logf("%+v", b)
		}
		done <- err
	}()
	if err := <-done; !errors.Is(err, fs.ErrPermission) {
		t.Errorf("of another user: %v", err)
	}

	target, err := Open(program.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if _, err := target.Parked(); err == nil {
		t.Error("parked goroutines without a look")
	}
	if err := target.Look(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(int(program.pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for err = target.Look(); err == nil; err = target.Look() {
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("killed: %v", err)
	}
}
