package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/internal/need"
)

// keepAliveOf asks the socket of one end for idle time, interval and count.
func keepAliveOf(t *testing.T, c net.Conn) (v [3]int) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		for i, name := range []int{unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT} {
			v[i], _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, name)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var goDefault = [3]int{15, 15, 9}

func TestTuneIsDryUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	near, _, ends := wired(t, 20)
	keep := filepath.Join(t.TempDir(), "keep")
	flags := []string{"tune", "--netns", near.Path(), "--keep", keep}
	stdout, stderr, code := other(t, flags...)
	for _, want := range []string{
		"Would tune 20 connections: a probe after 1 s of quiet, then every 1 s, 4 unanswered ones in all.\n",
		"idle:    a silent peer is noticed after 5 s, now 150 s\n", "sending: stays 15 min 29 s: keepalive does not run",
		"cost:    up to 20 small packets a second while all are idle, now 1;", "Nothing is done without --yes.",
	} {
		if code != exitWell || !strings.Contains(stdout, want) {
			t.Errorf("exit code %d, no %q:\n%s%s", code, want, stdout, stderr)
		}
	}
	if got := keepAliveOf(t, ends[0]); got != goDefault {
		t.Errorf("the dry run set %v", got)
	}

	stdout, stderr, code = other(t, append(flags, "--rate", "200/s", "--yes")...)
	if code != exitWell || !strings.Contains(stdout, "\nTuned 20 connections in ") || strings.Count(stderr, " tuned ") != 2 ||
		!strings.Contains(stderr, " tuned 20, 0 gone, 0 failed, 0 left\n") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	for i := 0; i < len(ends); i += 2 {
		if near, far := keepAliveOf(t, ends[i]), keepAliveOf(t, ends[i+1]); near != [3]int{1, 1, 4} || far != goDefault {
			t.Fatalf("this end has %v, the other %v", near, far)
		}
	}
	stdout, _, _ = other(t, flags...)
	if !strings.Contains(stdout, "20 connections are noticed within 6 s already and stay as they are.") {
		t.Errorf("the second time:\n%s", stdout)
	}

	undo := []string{"tune", "--undo", "--keep", keep, "--pins", filepath.Join(t.TempDir(), "pins")}
	stdout, _, code = other(t, undo...)
	if code != exitWell || !strings.Contains(stdout, "Would restore 20 connections, ") {
		t.Errorf("exit code %d:\n%s", code, stdout)
	}
	stdout, stderr, code = other(t, append(undo, "--yes")...)
	if code != exitWell || !strings.Contains(stdout, "Restored 20 connections.") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	for _, c := range ends {
		if got := keepAliveOf(t, c); got != goDefault {
			t.Fatalf("after the undo it has %v", got)
		}
	}
}

// The trap of the user timeout is said where it is asked for.
func TestTuneTellsTheTrap(t *testing.T) {
	t.Parallel()
	near, _, _ := wired(t, 2)
	stdout, _, _ := other(t, "tune", "--netns", near.Path(), "--user-timeout", "30s")
	for _, want := range []string{"trap:    TCP_USER_TIMEOUT also ends a connection whose peer is alive and does not read (zero window) for 30 s", "noticed after 30 s, now 150 s", "sending: after 30 s, now 15 min 29 s"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q:\n%s", want, stdout)
		}
	}
	stdout, stderr, code := other(t, "tune", "--netns", near.Path(), "--json")
	var d struct {
		Would []struct {
			What, Peer string
			Count      int
		}
		Undo   string
		Before float64 `json:"bound_idle_before_seconds"`
		After  float64 `json:"bound_idle_after_seconds"`
		Latest float64 `json:"bound_idle_latest_seconds"`
	}
	if err := json.Unmarshal([]byte(stdout), &d); err != nil {
		t.Fatalf("%v:\n%s%s", err, stdout, stderr)
	}
	if code != exitWell || len(d.Would) != 1 || d.Would[0].What != "tune" || d.Would[0].Count != 2 || d.Before != 150 || d.After != 5 || d.Latest > 6 || d.Undo != "lifeline tune --undo --yes" {
		t.Errorf("exit code %d: %+v", code, d)
	}
}

