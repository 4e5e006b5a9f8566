package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/internal/need"
)

// target builds one of the programs that package goroutines tests with, without
// symbols.
func target(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	cmd := exec.Command(need.Program(t, "go"), "build", "-ldflags=-s -w", "-trimpath", "-o", path)
	cmd.Dir = filepath.Join("..", "..", "source", "goroutines", "testdata", name)
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOWORK=off", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// begin starts a program and returns its PID and the first line that it prints.
func begin(t *testing.T, path string, args ...string) (pid int, line string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, args...)
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
		cancel()
		in.Close()
		cmd.Wait()
	})
	if line, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, strings.TrimSpace(line)
}

// calls are what lifeline calls --json says.
type calls struct {
	Waiting []struct {
		PID          int
		Process      string
		Peer         *string
		Since        float64 `json:"since_seconds"`
		Acknowledged *bool
		Sure         bool
		Sent         *int `json:"sent_bytes"`
		Queued       int  `json:"queued_bytes"`
		Goroutines   []struct {
			ID    int
			State string
			Since float64 `json:"since_seconds"`
			For   string  `json:"waits_for"`
			Stack []struct {
				Function, File string
				Line           int
			}
		}
	}
}

// The story: NewSession blocks for ever on a connection that is alive, since
// keepalives are answered. What hangs, where and since when is found in a
// program without symbols.
func TestCallsFindsTheStory(t *testing.T) {
	need.Root(t)
	path := target(t, "story")
	_, address := begin(t, path, "host")
	pid, id := begin(t, path, "manager", address)
	var d calls
	document(t, &d, "calls", "--pid", strconv.Itoa(pid), "--for", "600ms")
	if len(d.Waiting) != 1 || d.Waiting[0].Process != "story" || d.Waiting[0].Peer != nil || len(d.Waiting[0].Goroutines) != 1 {
		t.Fatalf("got %+v", d)
	}
	g := d.Waiting[0].Goroutines[0]
	if strconv.Itoa(g.ID) != id || g.State != "chan receive" || g.Since < 0.3 || g.For != "an SSH channel to be confirmed" ||
		len(g.Stack) != 4 || g.Stack[0].Function != "golang.org/x/crypto/ssh.(*mux).openChannel" || g.Stack[3].Function != "main.reconcile" || g.Stack[3].Line == 0 {
		t.Errorf("got %+v", g)
	}
	stdout, stderr, code := lifeline(t, "calls", "--process", "story", "--peer", "127.0.0.1", "--for", "600ms")
	want := fmt.Sprintf("  goroutine %s waits for an SSH channel to be confirmed on the connection to %s, all", id, address)
	unwrapped := strings.Join(strings.Fields(stdout), " ")
	if code != exitWell || !strings.Contains(unwrapped, strings.TrimSpace(want)) || !strings.Contains(stdout, "      main.reconcile ") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	if stdout, _, _ := lifeline(t, "calls", "--process", "story", "--peer", "192.0.2.1", "--for", "100ms"); stdout != "Nothing waits for an answer.\n" {
		t.Errorf("of another peer:\n%s", stdout)
	}
}

// A request over HTTP that the server took and does not answer.
func TestCallsFindsTheRequest(t *testing.T) {
	need.Root(t)
	pid, ready := begin(t, target(t, "waits"), "100")
	address := strings.TrimPrefix(ready, "ready ")
	time.Sleep(1500 * time.Millisecond) // what is sent at once after connecting may belong to that
	var d calls
	document(t, &d, "calls", "--pid", strconv.Itoa(pid), "--for", "500ms")
	if len(d.Waiting) != 1 {
		t.Fatalf("got %+v", d)
	}
	w := d.Waiting[0]
	if w.Peer == nil || *w.Peer != address || w.Acknowledged == nil || !*w.Acknowledged || !w.Sure || w.Since < 1 || *w.Sent < 50 ||
		len(w.Goroutines) != 1 || w.Goroutines[0].For != "an HTTP answer" {
		t.Errorf("got %+v", w)
	}
}

// A path that dies under a request: nothing is acknowledged any more.
func TestCallsTellsTheDeadPath(t *testing.T) {
	l := lab.New(t)
	node, pod := l.Host("node"), l.Host("pod")
	l.Wire(node, "10.77.3.2/24", pod, "10.77.3.3/24")
	ends := connect(t, node, pod, "10.77.3.3:8080", 2)
	for _, c := range ends {
		defer c.Close()
	}
	see := func() (d calls) {
		document(t, &d, "calls", "--peer", "10.77.3.3", "--for", "500ms")
		return d
	}
	// Both were answered, and one asks again.
	for i := 1; i < len(ends); i += 2 {
		exchange(t, ends[i].(net.Conn), ends[i+1].(net.Conn))
	}
	if d := see(); len(d.Waiting) != 0 {
		t.Errorf("before: %+v", d)
	}
	node.Unplug()
	if _, err := ends[1].(net.Conn).Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); ; {
		d := see()
		if len(d.Waiting) == 0 && time.Since(begin) < 30*time.Second {
			continue
		}
		most := time.Since(begin).Seconds() + 0.1 // the kernel's timers have ticks
		if len(d.Waiting) != 1 || d.Waiting[0].Acknowledged == nil || *d.Waiting[0].Acknowledged || d.Waiting[0].Queued != 8 || d.Waiting[0].Since > most || d.Waiting[0].PID != os.Getpid() {
			t.Errorf("after %v s: %+v", most, d)
		}
		return
	}
}

func exchange(t *testing.T, client, server net.Conn) {
	t.Helper()
	buf := make([]byte, 8)
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		if _, err := way[0].Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := way[1].Read(buf); err != nil {
			t.Fatal(err)
		}
	}
}
