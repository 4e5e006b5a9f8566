package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// A service manager that asked for it is told when the agent is ready, how things
// stand, and that it ends.
func TestAgentTellsManager(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	next := func(begins string) string {
		t.Helper()
		buf := make([]byte, 4096)
		n, err := l.Read(buf)
		if err != nil || !strings.HasPrefix(string(buf[:n]), begins) {
			t.Fatalf("it says %q, %v, and not %s", buf[:n], err, begins)
		}
		return strings.TrimPrefix(string(buf[:n]), begins)
	}
	cmd := exec.Command(quick(t), "agent", "--listen", "127.0.0.1:0", "--passive", "--json", "--netns", apart(t), "--history", "none")
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	w := watching(t, nil, cmd)
	next("READY=1")
	if status := next("STATUS="); status == "" || strings.Contains(status, "\n") {
		t.Errorf("it is said to stand as %q", status)
	}
	ended := make(chan string, 1)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := l.Read(buf)
			if err != nil || strings.HasPrefix(string(buf[:n]), "STOPPING=1\n") {
				ended <- string(buf[:n])
				return
			}
		}
	}()
	w.end()
	if said := <-ended; !strings.HasPrefix(said, "STOPPING=1\n") {
		t.Errorf("at the end it says %q", said)
	}
}

// Where there is none, that is said, and keeps the agent from nothing.
func TestAgentWithoutManager(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	said, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd := exec.Command(quick(t), "agent", "--listen", "127.0.0.1:0", "--passive", "--netns", apart(t), "--history", "none")
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "nobody"))
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }() // when the test fails; else it has ended
	eventually(t, "it to watch, and to say that it cannot tell", func() bool {
		text, err := os.ReadFile(said.Name())
		return err == nil && strings.Contains(string(text), "msg=watching") &&
			strings.Contains(string(text), "the service manager is not told that this agent is ready") && strings.Contains(string(text), "no such file")
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		text, _ := os.ReadFile(said.Name())
		t.Errorf("%v: %s", err, text)
	}
}

// How things stand is one line, of a length that is shown.
func TestManagerStatus(t *testing.T) {
	s := &state.State{}
	if got := managerStatus(s); got != "Looks for the first time" {
		t.Errorf("before it has looked: %q", got)
	}
	s.Totals.Looked = time.Now()
	if got := managerStatus(s); got != "All four promises are kept" {
		t.Errorf("nothing found: %q", got)
	}
	s.Findings = []state.Finding{{Finding: verdict.Finding{Severity: verdict.Fail, Title: strings.Repeat("é\n", 300)}}}
	if got := managerStatus(s); !strings.HasPrefix(got, "1 finding open: é") || strings.Contains(got, "\n") || !strings.HasSuffix(got, "…") || utf8.RuneCountInString(got) != longestStatus {
		t.Errorf("a long one: %q", got)
	}
}
