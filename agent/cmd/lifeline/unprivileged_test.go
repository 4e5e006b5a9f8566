package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/internal/need"
)

// nobody runs the command as a user without any right, and returns what it
// prints and its exit code.
func nobody(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := nobodyCommand(t, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// nobodyCommand is the same, not begun.
func nobodyCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	need.Root(t)
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "lifeline") // by this name the test binary is the command
	copyFile(t, os.Args[0], program)
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	return cmd
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	// Not by this process: what another test starts meanwhile would have the file
	// open for writing, and so it could not be run.
	if out, err := exec.Command("cp", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// An ordinary user gets what can be seen, hears what cannot and which
// capability would show it.
func TestUnprivilegedCensus(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // held by another user, so nobody cannot see whose it is
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	stdout, stderr, code := nobody(t, "census", "--by", "process", "--state", "LISTEN", "--protocol", "tcp")
	if code != exitWell {
		t.Errorf("exit code %d, want %d", code, exitWell)
	}
	if !strings.Contains(stdout, "(no process)") {
		t.Errorf("the listener of another user is not counted:\n%s", stdout)
	}
	for _, want := range []string{"Could not see:", "owners: ", "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("standard error does not say %q:\n%s", want, stderr)
		}
	}
}

func TestUnprivilegedCheck(t *testing.T) {
	stdout, stderr, code := nobody(t, "check", "--for", "100ms", "--no-probe")
	if code > exitFindings {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if !strings.Contains(stdout, "as far as could be seen") || strings.Contains(stdout, "All four promises are kept.\n") {
		t.Errorf("blind spots are reported as all well:\n%s", stdout)
	}

	stdout, _, _ = nobody(t, "check", "--for", "100ms", "--no-probe", "--json")
	var d struct {
		Blind []struct{ Source, Error, Needs string }
	}
	if err := json.Unmarshal([]byte(stdout), &d); err != nil {
		t.Fatal(err)
	}
	sources := make(map[string]bool)
	for _, b := range d.Blind {
		sources[b.Source] = true
		if b.Error == "" {
			t.Errorf("a blind spot without a reason: %+v", b)
		}
	}
	if !sources["owners"] {
		t.Errorf("blind is %+v, want owners in it", d.Blind)
	}
}

// Where nothing at all can be seen, that is said and is an exit code of its
// own: no answer is not a good answer.
func TestUnprivilegedNamespace(t *testing.T) {
	host := lab.New(t).Host("foreign")
	stdout, stderr, code := nobody(t, "census", "--netns", host.Path())
	if code != exitBlind || stdout != "" {
		t.Errorf("exit code %d, want %d; it prints %q", code, exitBlind, stdout)
	}
	if !strings.HasSuffix(stderr, "operation not permitted; needs CAP_SYS_ADMIN and CAP_SYS_PTRACE\n") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("standard error is not one line that says what it needs:\n%s", stderr)
	}
}
