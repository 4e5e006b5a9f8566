package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/lab/pty"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/web"
	"github.com/lifeline-go/lifeline/internal/need"
)

// viewer is a process with lifeline top on a terminal with nobody at it.
type viewer struct {
	*testing.T
	*pty.Terminal
	cmd    *exec.Cmd
	before *unix.Termios
	late   chan struct{}
}

func watch(t *testing.T, cmd *exec.Cmd) *viewer {
	t.Helper()
	term, err := pty.Open(80, 24)
	if err != nil {
		t.Fatal(err)
	}
	w := &viewer{T: t, Terminal: term, cmd: cmd, late: make(chan struct{})}
	timer := time.AfterFunc(90*time.Second, func() { close(w.late) })
	t.Cleanup(func() { timer.Stop(); _ = cmd.Process.Kill(); term.Close() })
	if w.before, err = term.Settings(); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "LC_ALL=C.UTF-8")
	if err := term.Start(cmd); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *viewer) until(text string) {
	w.Helper()
	if err := w.Until(w.late, func(screen string) bool { return strings.Contains(screen, text) }); err != nil {
		w.Fatalf("%q: %v", text, err)
	}
}

func (w *viewer) press(keys string) {
	w.Helper()
	if err := w.Type(keys); err != nil {
		w.Fatal(err)
	}
}

// ends holds that the process ends with a code and gives the terminal back.
func (w *viewer) ends(code int) {
	w.Helper()
	ended := make(chan error, 1)
	go func() { ended <- w.cmd.Wait() }()
	select {
	case <-ended:
	case <-w.late:
		w.Fatalf("it does not end:\n%s", w.Screen())
	}
	if got := w.cmd.ProcessState.ExitCode(); got != code {
		w.Errorf("exit code %d, not %d:\n%s", got, code, w.Screen())
	}
	if err := w.Until(w.late, func(string) bool { return w.Plain() }); err != nil {
		w.Errorf("the screen was not given back: %v", err)
	}
	if after, err := w.Settings(); err != nil || !reflect.DeepEqual(after, w.before) {
		w.Errorf("the line is %+v and was %+v, %v", after, w.before, err)
	}
	if u := w.Unknown(); len(u) > 0 {
		w.Errorf("unknown to the terminal: %q", u)
	}
}

// agentOn starts an agent that looks at a network namespace, and returns it and its
// address.
func agentOn(t *testing.T, netns, listen string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(quick(t), "agent", "--listen", listen, "--passive", "--json", "--netns", netns, "--history", t.TempDir()+"/history.db")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var e event
	d := json.NewDecoder(out)
	for e.Msg != "watching" {
		if err := d.Decode(&e); err != nil {
			_ = cmd.Wait()
			t.Fatalf("the agent ended before it watched: %v: %s", err, errs.Bytes())
		}
	}
	go func() { // until it ends
		for d.Decode(&e) == nil {
		}
	}()
	return cmd, strings.TrimSuffix(e.Page, "/")
}

// The terminal shows what a real agent knows, says that it is gone and since when,
// and goes on when it is back.
func TestTopOfAgent(t *testing.T) {
	t.Parallel()
	full := nearlyFull(t)
	netns := apart(t)
	agent, page := agentOn(t, netns, need.Address(t))
	w := watch(t, exec.Command("lifeline", "top", "--agent", page))
	w.until("agent at " + strings.TrimPrefix(page, "http://"))
	w.until("kept")
	w.press("/L001 " + fmt.Sprint(full) + "\r")
	w.until("> ")
	w.until(fmt.Sprintf("pid %d", full))
	w.press("\r")
	w.until("Evidence")
	w.until("since  first seen ")
	w.press("\x1b7")
	w.until("[7 sources]")
	w.until("> peers")
	w.press("3")
	w.until("connections, in the census of ")
	w.press("8")
	w.until("8 history]")
	w.until("Last 6 hours") // the agent keeps one, which has begun
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait() // until then it may still listen
	w.until("NO AGENT for ")
	w.until("since ")
	agentOn(t, netns, strings.TrimPrefix(page, "http://"))
	if err := w.Until(w.late, func(screen string) bool { return !strings.Contains(screen, "NO AGENT") }); err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.ends(exitWell)
}

// Without an agent it looks itself, and says so.
func TestTopItself(t *testing.T) {
	t.Parallel()
	w := watch(t, exec.Command("lifeline", "top", "--agent", "none", "--passive"))
	w.until("no agent: looks itself, as root")
	w.press("\x1a") // no shell has this job, and could have it go on
	w.press("7")
	w.until("> peers")
	w.until("census ")
	w.press("8")
	w.until("The history is kept by an agent")
	w.press("?")
	w.until("  Keys\n")
	w.press("q")
	w.ends(exitWell)

	w = watch(t, exec.Command("lifeline", "top", "--agent", "none", "--passive"))
	w.until("no agent: looks itself, as root")
	if err := w.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	w.ends(exitWell)

	w = watch(t, exec.Command("lifeline", "top", "--agent", "none", "--passive"))
	w.until("no agent: looks itself, as root")
	w.Close() // the window is closed
	if err := w.cmd.Wait(); err != nil {
		t.Errorf("its terminal is gone: %v", err)
	}
}

// It works over a real ssh, too.
func TestTopOverSSH(t *testing.T) {
	t.Parallel()
	ssh := need.Program(t, "ssh")
	d := startSSHD(t)
	_, page := agentOn(t, apart(t), "127.0.0.1:0")
	program, err := exec.LookPath("lifeline")
	if err != nil {
		t.Fatal(err)
	}
	w := watch(t, exec.Command(ssh, "-tt", "-F", d.conf, "web1", program, "top", "--agent", page))
	w.until("agent at " + strings.TrimPrefix(page, "http://"))
	w.press("2")
	w.until("[2 peers]")
	if err := w.Resize(120, 30); err != nil {
		t.Fatal(err)
	}
	w.until("3 connections ")
	w.press("q")
	w.ends(exitWell)
}

