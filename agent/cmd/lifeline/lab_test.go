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
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/lab/replay"
	"github.com/lifeline-go/lifeline/internal/need"
)

// labNeeds asks for what a replay takes.
func labNeeds(t *testing.T, nat lab.NAT) {
	t.Helper()
	need.Root(t)
	for _, program := range append(nat.Programs(), "ip", "nsenter") {
		need.Program(t, program)
	}
}

// The whole story, small: everybody learns long before the kernel would tell
// them, and whoever has nothing but Go is told how long that is.
func TestLabSilence(t *testing.T) {
	for _, nat := range []lab.NAT{lab.NFTables, lab.IPTables} {
		t.Run(string(nat), func(t *testing.T) {
			t.Parallel()
			labNeeds(t, nat)
			var d struct {
				Runs []struct {
					Story, Traffic, With, At string
					Count, Learned           int
					Measured                 bool
					Seconds                  *float64
					Verdict                  *float64 `json:"verdict_seconds"`
					Bound                    float64  `json:"bound_seconds"`
				}
			}
			document(t, &d, "lab", "silence", "--quick", "--connections", "200", "--processes", "3", "--spread", "1s", "--heartbeat", "2s",
				"--nat", string(nat), "--only", "sending,evac")
			if len(d.Runs) != 6 {
				t.Fatalf("%d runs, want both ends of Go alone, lifeline cut and lifeline evac: %+v", len(d.Runs), d.Runs)
			}
			for _, r := range d.Runs {
				name := fmt.Sprintf("%s, %s, %s", r.Traffic, r.With, r.At)
				if r.Story != "silence" || r.Count != 200 {
					t.Errorf("%s: %+v", name, r)
				}
				if bound := map[bool]float64{true: 900, false: 150}[r.Traffic == "sending" && r.At == "server"]; r.Bound < bound {
					t.Errorf("%s: the bound is %v s, want %v s or more", name, r.Bound, bound)
				}
				if r.With == "Go alone" {
					if r.Measured || r.Seconds != nil {
						t.Errorf("%s: %+v, want what was not waited for", name, r)
					}
					continue
				}
				if r.Learned != r.Count || r.Seconds == nil || *r.Seconds > 20 {
					t.Errorf("%s: %+v, want all to learn within seconds", name, r)
					continue
				}
				t.Logf("%s: all learned after %.3f s", name, *r.Seconds)
				if (r.With == "lifeline cut") != (r.Verdict != nil) {
					t.Errorf("%s: %+v, want a verdict of lifeline cut and of nobody else", name, r)
				}
			}
		})
	}
}

// small is a replay that takes a moment to begin and long to end.
var small = []string{"lab", "silence", "--connections", "20", "--go-alone", "10", "--processes", "2", "--spread", "1s", "--only", "idle"}

// An interrupt takes everything down, at once.
func TestLabIsInterrupted(t *testing.T) {
	t.Parallel()
	labNeeds(t, lab.NFTables)
	r, w := io.Pipe()
	ctx, interrupt := context.WithCancel(t.Context())
	var out bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, small, &out, w)
		w.Close()
	}()
	lines := bufio.NewScanner(r)
	for lines.Scan() && !strings.Contains(lines.Text(), "Go alone       0.000 s") && !strings.Contains(lines.Text(), "the node dies") {
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

// When the command is killed, its processes end by themselves, and the next lab
// removes its hosts.
func TestLabIsKilled(t *testing.T) {
	t.Parallel()
	labNeeds(t, lab.NFTables)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, small...)
	cmd.Args[0] = "lifeline"
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(stderr); lines.Scan() && !strings.Contains(lines.Text(), "the node dies"); {
	}
	left, _ := filepath.Glob(fmt.Sprintf("/run/netns/lifeline-%d-*", cmd.Process.Pid))
	if len(left) == 0 {
		t.Error("a replay without hosts")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()

	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var pids []byte
		for _, path := range left {
			more, _ := exec.Command("ip", "netns", "pids", filepath.Base(path)).Output() // another lab may have removed it
			pids = append(pids, more...)
		}
		if len(pids) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("these still run: %q", pids)
		}
	}
	lab.New(t)
	for _, path := range left {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s: %v, want it gone", path, err)
		}
	}
}

// Ends tell late what happened; the log has it where it belongs.
func TestLabLogIsInOrder(t *testing.T) {
	var out bytes.Buffer
	l := &labLog{w: &out}
	r := &labRun{traffic: idle}
	for _, e := range []replay.Event{{At: 1, Text: "first"}, {At: 3, Text: "third"}, {At: 2, Text: "second"}, {At: 9, Text: "last"}} {
		l.add(r, e)
	}
	l.write(3)
	if got := strings.Fields(out.String()); !slices.Equal(got, []string{idle, "first", idle, "second", idle, "third"}) {
		t.Errorf("got %q", got)
	}
	l.write(9)
	if !strings.HasSuffix(out.String(), "last\n") {
		t.Errorf("got %q", out.String())
	}
}

func TestUnprivilegedLab(t *testing.T) {
	stdout, stderr, code := nobody(t, "lab", "silence")
	if code != exitBlind || stdout != "" || !strings.HasPrefix(stderr, "lifeline lab silence: the lab needs root") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit code %d, want %d and one line that says what it needs: %q%q", code, exitBlind, stdout, stderr)
	}
}