// A cgroup stays held when the command has ended, and an undo that names nothing
// finds it.
func TestTuneCgroup(t *testing.T) {
	t.Parallel()
	need.Root(t)
	mount := cgroups(t)
	path := filepath.Join(mount, fmt.Sprintf("lifeline-tune-%d", os.Getpid()))
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path)
	dir := t.TempDir()
	need.Feature(t, "a file system for BPF", unix.Mount("bpf", dir, "bpf", 0, ""))
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	places := []string{"--keep", filepath.Join(t.TempDir(), "keep"), "--pins", filepath.Join(dir, "lifeline")}
	hold := append([]string{"tune", "--cgroup", path}, places...)
	stdout, stderr, code := other(t, hold...)
	if code != exitWell || !strings.Contains(stdout, "Would keep new connections of "+path+" so too, whatever their programs ask for, until the undo.") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	stdout, stderr, code = other(t, append(hold, "--yes")...)
	if code != exitWell || !strings.Contains(stdout, "New connections of "+path+" are kept so too.") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	undo := append([]string{"tune", "--undo"}, places...)
	stdout, stderr, code = other(t, undo...)
	if code != exitWell || !strings.Contains(stdout, "Would release new connections of "+path+": a probe after 1 s of quiet") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	stdout, stderr, code = other(t, append(undo, "--yes")...)
	if code != exitWell || !strings.Contains(stdout, "Released "+path+": ") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	if stdout, _, _ = other(t, undo...); stdout != "Nothing is tuned.\n" {
		t.Errorf("after the undo:\n%s", stdout)
	}
}

// Where nothing can be pinned the command holds the cgroup until it is
// interrupted.
func TestTuneCgroupWithoutPins(t *testing.T) {
	t.Parallel()
	need.Root(t)
	path := filepath.Join(cgroups(t), fmt.Sprintf("lifeline-hold-%d", os.Getpid()))
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path)
	program := filepath.Join(t.TempDir(), "lifeline") // by this name the test binary is the command
	if err := os.Symlink("/proc/self/exe", program); err != nil {
		t.Fatal(err)
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), executable, "tune", "--cgroup", path, "--yes", "--keep", filepath.Join(t.TempDir(), "keep"), "--pins", filepath.Join(t.TempDir(), "pins"))
	cmd.Args[0] = program
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for lines := bufio.NewScanner(errs); lines.Scan(); {
		if said.WriteString(lines.Text() + "\n"); strings.Contains(lines.Text(), "so new connections are tuned only until this is interrupted.") {
			_ = cmd.Process.Signal(os.Interrupt)
		}
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d:\n%s", code, said.String())
	}
}

// cgroups returns where cgroup v2 is mounted.
func cgroups(t *testing.T) string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); strings.Contains(line, " - cgroup2 ") {
			return fields[4]
		}
	}
	need.Feature(t, "cgroup v2", os.ErrNotExist)
	return ""
}

// Without the right nothing is tuned, and it says which right that is.
func TestUnprivilegedTune(t *testing.T) {
	l, err := net.Listen("tcp", "127.77.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.DialTimeout("tcp", l.Addr().String(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	keep := t.TempDir() // root's
	for _, test := range []struct{ args, needs string }{
		{"--peer 127.77.0.1 --netns self --yes --keep " + keep, "; needs root: the old options are kept where only root may write"},
		{"--peer 127.77.0.1 --netns self --yes --keep /tmp/lifeline-tune-nobody", "; needs CAP_"},
		{"--undo --yes --pins /nowhere/x --keep " + keep, "; needs root"},
	} {
		stdout, stderr, code := nobody(t, append([]string{"tune"}, strings.Fields(test.args)...)...)
		if code != exitBlind || !strings.Contains(stderr, "lifeline tune: cannot tune: ") || !strings.Contains(stderr, test.needs) {
			t.Errorf("%v: exit code %d:\n%s%s", test.args, code, stdout, stderr)
		}
	}
	if err := os.RemoveAll("/tmp/lifeline-tune-nobody"); err != nil {
		t.Error(err)
	}
	if got := keepAliveOf(t, c); got != goDefault {
		t.Errorf("it was tuned: %v", got)
	}
}
