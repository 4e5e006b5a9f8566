package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
)

// A node dies: silence and check name it both, silence says whose connections
// it has, and before that what would happen.
func TestSilenceNamesTheDead(t *testing.T) {
	l := lab.New(t)
	node, pod := l.Host("node"), l.Host("pod")
	l.Wire(node, "10.77.1.2/24", pod, "10.77.1.3/24")
	ends := connect(t, node, pod, "10.77.1.3:8080", 40)
	for _, c := range ends {
		defer c.Close()
	}

	stdout, stderr, code := lifeline(t, "silence", "--netns", pod.Path(), "--what-if", "10.77.1.2")
	if code != exitWell || !strings.Contains(stdout, "If 10.77.1.2 dies now without a word, 40 connections fall silent.") ||
		!strings.Contains(stdout, "150 s") || !strings.Contains(stdout, "15 min") {
		t.Errorf("what if: exit code %d:\n%s%s", code, stdout, stderr)
	}
	type peer struct {
		Peer      string
		Count     int
		Verdict   string
		Quiet     int64   `json:"quiet_ms"`
		Idle      float64 `json:"bound_idle_seconds"`
		Processes []struct{ PID, Count int }
	}
	var d struct {
		Peers   []peer
		Transit []any
	}
	document(t, &d, "silence", "--netns", pod.Path(), "--for", "100ms")
	if len(d.Peers) != 1 || d.Peers[0].Verdict != "alive" || d.Peers[0].Count != 40 || d.Peers[0].Idle != 150 {
		t.Errorf("before: %+v", d)
	}

	node.Unplug()
	for i := 2; i < len(ends); i += 2 { // the server's ends
		if _, err := ends[i].(net.Conn).Write([]byte("heartbeat")); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		stdout, stderr, code = lifeline(t, "silence", "--netns", pod.Path(), "--for", "500ms", "--json")
		if code == exitFindings {
			break
		}
	}
	if err := json.Unmarshal([]byte(stdout), &d); err != nil || code != exitFindings {
		t.Fatalf("exit code %d, %v: %s", code, err, stderr)
	}
	if p := d.Peers[0]; p.Verdict != "silent" || p.Peer != "10.77.1.2" || p.Quiet < 3000 || len(p.Processes) != 1 || p.Processes[0].PID != os.Getpid() {
		t.Errorf("got %+v", d)
	}
	stdout, _, _ = lifeline(t, "silence", "--netns", pod.Path(), "--for", "100ms")
	if !strings.HasPrefix(stdout, "VERDICT") || !strings.Contains(stdout, "10.77.1.2 is silent: 40 connections") || !strings.Contains(stdout, "the kernel tells the") {
		t.Errorf("as text:\n%s", stdout)
	}
}

// A watch prints a document a line: the first when it begins, one when the
// verdict falls, one when it is lifted.
func TestSilenceWatch(t *testing.T) {
	l := lab.New(t)
	node, pod := l.Host("node"), l.Host("pod")
	l.Wire(node, "10.77.1.2/24", pod, "10.77.1.3/24")
	ends := connect(t, node, pod, "10.77.1.3:8080", 40)
	for _, c := range ends {
		defer c.Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	read, write := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer write.Close()
		if code := run(ctx, []string{"silence", "--watch", "--netns", pod.Path(), "--json"}, write, io.Discard); code != exitInterrupted {
			t.Errorf("exit code %d", code)
		}
	})
	defer wg.Wait()
	defer read.Close() // first: it lets a write end that nobody waits for
	defer cancel()
	lines := bufio.NewScanner(read)
	next := func() (verdict string, count int) {
		var d struct {
			Peers []struct {
				Verdict string
				Count   int
			}
		}
		if !lines.Scan() {
			t.Fatalf("the watch ended: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		for _, p := range d.Peers {
			return p.Verdict, p.Count
		}
		return "", 0
	}
	if verdict, count := next(); verdict != "" || count != 0 {
		t.Errorf("the first line has a verdict: %s of %d", verdict, count)
	}
	node.Unplug()
	for i := 2; i < len(ends); i += 2 {
		if _, err := ends[i].(net.Conn).Write([]byte("heartbeat")); err != nil {
			t.Fatal(err)
		}
	}
	if verdict, count := next(); verdict != "silent" || count != 40 {
		t.Errorf("after the death: %s of %d", verdict, count)
	}
	node.Plug()
	if verdict, count := next(); verdict != "alive" || count != 40 {
		t.Errorf("after it is back: %s of %d", verdict, count)
	}
}
