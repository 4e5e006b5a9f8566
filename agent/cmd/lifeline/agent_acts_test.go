package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/audit"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/lab/logind"
	"github.com/lifeline-go/lifeline/agent/lab/websocket"
	"github.com/lifeline-go/lifeline/agent/state"
)

// agentProcess is a lifeline agent --json in a process of its own.
type agentProcess struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  io.Reader
	said *bufio.Scanner
	errs bytes.Buffer
	page string
	dir  string // of its files
}

// said is a line of it.
type said struct {
	Msg, Level, Page, Code, Title, ID, Act, By, Why, Target, Outcome, Error string
	Count, Done, Left                                                       int
}

// runAgentOn starts an agent on a host, or where the test runs, with a policy.
func runAgentOn(t *testing.T, on *lab.Host, policy string, args ...string) *agentProcess {
	t.Helper()
	return runAgentWith(t, nil, on, policy, args...)
}

// runAgentWith is the same with more in its environment.
func runAgentWith(t *testing.T, env []string, on *lab.Host, policy string, args ...string) *agentProcess {
	t.Helper()
	p := &agentProcess{t: t, dir: t.TempDir()}
	if err := os.WriteFile(p.path("policy.yaml"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command("lifeline", append([]string{"agent", "--json", "--listen", "127.0.0.1:0", "--history", "none", "--policy", p.path("policy.yaml"),
		"--audit", p.path("audit.jsonl"), "--socket", p.path("agent.sock"), "--shutdown-file", p.path("going")}, args...)...)
	p.cmd.Stderr, p.cmd.Env = &p.errs, append(os.Environ(), env...)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start := p.cmd.Start
	if on != nil {
		start = func() error { return on.Do(p.cmd.Start) }
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(3*time.Minute, func() { _ = p.cmd.Process.Kill() })
	t.Cleanup(func() { late.Stop(); _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	p.out, p.said = out, bufio.NewScanner(out)
	p.page = p.next("watching").Page
	return p
}

func (p *agentProcess) path(name string) string { return filepath.Join(p.dir, name) }

// next returns the next line that says msg.
func (p *agentProcess) next(msg string) (s said) {
	p.t.Helper()
	var before []string
	for p.said.Scan() {
		s = said{}
		if err := json.Unmarshal(p.said.Bytes(), &s); err != nil {
			p.t.Fatalf("no JSON: %s", p.said.Text())
		}
		if s.Msg == msg {
			return s
		}
		before = append(before, p.said.Text())
	}
	p.t.Fatalf("it ended before it said %q: %s%s", msg, strings.Join(before, "\n"), p.errs.String())
	return s
}

// end ends it as a service manager does.
func (p *agentProcess) end() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	p.wait()
}

func (p *agentProcess) wait() {
	p.t.Helper()
	for p.said.Scan() {
	}
	if err := p.cmd.Wait(); err != nil || p.errs.Len() > 0 {
		p.t.Errorf("it ended with %v: %s", err, p.errs.String())
	}
}

// acts are those that its State has.
func (p *agentProcess) acts() []state.Act {
	var s state.State
	if err := json.Unmarshal([]byte(fetch(p.t, p.page+"api/v1/state")), &s); err != nil {
		p.t.Fatal(err)
	}
	return s.Acts
}

// A peer dies: the agent finds it, cuts its connections as the policy says, says
// so everywhere, and has written it down.
func TestAgentCuts(t *testing.T) {
	t.Parallel()
	near, far, ends := wired(t, 400)
	ours, _ := halves(ends)
	beat(t, ours, 2*time.Second)
	p := runAgentOn(t, nil, "acts:\n  cut: {on: [S001], per_second: 400}\n", "--netns", near.Path())
	far.Unplug()
	f := p.next("finding")
	for f.Code != "S001" {
		f = p.next("finding")
	}
	if f.Count != 400 {
		t.Errorf("%+v", f)
	}
	if b := p.next("act begins"); b.Act != "cut" || b.By != "policy" || b.Count != 400 || !strings.HasPrefix(b.Why, "S001 peer=10.77.1.2") {
		t.Errorf("%+v", b)
	}
	if acts, err := audit.Read(p.path("audit.jsonl")); err != nil || len(acts) != 1 {
		t.Errorf("it is not written: %+v, %v", acts, err)
	}
	e := p.next("act ended")
	if e.Error != "" || e.Done != 400 || e.Left != 0 {
		t.Errorf("%+v", e)
	}
	if all, told := died(ours, time.Minute); all != 400 || told == 0 {
		t.Errorf("%d reads returned, %d of them said why", all, told)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if a := p.acts(); len(a) == 1 && a[0].Ended != nil && a[0].Done == 400 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the State has %+v", a)
		}
	}
	p.end()
	if acts, err := audit.Read(p.path("audit.jsonl")); err != nil || len(acts) != 1 || acts[0].Done != 400 {
		t.Errorf("written: %+v, %v", acts, err)
	}
}

// SIGKILL in the middle of an act: what began is known, and that nobody knows what
// came of it.
func TestAgentKilledWhileItActs(t *testing.T) {
	t.Parallel()
	near, far, ends := wired(t, 200)
	ours, _ := halves(ends)
	beat(t, ours, time.Second)
	policy := "acts:\n  cut: {on: [S001], per_second: 20}\n"
	p := runAgentOn(t, nil, policy, "--netns", near.Path())
	far.Unplug()
	p.next("act begins")
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	again := exec.Command("lifeline", "agent", "--json", "--listen", "127.0.0.1:0", "--history", "none", "--passive", "--netns", near.Path(), "--audit", p.path("audit.jsonl"))
	p.cmd = again
	out, err := again.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Start(); err != nil {
		t.Fatal(err)
	}
	p.out, p.said = out, bufio.NewScanner(out)
	p.page = p.next("watching").Page
	if a := p.acts(); len(a) != 1 || a[0].Act != "cut" || a[0].Ended != nil || a[0].Outcome != audit.Interrupted || a[0].Left != 200 {
		t.Errorf("%+v", a)
	}
	p.end()
}

// A node that goes resets what it forwards, when a program says so and when it is
// told to end while a file says so; and not when it is only told to end.
func TestAgentEvacuates(t *testing.T) {
	t.Parallel()
	s := lab.NewStory(t, lab.NFTables)
	server := s.Pod.Listen("tcp", lab.StoryPod)
	dial := func(n int) (conns []net.Conn) {
		for range n {
			client := s.LB.Dial("tcp", lab.StoryNodePort)
			other, err := server.Accept()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { client.Close(); other.Close() })
			conns = append(conns, client, other)
		}
		return conns
	}
	reset := func(conns []net.Conn) {
		t.Helper()
		for _, c := range conns {
			if err := ended(c, 20*time.Second); !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("an end has %v", err)
			}
		}
	}
	lifeline := program(t)
	policy := "acts:\n  evac: {on: shutdown, only: [10.77.0.0/16]}\n"
	p := runAgentOn(t, s.Node, policy, "--netns", "self")
	conns := dial(50)
	out := s.Node.Run(lifeline, "agent", "notify-shutdown", "--socket", p.path("agent.sock"), "--why", "preempted", "--timeout", "50s")
	if !strings.HasPrefix(out, "50 of 50 forwarded connections reset in ") || strings.Count(out, "\n") != 1 {
		t.Errorf("it says %q", out)
	}
	reset(conns)
	if e := p.next("act ended"); e.Act != "evac" || e.By != "shutdown" || e.Why != "notify-shutdown: preempted" || e.Done != 50 || e.Error != "" {
		t.Errorf("%+v", e)
	}
	conns = dial(30)
	if err := os.WriteFile(p.path("going"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if e := p.next("act ended"); e.Done != 30 || e.Error != "" || !strings.Contains(e.Why, "going") {
		t.Errorf("%+v", e)
	}
	p.wait()
	reset(conns)

	p = runAgentOn(t, s.Node, policy, "--netns", "self")
	conns = dial(1)
	p.end()
	if err := ended(conns[0], 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("told to end, it did: %v", err)
	}
	if acts, err := audit.Read(p.path("audit.jsonl")); err != nil || len(acts) != 0 {
		t.Errorf("%+v, %v", acts, err)
	}
}

// systemd says that the machine goes down: it waits until what the node forwards is
// reset, and no longer.
func TestAgentHearsOfShutdown(t *testing.T) {
	t.Parallel()
	s := lab.NewStory(t, lab.NFTables)
	socket := filepath.Join(t.TempDir(), "bus")
	logind.StartBus(t, socket)
	m := logind.Start(t, socket, &logind.Manager{Delay: 30 * time.Second})
	p := runAgentWith(t, []string{"DBUS_SYSTEM_BUS_ADDRESS=unix:path=" + socket}, s.Node, "acts:\n  evac: {on: shutdown}\n", "--netns", "self")
	lock := m.Lock()
	p.next("systemd waits for this agent at a shutdown")
	conns := forwarded(t, s, 40)
	m.Say(true)
	if b := p.next("act begins"); b.Act != "evac" || !strings.HasPrefix(b.Why, "systemd") || b.Count != 40 {
		t.Errorf("%+v", b)
	}
	lock.Released(t)
	if acts, err := audit.Read(p.path("audit.jsonl")); err != nil || len(acts) != 1 || acts[0].Done != 40 || acts[0].Ended == nil {
		t.Errorf("released before it was done: %+v, %v", acts, err)
	}
	for _, c := range conns {
		if err := ended(c, 20*time.Second); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("an end has %v", err)
		}
	}
	p.next("act ended")
	p.end()
}

// Without the rights nothing is done, and it says so: on the page, in the State, in
// its log.
func TestAgentWithoutRightsToAct(t *testing.T) {
	t.Parallel()
	cmd := nobodyCommand(t)
	dir := filepath.Dir(cmd.Path)
	policy := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte("acts:\n  cut: {on: [S001]}\n  evac: {on: shutdown}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd.Args = append(cmd.Args, "agent", "--json", "--listen", "127.0.0.1:0", "--history", "none", "--netns", "self", "--policy", policy,
		"--audit", filepath.Join(dir, "audit.jsonl"), "--socket", filepath.Join(dir, "agent.sock"))
	p := &agentProcess{t: t, cmd: cmd, dir: dir}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	p.out, p.said = out, bufio.NewScanner(out)
	p.page = p.next("watching").Page
	var now state.State
	missing := func(about string) bool {
		return slices.ContainsFunc(now.Blind, func(b state.Blind) bool { return b.Source == "acts" && strings.Contains(b.Error, about) })
	}
	eventually(t, "it to say what it cannot do", func() bool {
		return json.Unmarshal([]byte(fetch(t, p.page+"api/v1/state")), &now) == nil && missing("allows cut") && missing("allows evac") && missing("audit log")
	})
	if text := fetch(t, p.page); !strings.Contains(text, "the policy allows cut, and this agent has not the right to do it") {
		t.Error("the page does not say so")
	}
	p.end()
}

// A policy that comes to name a cgroup has its connections tuned, those that are
// there and those that begin; one that does not name it any more takes it back.
func TestAgentTunes(t *testing.T) {
	path := filepath.Join(cgroups(t), fmt.Sprintf("lifeline-agent-%d", os.Getpid()))
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) })
	l := lab.New(t)
	near, far := l.Host("near"), l.Host("far")
	l.Wire(near, "10.77.1.2/24", far, "10.77.1.3/24")
	listener := far.Listen("tcp", "10.77.1.3:8080")
	server := &http.Server{Handler: &websocket.Server{Ended: func(error) {}}}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	p := runAgentOn(t, nil, "ignore:\n  codes: [S003]\n", "--netns", near.Path())
	rewrite := func(policy string) {
		t.Helper()
		if err := os.WriteFile(p.path("policy.yaml"), []byte(policy), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = p.cmd.Process.Signal(syscall.SIGHUP)
		p.next("policy read")
	}
	first := clientsIn(t, near, path)
	if got := boundOf(t, near, first); got != 150 {
		t.Fatalf("the bound is %v s", got)
	}
	rewrite("acts:\n  tune:\n    - {cgroup: " + path + "}\n")
	if e := p.next("act ended"); e.Act != "tune" || e.Done != 3 || e.Error != "" {
		t.Errorf("%+v", e)
	}
	second := clientsIn(t, near, path)
	for _, pid := range []int{first, second} {
		if got := boundOf(t, near, pid); got != 5 {
			t.Errorf("tuned, the bound is %v s", got)
		}
	}
	rewrite("")
	if e := p.next("act ended"); e.Act != "tune" || e.Done != 3 || e.Error != "" {
		t.Errorf("%+v", e)
	}
	for pid, want := range map[int]float64{first: 150, second: 5, clientsIn(t, near, path): 150} {
		if got := boundOf(t, near, pid); got != want { // what began tuned has no options that it had before
			t.Errorf("taken back, the bound is %v s, want %v s", got, want)
		}
	}
	p.end()
}