// crowd is an agent that knows of 20,000 connections, and says something new all
// the time.
type crowd struct {
	now atomic.Pointer[state.State]
}

const crowdSize = 20_000

func (c *crowd) State() *state.State { return c.now.Load() }

func (c *crowd) Wait(ctx context.Context, seq uint64) (*state.State, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(250 * time.Millisecond): // the pace of a real one
	}
	s := &state.State{Schema: "lifeline/v1", Run: "A", Seq: seq + 1, Host: "crowded", Time: time.Now(),
		Totals: state.Totals{Sockets: crowdSize, Peers: 4000, Looked: time.Now().Truncate(10 * time.Second)}}
	for i := range state.MostPeers {
		s.Peers = append(s.Peers, state.Peer{Peer: fmt.Sprintf("10.1.%d.%d", i/250, i%250), Count: 40, Verdict: "alive", Processes: []state.Holder{{PID: 7, Name: "server", Count: 40}}})
	}
	for i := range state.MostLinks {
		s.Links = append(s.Links, state.Link{From: state.End{Name: "server"}, To: state.End{Name: fmt.Sprintf("10.1.0.%d", i)}, Count: 40})
	}
	c.now.Store(s)
	return s, nil
}

func (c *crowd) Connections(_ context.Context, q state.Query) (state.Connections, error) {
	out := state.Connections{Time: time.Now(), Total: crowdSize}
	for i := q.After; i < min(q.After+q.Most, crowdSize); i++ {
		out.List = append(out.List, state.Connection{Cookie: uint64(i + 1), State: "ESTABLISHED", Local: "10.0.0.1:443", Remote: fmt.Sprintf("10.1.%d.%d:%d", i/250%250, i%250, 1024+i), Process: state.Holder{PID: 7, Name: "server"}})
	}
	return out, nil
}

func (c *crowd) WhatIf(context.Context, netip.Prefix, uint32) (state.Loss, error) {
	return state.Loss{}, errors.New("nothing")
}

// How long a key takes to be drawn, with 20,000 connections in the agent.
func TestTopCrowded(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := new(crowd)
	if _, err := c.Wait(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- web.Serve(ctx, l, web.Options{Agent: c}) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	w := watch(t, exec.Command("lifeline", "top", "--agent", "http://"+l.Addr().String()))
	w.until("Lifeline on crowded")
	w.press("3")
	w.until("1 of 20,000")
	var took []time.Duration
	for i := range 40 {
		at := time.Now()
		w.press("j")
		w.until(fmt.Sprintf("%d of 20,000", i+2))
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	t.Logf("a key is on the screen within %v (median %v, of %d)", took[len(took)-1].Round(time.Millisecond), took[len(took)/2].Round(time.Millisecond), len(took))
	w.press("\x1b[F")
	w.until("20,000 of 20,000")
	w.until(fmt.Sprintf(":%d", 1024+crowdSize-1))
	w.press("\x03")
	w.ends(exitWell)
}

// What is no terminal gets one document, or a line that says how to get one.
func TestTopOnce(t *testing.T) {
	t.Parallel()
	agent, page := agentOn(t, apart(t), "127.0.0.1:0")
	for _, args := range [][]string{{"top"}, {"top", "--agent", page}} {
		if stdout, stderr, code := lifeline(t, args...); code != exitUsage || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "--once") {
			t.Errorf("%v: code %d: %s%s", args, code, stdout, stderr)
		}
	}
	var s state.State
	document(t, &s, "top", "--agent", page)
	if s.Schema != "lifeline/v1" || s.Run == "" || len(s.Promises) != 4 {
		t.Errorf("%+v", s)
	}
	stdout, stderr, code := lifeline(t, "top", "--once", "--agent", page)
	if code > exitFindings || stderr != "" || !strings.Contains(stdout, "\nsilence ") || !strings.Contains(stdout, "\nsources\n") || strings.Contains(stdout, "\x1b") {
		t.Errorf("code %d: %s%s", code, stdout, stderr)
	}
	stdout, stderr, code = nobody(t, "top", "--once", "--agent", "none", "--passive")
	if code > exitFindings || stderr != "" || !strings.Contains(stdout, "no agent: looks itself, as user 65534, ") || !strings.Contains(stdout, "BLIND: ") {
		t.Errorf("code %d: %s%s", code, stdout, stderr)
	}
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
	for want, args := range map[string][]string{
		"start lifeline agent, or take --agent none": {"--once", "--agent", page},
		"is no address of an agent":                  {"--once", "--agent", "127.0.0.1:7117"},
		"no such file":                               {"--once", "--token-file", "/nowhere"},
	} {
		if stdout, stderr, code := lifeline(t, append([]string{"top"}, args...)...); code < exitUsage || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, want) {
			t.Errorf("%v: code %d: %s%s", args, code, stdout, stderr)
		}
	}
}

// A terminal that cannot be drawn on is said to be one.
func TestTopDumb(t *testing.T) {
	t.Parallel()
	w := watch(t, exec.Command("env", "TERM=dumb", "lifeline", "top", "--agent", "none"))
	w.until(`TERM="dumb" cannot be drawn on: take `)
	w.ends(exitUsage)
	if bytes.Contains(w.Raw(), []byte("\x1b")) {
		t.Errorf("it drew %q", w.Raw())
	}
}
