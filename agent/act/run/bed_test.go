//go:build linux

package run_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/internal/need"
)

// The nameservers of a bed: what is sent to them is swallowed.
const (
	deadIPv4 = "10.77.53.53"
	deadIPv6 = "fd77::53"
)

// bed is a machine on which no nameserver answers, over UDP nor TCP.
type bed struct {
	t      *testing.T
	lab    *lab.Lab
	host   *lab.Host
	resolv string
}

func newBed(t *testing.T, resolv string) *bed {
	t.Helper()
	need.Program(t, "iptables")
	need.Program(t, "unshare")
	need.Program(t, "setpriv")
	l := lab.New(t)
	b := &bed{t: t, lab: l, host: l.Host("vpn"), resolv: filepath.Join(t.TempDir(), "resolv.conf")}
	open(t, filepath.Dir(b.resolv))
	if err := os.WriteFile(b.resolv, []byte(resolv), 0o644); err != nil {
		t.Fatal(err)
	}
	b.host.Run("ip", "addr", "add", deadIPv4+"/32", "dev", "lo")
	b.host.Run("ip", "addr", "add", deadIPv6+"/128", "dev", "lo", "nodad")
	b.host.Run("iptables", "-A", "INPUT", "-d", deadIPv4, "-j", "DROP")
	b.host.Run("ip6tables", "-A", "INPUT", "-d", deadIPv6, "-j", "DROP")
	return b
}

// open lets everybody into a directory of a test.
func open(t *testing.T, dir string) {
	t.Helper()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// command is a program on that machine, as nobody, without any capability.
func (b *bed) command(args ...string) *exec.Cmd {
	mount := `mount --bind "$0" /etc/resolv.conf && exec "$@"`
	user := []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"}
	cmd := b.host.Command("unshare", append(append([]string{"-m", "sh", "-c", mount, b.resolv}, user...), args...)...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // else each of three processes takes a second to end
	return cmd
}

// front is the command line of lifeline run, as the test binary has it.
func (b *bed) front(flags []string, args ...string) *exec.Cmd {
	return b.command(append(append([]string{b.binary(), "front"}, flags...), args...)...)
}

// binary is a copy of the test binary that everybody may execute.
func (b *bed) binary() string {
	b.t.Helper()
	path := filepath.Join(filepath.Dir(b.resolv), "run.test")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	// Not written by this process: what another test starts meanwhile would have it
	// open for writing, and so it could not be run.
	if out, err := exec.Command("cp", fmt.Sprintf("/proc/%d/exe", os.Getpid()), path).CombinedOutput(); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
	return path
}

// outcome is how a command ended.
type outcome struct {
	stdout, stderr string
	code           int
	took           time.Duration
}

// patience is how long a command may take at most; a mistake here is mostly one
// that waits for ever.
const patience = 90 * time.Second

func (b *bed) run(cmd *exec.Cmd) outcome {
	b.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	stop := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !stop.Stop() {
		b.t.Errorf("%v did not end within %v", cmd.Args, patience)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	return outcome{out.String(), errs.String(), cmd.ProcessState.ExitCode(), time.Since(began)}
}

// well fails the test unless the command ended well and printed want.
func (b *bed) well(o outcome, want string) {
	b.t.Helper()
	if o.code != 0 || !strings.Contains(o.stdout, want) {
		b.t.Errorf("exit code %d after %v, want 0 and %q; standard output:\n%s\nstandard error:\n%s", o.code, o.took, want, o.stdout, o.stderr)
	}
}