// clientsIn starts a process with three connections on a host, in a cgroup.
func clientsIn(t *testing.T, on *lab.Host, cgroup string) (pid int) {
	t.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("lifeline", "lab", "websocket-clients", "--url", "ws://10.77.1.3:8080", "--connections", "3")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := on.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.Contains(line, websocket.Open) {
		t.Fatalf("%q, %v", line, err)
	}
	return cmd.Process.Pid
}

// boundOf is for how long the silence of a process' connections can last.
func boundOf(t *testing.T, on *lab.Host, pid int) float64 {
	t.Helper()
	var d struct {
		Total  int
		Groups []struct {
			Idle float64 `json:"bound_idle_seconds"`
		}
	}
	document(t, &d, "census", "--netns", on.Path(), "--pid", fmt.Sprint(pid), "--state", "ESTABLISHED")
	if d.Total != 3 || len(d.Groups) != 1 {
		t.Fatalf("%+v", d)
	}
	return d.Groups[0].Idle
}

// What the agent leaves alone, because nobody answers, a person may cut: in two
// steps, with the token, and once.
func TestAgentActsByHand(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	near, far, other := l.Host("near"), l.Host("far"), l.Host("other")
	l.Wire(near, "10.77.1.1/24", far, "10.77.1.2/24")
	l.Wire(near, "10.77.3.1/24", other, "10.77.3.2/24")
	for _, dev := range []string{"eth0", "eth1"} {
		near.Sysctl("net.ipv4.neigh."+dev+".base_reachable_time_ms", "600000")
	}
	var ours []net.Conn
	for addr, host := range map[string]*lab.Host{"10.77.1.2:80": far, "10.77.3.2:80": other} {
		for i, c := range connect(t, near, host, addr, 50) {
			t.Cleanup(func() { c.Close() })
			if c, is := c.(net.Conn); is && i%2 == 1 && host == far {
				ours = append(ours, c)
			} else if is && i%2 == 1 {
				beat(t, []net.Conn{c}, 16*time.Second)
			}
		}
	}
	beat(t, ours, time.Second)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := runAgentOn(t, nil, "acts:\n  cut: {on: [S001]}\n", "--netns", near.Path(), "--token-file", file)
	other.Unplug() // first, or it is heard of after the other
	far.Unplug()
	left := p.next("act ended")
	if left.Done != 0 || !strings.Contains(left.Outcome, "own link") {
		t.Fatalf("%+v", left)
	}
	post := func(path, body string) (status int, text string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.page+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.SetBasicAuth("anybody", "0123456789abcdef")
		client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		all, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(all)
	}
	why := left.Why
	status, text := post("api/v1/acts/plan", fmt.Sprintf(`{"act":"cut","finding":%q}`, why))
	var plan state.Plan
	if err := json.Unmarshal([]byte(text), &plan); err != nil || status != http.StatusOK || plan.Count != 50 || !strings.Contains(plan.Text, "Mind: no other peer") {
		t.Fatalf("%d %s", status, text)
	}
	status, text = post("api/v1/acts/do", fmt.Sprintf(`{"plan":%q}`, plan.ID))
	var a state.Act
	if err := json.Unmarshal([]byte(text), &a); err != nil || status != http.StatusOK || a.Done != 50 || a.By != "page" {
		t.Errorf("%d %s", status, text)
	}
	if status, text = post("api/v1/acts/do", fmt.Sprintf(`{"plan":%q}`, plan.ID)); status != http.StatusConflict {
		t.Errorf("again: %d %s", status, text)
	}
	p.end()
	if acts, err := audit.Read(p.path("audit.jsonl")); err != nil || !slices.ContainsFunc(acts, func(a state.Act) bool { return a.By == "page" && a.Done == 50 && a.Why == why }) {
		t.Errorf("%+v, %v", acts, err)
	}
}
