package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/lab/manager"
	"github.com/lifeline-go/lifeline/internal/need"
)

func labCallsNeeds(t *testing.T) {
	t.Helper()
	need.Root(t)
	for _, program := range append([]string{"ip", "nsenter"}, manager.Needs...) {
		need.Program(t, program)
	}
}

// The whole story, short: Lifeline's calls return, and nothing of it is left;
// who has no bound is still blocked when the replay ends.
func TestLabCalls(t *testing.T) {
	t.Parallel()
	labCallsNeeds(t)
	var d struct {
		Runs []struct {
			Story, Host, Call, With string
			Seconds, Waited         *float64
			Bound                   *float64 `json:"bound_seconds"`
			Said                    *string
		}
		Left []struct {
			With                    string
			Blocked, Processes      int
			Goroutines, Descriptors *int
		}
	}
	document(t, &d, "lab", "calls", "--wait", "12s", "--silence", "2s")
	if len(d.Runs) != len(manager.All)*len(manager.Situations) || len(d.Left) != len(manager.All) {
		t.Fatalf("%d runs, %d left: %+v", len(d.Runs), len(d.Left), d)
	}
	for _, r := range d.Runs {
		name := fmt.Sprintf("%s, %s, %s", r.With, r.Host, r.Call)
		with, host, call := manager.With(r.With), manager.Host(r.Host), manager.Call(r.Call)
		lost := host == manager.Reboots || host == manager.Frozen
		bounded := !lost || with == manager.Lifeline || with == manager.Workaround && call == manager.NewCommand
		if r.Story != "calls" || (r.Seconds != nil) != bounded {
			t.Errorf("%s: %+v, want it to have returned: %v", name, r, bounded)
		}
		if (r.Said != nil) != (bounded && host != manager.Well) {
			t.Errorf("%s: said %v", name, r.Said)
		}
		if with == manager.Lifeline && lost && bounded {
			t.Logf("%s: %.3f s: %s", name, *r.Seconds, *r.Said)
			if r.Bound == nil || *r.Bound != 2 {
				t.Errorf("%s: the bound is %v", name, r.Bound)
			}
		}
		if host == manager.Refuses && r.Said != nil && !strings.Contains(strings.ToLower(*r.Said), "connection refused") {
			t.Errorf("%s: %s", name, *r.Said)
		}
	}
	for _, l := range d.Left {
		switch with := manager.With(l.With); {
		case with == manager.Mux || with == manager.MuxAlive:
			if l.Blocked != 4 || l.Processes < 4 || l.Goroutines != nil {
				t.Errorf("%+v, want processes of blocked calls", l)
			}
		case l.Goroutines == nil || l.Descriptors == nil || l.Processes != 0:
			t.Errorf("%+v, want them counted", l)
		case (l.Blocked+*l.Goroutines+*l.Descriptors > 0) == (with == manager.Lifeline):
			t.Errorf("%s: blocked %d, goroutines %d, descriptors %d", l.With, l.Blocked, *l.Goroutines, *l.Descriptors)
		}
	}
}

// An interrupt takes everything down, at once.
func TestLabCallsIsInterrupted(t *testing.T) {
	t.Parallel()
	labCallsNeeds(t)
	r, w := io.Pipe()
	ctx, interrupt := context.WithCancel(t.Context())
	var out bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"lab", "calls"}, &out, w)
		w.Close()
	}()
	for lines := bufio.NewScanner(r); lines.Scan() && !strings.Contains(lines.Text(), "the managers call"); {
	}
	began := time.Now()
	interrupt()
	go func() { _, _ = io.Copy(io.Discard, r) }()
	if got := <-code; got != exitInterrupted || out.Len() > 0 {
		t.Errorf("exit code %d, want %d; it prints %q", got, exitInterrupted, out.String())
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("took %v to end", took)
	}
}

// When the command is killed, its managers end by themselves, and the next lab
// removes its hosts with all that runs on them, and its keys.
func TestLabCallsIsKilled(t *testing.T) {
	t.Parallel()
	labCallsNeeds(t)
	cmd := self("lab", "calls")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(stderr); lines.Scan() && !strings.Contains(lines.Text(), "the managers call"); {
	}
	left, _ := filepath.Glob(fmt.Sprintf("/run/netns/lifeline-%d-*", cmd.Process.Pid))
	dirs, _ := filepath.Glob(fmt.Sprintf("/run/lifeline-%d-*", cmd.Process.Pid))
	if len(left) == 0 || len(dirs) != 1 {
		t.Errorf("a replay with %d hosts and the directories %q", len(left), dirs)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	lab.New(t)
	for _, path := range append(left, dirs...) {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s: %v, want it gone", path, err)
		}
	}
	for _, dir := range dirs { // each of its processes has it on its command line
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			out, err := exec.Command("pgrep", "-f", dir).Output()
			if err != nil { // there is none
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("these still run: %q", out)
			}
		}
	}
}

func TestUnprivilegedLabCalls(t *testing.T) {
	stdout, stderr, code := nobody(t, "lab", "calls")
	if code != exitBlind || stdout != "" || !strings.HasPrefix(stderr, "lifeline lab calls: the lab needs root") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit code %d, want %d and one line that says what it needs: %q%q", code, exitBlind, stdout, stderr)
	}
}
