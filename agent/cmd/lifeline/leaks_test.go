package main

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/agent/lab/leaker"
	"github.com/lifeline-go/lifeline/internal/need"
)

// leaks are what lifeline leaks --json says.
type leaks struct {
	Looked float64 `json:"looked_seconds"`
	Older  []struct{ PID, Count int }
	Sites  []struct {
		PID      int
		Process  *string
		AskedBy  *struct{ Function, File string } `json:"asked_by"`
		OpenedAt *struct{ Function string }       `json:"opened_at"`
		Stack    []struct {
			Function, File string
			Line           int
		}
		Peer         string
		PeerPID      *int    `json:"peer_pid"`
		PeerProcess  *string `json:"peer_process"`
		Opened, Open int
		Idle         *float64 `json:"idle_seconds"`
		Transports   *int
		Left         *float64 `json:"files_left_seconds"`
		Verdict      string
		Diagnosis    *string
	}
}

func leakingServer(t *testing.T) (path, socket string, pid int) {
	t.Helper()
	need.Root(t)
	need.Program(t, "go")
	path, err := leaker.Build{}.Make(t.Context(), leaker.Standard, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(t.TempDir(), "s")
	pid, _ = begin(t, path, "serve", "unix", socket)
	return path, socket, pid
}

// A program that is started with Lifeline is told of from its first socket on,
// when it ends, and keeps its exit code.
func TestLeaksOfACommand(t *testing.T) {
	t.Parallel()
	path, socket, server := leakingServer(t)
	stdout, stderr, code := lifeline(t, "leaks", "--json", "--idle", "300ms", "--", path, "client", "unix", socket, "20", "400ms", "7")
	var d leaks
	if err := json.Unmarshal([]byte(stdout), &d); err != nil || code != 7 || len(d.Sites) != 1 {
		t.Fatalf("exit code %d, %v:\n%s%s", code, err, stdout, stderr)
	}
	s := d.Sites[0]
	// What was opened just before the end of a program may not be seen.
	if s.Verdict != "leak" || s.Open < 8 || s.Opened < s.Open || s.Opened > s.Open+2 || s.AskedBy == nil || s.AskedBy.Function != "main.request" || !strings.HasSuffix(s.AskedBy.File, "/leaks.go") ||
		s.Peer != socket || s.PeerPID == nil || *s.PeerPID != server || *s.PeerProcess != "std" || s.Left == nil || s.Idle == nil || *s.Idle < 2 || s.Diagnosis == nil {
		t.Errorf("got %+v", s)
	}
	if len(s.Stack) < 5 || len(d.Older) > 0 {
		t.Errorf("the stack %+v, older %+v", s.Stack, d.Older)
	}
}

// A program that runs already: its older sockets are counted, not judged.
func TestLeaksOfAProcess(t *testing.T) {
	t.Parallel()
	path, socket, _ := leakingServer(t)
	stdoutOf := func(args ...string) string {
		stdout, stderr, code := lifeline(t, args...)
		if code != exitFindings {
			t.Errorf("exit code %d: %s%s", code, stdout, stderr)
		}
		return stdout
	}
	pid, _ := begin(t, path, "client", "unix", socket, "3", "1ms")
	stdout, _, code := lifeline(t, "leaks", "--pid", strconv.Itoa(pid), "--for", "1s")
	if code != exitWell || !strings.HasPrefix(stdout, "Nothing leaks") || !strings.Contains(stdout, "had 3 connections open before") {
		t.Errorf("exit code %d: %s", code, stdout)
	}
	started := make(chan string)
	go func() {
		started <- stdoutOf("leaks", "--process", "victim-of-tests", "--for", "10s", "--idle", "300ms")
	}()
	named := filepath.Join(filepath.Dir(path), "victim-of-tests") // comm has 15 bytes, the command line the rest
	copyFile(t, path, named)
	beginQuiet(t, named, "client", "unix", socket, "100", "300ms") // on a busy machine the watch begins seconds later than this
	text := <-started
	for _, want := range []string{"LEAK victim-of-tests (pid ", "main.request (leaks.go:", "      main.request", "by way of", "… ", " calls within net/http", "http.Transports"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
}

// beginQuiet starts a program that says nothing at first, until the test ends.
func beginQuiet(t *testing.T, path string, args ...string) {
	t.Helper()
	cmd := exec.Command(path, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}
