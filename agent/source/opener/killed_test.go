package opener

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/lifeline-go/lifeline/agent/source/gosym"
	"github.com/lifeline-go/lifeline/internal/need"
)

// watching is set in a process of TestKilled that watches another one.
const watching = "LIFELINE_TEST_WATCHES"

// TestWatcher is no test: it is the process that TestKilled kills.
func TestWatcher(t *testing.T) {
	pid, err := strconv.Atoi(os.Getenv(watching))
	if err != nil {
		return
	}
	table, err := gosym.OfProcess(int32(pid))
	if err != nil {
		t.Fatal(err)
	}
	trace(t, int32(pid), table)
	fmt.Println("watching")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// trace follows the go statements of a process.
func trace(t *testing.T, pid int32, table *gosym.Table) *Trace {
	t.Helper()
	s := watch(t, Options{Uses: true})
	g, err := table.G()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Layout(pid, g); err != nil {
		t.Fatal(err)
	}
	traced, err := s.Trace(pid, table, true)
	if err != nil {
		t.Fatal(err)
	}
	return traced
}

func hooks(t *testing.T) int {
	t.Helper()
	root, err := rootCgroup()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	found, err := link.QueryPrograms(link.QueryOptions{Target: int(root.Fd()), Attach: ebpf.AttachCgroupUnixConnect})
	if err != nil {
		t.Fatal(err)
	}
	return len(found.Programs)
}

// code is the beginning of a function in the memory of this process.
func code(t *testing.T, table *gosym.Table, function string) []byte {
	t.Helper()
	entry, ok := table.Func(function)
	if !ok {
		t.Fatalf("no %s", function)
	}
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	b := make([]byte, 8)
	if _, err := memory.ReadAt(b, int64(entry)); err != nil {
		t.Fatal(err)
	}
	return b
}

// Who is killed while it watches leaves no hook behind, no uprobe that would last,
// and a program that runs on.
func TestKilled(t *testing.T) {
	need.Root(t)
	_, err := link.OpenExecutable("/proc/self/exe")
	need.Feature(t, "uprobes", err)
	table, err := gosym.OfProcess(int32(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	before, clean := hooks(t), code(t, table, "runtime.newproc")
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestWatcher$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", watching, os.Getpid()))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 100)
	n, _ := out.Read(said)
	if !bytes.HasPrefix(said[:n], []byte("watching")) {
		rest, _ := io.ReadAll(out)
		t.Fatalf("it says %q%q: %v", said[:n], rest, cmd.Wait())
	}
	if hooks(t) <= before || bytes.Equal(code(t, table, "runtime.newproc"), clean) {
		t.Error("it does not watch")
	}
	for range 1000 { // go statements with the uprobe on
		done := make(chan struct{})
		go close(done)
		<-done
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var ended *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &ended) {
		t.Errorf("it ended with %v", err)
	}
	gone := func() bool { return hooks(t) == before && bytes.Equal(code(t, table, "runtime.newproc"), clean) }
	for begin := time.Now(); !gone() && time.Since(begin) < 10*time.Second; {
		time.Sleep(10 * time.Millisecond)
	}
	if gone() {
		return
	}
	// The kernel may fail to take the breakpoint out while the process ends, and
	// says "failed to unregister, leaking uprobe". Who watches next takes it out.
	t.Logf("%d hooks, of %d before; runtime.newproc is %x, was %x", hooks(t), before, code(t, table, "runtime.newproc"), clean)
	if err := trace(t, int32(os.Getpid()), table).Close(); err != nil {
		t.Error(err)
	}
	if now := code(t, table, "runtime.newproc"); !bytes.Equal(now, clean) {
		t.Errorf("watched again and ended in order: runtime.newproc is %x, was %x", now, clean)
	}
}
