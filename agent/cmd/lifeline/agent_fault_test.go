package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/internal/need"
)

// faulty is an agent in a mount namespace of its own, where script has prepared
// something that it must bear.
func faulty(t *testing.T, netns, history, script string, extra ...*os.File) *watcher {
	t.Helper()
	need.Root(t)
	for _, name := range []string{"unshare", "mount", "mkfifo"} {
		need.Program(t, name)
	}
	cmd := exec.Command("unshare", "--mount", "sh", "-c", "set -e\n"+script+"\nexec \"$@\"", "sh",
		program(t), "agent", "--listen", "127.0.0.1:0", "--passive", "--json", "--history", history, "--netns", netns)
	cmd.ExtraFiles = extra
	return watching(t, nil, cmd)
}

// others waits until all other sources have looked, and none of them failed; that
// of programs takes its time. Memory stays bounded.
func (w *watcher) others(than ...string) *state.State {
	w.t.Helper()
	than = append(than, "programs")
	s := w.until("that the other sources look", func(s *state.State) bool {
		return !slices.ContainsFunc(s.Sources, func(src state.Source) bool {
			return !slices.Contains(than, src.Name) && (src.Last == nil || src.Error != "")
		})
	})
	if s.Agent.Resident == nil || *s.Agent.Resident > 400<<20 { // the race detector takes the most of it
		w.t.Errorf("it takes %v bytes", s.Agent.Resident)
	}
	return s
}

func blindTo(s *state.State, what string) bool {
	return slices.ContainsFunc(s.Blind, func(b state.Blind) bool { return strings.Contains(b.Error, what) })
}

// A file of /proc that cannot be read to an end, as that of a process whose
// memory is locked: all is looked at but what it would have said.
func TestAgentStuckProc(t *testing.T) {
	t.Parallel()
	victim := exec.Command("sleep", "120")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = victim.Process.Kill(); _ = victim.Wait() }()
	fifo := filepath.Join(t.TempDir(), "fifo")
	w := faulty(t, "self", "none", fmt.Sprintf("mkfifo %s\nmount --bind %s /proc/%d/cmdline", fifo, fifo, victim.Process.Pid))
	s := w.others()
	if !blindTo(s, "did not return within 1s") {
		t.Errorf("it does not say what it could not read: %+v", s.Blind)
	}
	w.end()
}

// fileServer returns what mounts a file server at dir/server that does not answer,
// and the file that the kernel asks it by, which must be its descriptor 3.
func fileServer(t *testing.T, dir string) (script string, asks *os.File) {
	t.Helper()
	r, asks, err := os.Pipe() // nobody reads it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); asks.Close() })
	return fmt.Sprintf("mount --make-rprivate /\nmkdir -p %[1]s/server\nmount -t autofs -o fd=3,pgrp=1,minproto=5,maxproto=5,direct autofs %[1]s/server", dir), asks
}

// A network namespace that can only be reached through a file server that does
// not answer: the sockets of all others are seen.
func TestAgentStuckNamespace(t *testing.T) {
	t.Parallel()
	host := lab.New(t).Host("lost")
	dir := t.TempDir()
	serve, asks := fileServer(t, dir)
	w := faulty(t, "all", "none", fmt.Sprintf("mount --make-rprivate /\nmkdir %[1]s/server\ntouch %[1]s/server/net\nmount --bind %[2]s %[1]s/server/net\numount %[2]s\n",
		dir, host.Path())+serve, asks)
	s := w.others()
	if !blindTo(s, "did not return within 1s") || s.Totals.Sockets == 0 || s.Totals.Namespaces == 0 {
		t.Errorf("%d sockets of %d namespaces; it does not say which it could not enter: %+v", s.Totals.Sockets, s.Totals.Namespaces, s.Blind)
	}
	w.end()
}

// The configuration of resolvers lies on a file server that does not answer: the
// promise of names is unknown, and says why, and all else is looked at.
func TestAgentStuckNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serve, asks := fileServer(t, dir)
	w := faulty(t, "self", "none", serve+fmt.Sprintf("\nmkdir %[1]s/etc\ncp /etc/passwd /etc/group %[1]s/etc\nln -s %[1]s/server/resolv.conf %[1]s/etc/resolv.conf\n"+
		"mount --bind %[1]s/etc /etc", dir), asks)
	s := w.others("names")
	if !blindTo(s, "the configuration of resolvers: did not return within 1s") {
		t.Errorf("it does not say what it could not read: %+v", s.Blind)
	}
	s = w.until("that names could not be looked at", func(s *state.State) bool { return sourceOf(s, "names").Error != "" })
	if p := s.Promises[0]; p.Status != state.Unknown || !strings.Contains(p.Summary, "could not be looked at: the configuration of resolvers") {
		t.Errorf("the promise of names is %+v", p)
	}
	if e := w.next("source failed"); e.Source != "names" {
		t.Errorf("its log says %+v", e)
	}
	w.end()
}

// The history lies on a file server that does not answer: all is looked at, and the
// agent ends when it is told to.
func TestAgentStuckHistory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serve, asks := fileServer(t, dir)
	w := faulty(t, "self", dir+"/server/lifeline/history.db", serve, asks)
	if s := w.others(); s.Agent.NotStored == "" {
		t.Error("it says that a history is written")
	}
	w.end()
}

// The file that would say that the machine goes lies on a file server that does not
// answer: the agent ends when it is told to, evacuates nothing, and says why.
func TestAgentStuckShutdownFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serve, asks := fileServer(t, dir)
	if err := os.WriteFile(dir+"/policy.yaml", []byte("acts:\n  evac: {on: shutdown}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := faulty(t, apart(t), "none", serve+fmt.Sprintf("\n"+`set -- "$@" --passive=false --policy %[1]s/policy.yaml --audit %[1]s/audit.jsonl --socket %[1]s/agent.sock --shutdown-file %[1]s/server/going`, dir), asks)
	w.others()
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := w.next("nobody knows whether this machine goes: nothing is evacuated"); !strings.Contains(e.Error, "did not return within 1s") {
		t.Errorf("%+v", e)
	}
	w.end()
	if acts, err := os.ReadFile(dir + "/audit.jsonl"); err == nil && len(acts) > 0 {
		t.Errorf("it did %s", acts)
	}
}

// Without the rights for BPF: owners come from /proc, the leak watch says what it
// needs.
func TestAgentWithoutBPF(t *testing.T) {
	t.Parallel()
	need.Root(t)
	cmd := exec.Command(need.Program(t, "setpriv"), "--bounding-set=-bpf,-sys_admin,-perfmon", program(t), "agent", "--listen", "127.0.0.1:0", "--passive", "--json", "--history", "none", "--netns", "self")
	w := watching(t, nil, cmd)
	s := w.others("leaks")
	leaks := sourceOf(s, "leaks")
	if leaks.Error == "" || s.Totals.Processes == 0 || !slices.ContainsFunc(s.Blind, func(b state.Blind) bool { return b.Needs != nil && strings.Contains(*b.Needs, "CAP_BPF") }) {
		t.Errorf("%d processes; leaks %+v; blind %+v", s.Totals.Processes, leaks, s.Blind)
	}
	if s.Promises[3].Status == state.Unknown {
		t.Errorf("leaks by their signs are looked at without BPF: %+v", s.Promises[3])
	}
	w.end()
}
