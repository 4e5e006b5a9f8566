package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/act/evac"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
)

// program returns the test binary under the name by which it is the command.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lifeline")
	copyFile(t, os.Args[0], path)
	return path
}

// forwarded opens n connections through the node of a story.
func forwarded(t *testing.T, s *lab.Story, n int) (conns []net.Conn) {
	t.Helper()
	l := s.Pod.Listen("tcp", lab.StoryPod)
	for range n {
		client := s.LB.Dial("tcp", lab.StoryNodePort)
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		conns = append(conns, client, server)
	}
	return conns
}

func ended(c net.Conn, wait time.Duration) error {
	_ = c.SetReadDeadline(time.Now().Add(wait))
	_, err := c.Read(make([]byte, 1))
	return err
}

type evacAnswer struct {
	Would, Done []struct {
		What, Server string
		Count        int
		Clients      []string
	}
	Flows       int
	ClientsTold int `json:"clients_told"`
	ServersTold int `json:"servers_told"`
}

func TestEvac(t *testing.T) {
	s := lab.NewStory(t, lab.NFTables)
	conns := forwarded(t, s, 20)
	lifeline := program(t)

	if out := s.Node.Run(lifeline, "evac", "--within", "25s"); !strings.Contains(out, "20     10.77.2.2:8080  10.77.1.1:30080  10.77.1.2\n") ||
		!strings.Contains(out, "20 would be reset, both ends, within 25s, 0.8 a second. Nothing was done: --yes does it.") {
		t.Errorf("the dry run says:\n%s", out)
	}
	if err := ended(conns[0], 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after a dry run: %v", err)
	}
	if out := s.Node.Run(lifeline, "evac", "--only", "192.0.2.0/24"); !strings.Contains(out, "20 more are left alone, as --only says.\nThis machine forwards no TCP connection") {
		t.Errorf("with --only of others: %s", out)
	}
	var a evacAnswer
	if err := json.Unmarshal([]byte(s.Node.Run(lifeline, "evac", "--json")), &a); err != nil {
		t.Fatal(err)
	}
	if len(a.Would) != 1 || a.Done != nil || a.Would[0].Count != 20 || a.Would[0].Server != lab.StoryPod || a.Would[0].Clients[0] != "10.77.1.2" {
		t.Errorf("would: %+v", a)
	}

	a = evacAnswer{}
	if err := json.Unmarshal([]byte(s.Node.Run(lifeline, "evac", "--yes", "--json")), &a); err != nil {
		t.Fatal(err)
	}
	if len(a.Done) != 1 || a.Would != nil || a.Done[0].Count != 20 || a.ClientsTold != 20 || a.ServersTold != 20 {
		t.Errorf("done: %+v", a)
	}
	for _, c := range conns {
		if err := ended(c, 2*time.Second); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after the evac: %v", err)
		}
	}
	if out := s.Node.Run(lifeline, "evac", "--yes"); !strings.Contains(out, "0 of 0 reset") {
		t.Errorf("a second one says: %s", out)
	}
}

// Killed in the middle it leaves no rule, or the next run removes them and says
// so.
func TestEvacKilled(t *testing.T) {
	s := lab.NewStory(t, lab.NFTables)
	conns := forwarded(t, s, 30)
	lifeline := program(t)
	rules := func() string { return s.Node.Run("nft", "list", "ruleset") }

	cmd := s.Node.Command(lifeline, "evac", "--within", "20s", "--yes")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first, err := bufio.NewReader(stderr).ReadString('\n') // comes with the first flow
	if text := rules(); err != nil || !strings.Contains(text, evac.TableName) {
		t.Errorf("%q, %v; the rules are:\n%s", first, err, text)
	}
	if err := cmd.Process.Kill(); err != nil { // nsenter has become the command
		t.Fatal(err)
	}
	var killed *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &killed) {
		t.Fatalf("it ended with %v, want killed", err)
	}
	if text := rules(); strings.Contains(text, evac.TableName) {
		t.Logf("this kernel, older than 5.12, leaves the rules of a dead process:\n%s", text)
	} else {
		s.Node.Nft("table inet " + evac.TableName + " { chain forward { type filter hook forward priority -10; }\n}") // as an older one would
	}
	next := s.Node.Command(lifeline, "evac", "--yes")
	var out, errs bytes.Buffer
	next.Stdout, next.Stderr = &out, &errs
	if err := next.Run(); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	if !strings.Contains(errs.String(), "removed the rules that an earlier evac left behind (table inet lifeline_evac)\n") {
		t.Errorf("it does not say that it removed rules:\n%s", errs.String())
	}
	if text := rules(); strings.Contains(text, evac.TableName) {
		t.Errorf("the rules are still there:\n%s", text)
	}
	for _, c := range conns {
		if err := ended(c, 2*time.Second); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after the evac: %v", err)
		}
	}
}

// Interrupted it says how far it came, and leaves no rule.
func TestEvacInterrupted(t *testing.T) {
	s := lab.NewStory(t, lab.NFTables)
	forwarded(t, s, 30)
	cmd := s.Node.Command(program(t), "evac", "--within", "20s", "--yes")
	var out bytes.Buffer
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stderr).ReadString('\n'); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	if cmd.ProcessState.ExitCode() != exitInterrupted || !strings.Contains(out.String(), " of 30 reset in ") || !strings.Contains(out.String(), " are as they were") {
		t.Errorf("it ended with %v and said:\n%s", err, out.String())
	}
	if text := s.Node.Run("nft", "list", "ruleset"); strings.Contains(text, evac.TableName) {
		t.Errorf("the rules are still there:\n%s", text)
	}
}

func TestUnprivilegedEvac(t *testing.T) {
	lab.NewStory(t, lab.NFTables) // so that the kernel tracks connections
	for _, yes := range []string{"--yes=false", "--yes"} {
		_, stderr, code := nobody(t, "evac", yes)
		if code != exitBlind || !strings.Contains(stderr, "needs CAP_NET_ADMIN") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit code %d: %s", yes, code, stderr)
		}
	}
}

func TestEvacSaysWhatIsLeft(t *testing.T) {
	at := netip.MustParseAddrPort
	flows := []fact.Flow{
		{Source: at("10.0.0.1:1"), Destination: at("10.0.0.9:80"), ReplySource: at("10.1.0.1:8080")},
		{Source: at("10.0.0.2:1"), Destination: at("10.0.0.9:80"), ReplySource: at("10.1.0.1:8080")},
		{Source: at("10.0.0.2:2"), Destination: at("10.0.0.9:80"), ReplySource: at("10.1.0.2:8080")},
	}
	cmd := newEvac()
	var out bytes.Buffer
	cmd.SetOut(&out)
	err := printEvac(cmd, "host", evac.Result{Flows: flows, Begun: 2, Late: 1, Clients: 2, Servers: 1, Unanswered: 1, Offloaded: 7,
		Took: 2500 * time.Millisecond, Unsent: syscall.EPERM, Unread: syscall.ENOBUFS})
	if err != nil {
		t.Fatal(err)
	}
	want := `COUNT  SERVER         ADDRESSED AS  CLIENTS
2      10.1.0.1:8080  10.0.0.9:80   10.0.0.1 and 1 more
7 more pass by a flowtable, out of reach of any rule: they cannot be reset from here.
2 of 3 reset in 2.50 s: 2 clients and 1 servers were told.
1 began meanwhile.
1 have an end that did not answer, and was not told.
1 are as they were: it ended before their turn.
Not all could be asked: operation not permitted.
Flows that began meanwhile may be missing: no buffer space available.
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
