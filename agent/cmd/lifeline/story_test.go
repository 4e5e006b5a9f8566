package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
)

// connect opens n connections between two hosts and returns both ends of each.
func connect(t *testing.T, from, to *lab.Host, address string, n int) (ends []io.Closer) {
	t.Helper()
	l := to.Listen("tcp", address)
	ends = append(ends, l)
	err := from.Do(func() error {
		for range n {
			client, err := net.Dial("tcp", address)                                       // an address, so it is this thread that makes the socket
			for tries := 0; errors.Is(err, syscall.EHOSTUNREACH) && tries < 20; tries++ { // the wire has just been plugged in
				time.Sleep(200 * time.Millisecond)
				client, err = net.Dial("tcp", address)
			}
			if err != nil {
				return err
			}
			server, err := l.Accept()
			if err != nil {
				return err
			}
			ends = append(ends, client, server)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ends
}

// The people of the story found 4,224 connections from one node with netstat,
// awk, cut, sort and uniq. It is one line of the census, with what they did not
// see: whose they are, when the node last acknowledged, and how long its death
// would go unnoticed.
func TestTheStoryIsOneLine(t *testing.T) {
	l := lab.New(t)
	node, pod := l.Host("node"), l.Host("pod")
	l.Wire(node, "10.77.1.2/24", pod, "10.77.1.3/24")
	const connections = 4224
	for _, c := range connect(t, node, pod, "10.77.1.3:8080", connections) {
		defer c.Close()
	}

	stdout, stderr, code := lifeline(t, "census", "--netns", pod.Path(), "--state", "ESTABLISHED")
	if code != exitWell {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	line := regexp.MustCompile(fmt.Sprintf(`(?m)^4,224  10\.77\.1\.2  \S*\[%d\] +[0-9.]+ m?s +- +150 s +15 min \d+ s$`, os.Getpid()))
	if !line.MatchString(stdout) {
		t.Errorf("the census has no line %v:\n%s", line, stdout)
	}

	var d struct {
		Groups []struct {
			Peer      string
			Count     int
			Processes []struct{ PID, Count int }
			LastAck   float64 `json:"last_ack_seconds"`
			Idle      float64 `json:"bound_idle_seconds"`
			Sending   float64 `json:"bound_sending_seconds"`
		}
		Total int
	}
	document(t, &d, "census", "--netns", pod.Path(), "--state", "ESTABLISHED")
	g := d.Groups[0]
	if d.Total != connections || len(d.Groups) != 1 || g.Peer != "10.77.1.2" || g.Count != connections || g.Idle != 150 || g.Sending < 900 ||
		len(g.Processes) != 1 || g.Processes[0].PID != os.Getpid() || g.Processes[0].Count != connections {
		t.Errorf("as JSON: %+v", d)
	}
}

// A peer that dies with data in flight is found, without a word from its side.
func TestCheckFindsTheSilentPeer(t *testing.T) {
	l := lab.New(t)
	node, pod := l.Host("node"), l.Host("pod")
	l.Wire(node, "10.77.1.2/24", pod, "10.77.1.3/24")
	ends := connect(t, node, pod, "10.77.1.3:8080", 40)
	for _, c := range ends {
		defer c.Close()
	}
	node.Unplug()
	for i := 2; i < len(ends); i += 2 { // the server's ends
		if _, err := ends[i].(net.Conn).Write([]byte("heartbeat")); err != nil {
			t.Fatal(err)
		}
	}
	var stdout, stderr string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		var code int
		stdout, stderr, code = lifeline(t, "check", "--for", "500ms", "--no-probe", "--only", "S001")
		if code == exitFindings && strings.Contains(stdout, "S001 10.77.1.2 is silent") && strings.Contains(stdout, "40 connections") {
			return
		}
	}
	t.Errorf("the silent peer is not named:\n%s%s", stdout, stderr)
}
