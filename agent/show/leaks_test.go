package show

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

func leakSite() verdict.LeakSite {
	call := func(f, file string, line int) fact.Call { return fact.Call{Func: f, File: file, Line: line} }
	stack := []fact.Call{call("syscall.connect", "s.go", 1), call("net.Dial", "d.go", 2), call("net/http.(*Transport).dial", "t.go", 3), call("net/http.(*Client).Do", "c.go", 4),
		call("github.com/docker/docker/client.(*Client).get", "r.go", 5), call("github.com/docker/docker/client.(*Client).List", "l.go", 6),
		call("main.build", "/src/agent/main.go", 7), call("main.main", "/src/agent/main.go", 8)}
	return verdict.LeakSite{PID: 7, Process: "agent", Container: strings.Repeat("ab", 32), AskedBy: stack[6], OpenedAt: stack[2], Stack: stack, Peer: "/run/docker.sock",
		PeerPID: 8, PeerProcess: "dockerd", Peers: 1, Opened: 20, Open: 18, Idle: fact.Seen(90 * time.Second), IdleMany: 16, UsedAt: stack[6], Clients: 9, Operations: 9,
		Left: fact.Seen(time.Hour), Verdict: verdict.Leaking, Diagnosis: "It leaks"}
}

const leakText = `LEAK agent (pid 7) in container abababababab: 18 sockets open to /run/docker.sock of dockerd (pid
  8), of 20 opened, 2 at a time; idle for up to 90 s; of 9 http.Transports; the file limit is
  reached in 60 min.
  It leaks.
      main.build                                      agent/main.go:7
      main.main                                       agent/main.go:8
    by way of
      github.com/docker/docker/client.(*Client).List  l.go:6
      github.com/docker/docker/client.(*Client).get   r.go:5
      net/http.(*Client).Do                           c.go:4
      net/http.(*Transport).dial                      t.go:3
      net.Dial                                        d.go:2
      syscall.connect                                 s.go:1
    used last in
      main.build                                      agent/main.go:7
agent (pid 7) had 3 connections open before: who opened those is not known, and they are not judged.
5 sockets found no room and were not noted.
`

func TestLeaks(t *testing.T) {
	o := &fact.Openings{Now: 30 * time.Second, Dropped: 5, Programs: []fact.Opener{{PID: 7, Name: "agent", Older: 3}}}
	healthy := verdict.LeakSite{PID: 9, Peer: "10.0.0.1:80", Open: 4, Operations: 4}
	var b bytes.Buffer
	Leaks(&b, o, []verdict.LeakSite{leakSite(), healthy}, false, Style{})
	if b.String() != leakText {
		t.Errorf("got:\n%s", b.String())
	}
	for all, want := range map[bool]string{
		false: "Nothing leaks, as far as 30 s can tell: 4 sockets of those opened meanwhile are open, by 1 line of\n  code.\n",
		true:  "HEALTHY (unknown) (pid 9): 4 sockets open to 10.0.0.1:80, of 0 opened, 1 at a time.\n",
	} {
		b.Reset()
		Leaks(&b, &fact.Openings{Now: 30 * time.Second}, []verdict.LeakSite{healthy}, all, Style{})
		if b.String() != want {
			t.Errorf("got:\n%s", b.String())
		}
	}
	b.Reset()
	Leaks(&b, &fact.Openings{Now: 30 * time.Second}, nil, false, Style{})
	if want := "Nothing leaks, as far as 30 s can tell: nothing that was opened meanwhile is open.\n"; b.String() != want {
		t.Errorf("got:\n%s", b.String())
	}
}

func TestLeaksJSON(t *testing.T) {
	var b bytes.Buffer
	o := &fact.Openings{Now: 30 * time.Second}
	if err := LeaksJSON(&b, &fact.Machine{Host: "box"}, o, []verdict.LeakSite{leakSite(), {Peer: "x"}}, true); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "\n"); n != 1 {
		t.Errorf("%d lines", n)
	}
	var d struct {
		Schema string
		Sites  []map[string]any
		Older  []any
	}
	if err := json.Unmarshal(b.Bytes(), &d); err != nil || d.Schema != Schema || d.Older == nil || len(d.Sites) != 2 {
		t.Fatalf("%v: %s", err, b.Bytes())
	}
	for key, want := range map[string]any{"verdict": "leak", "open": 18.0, "idle_seconds": 90.0, "per_operation": 2.0, "transports": 9.0, "files_left_seconds": 3600.0, "peer_process": "dockerd"} {
		if d.Sites[0][key] != want {
			t.Errorf("%s is %v, want %v", key, d.Sites[0][key], want)
		}
	}
	for _, key := range []string{"asked_by", "opened_at", "idle_seconds", "diagnosis", "peer_pid"} {
		if v, found := d.Sites[1][key]; v != nil || !found {
			t.Errorf("%s is %v, want null", key, v)
		}
	}
}
