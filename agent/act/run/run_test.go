//go:build linux

package run_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/internal/need"
)

const (
	addresses = "[192.0.2.1 2001:db8::1]"
	onlyDead  = "nameserver " + deadIPv4 + "\n"
)

// A program that asks nameservers which do not answer gets the answers of the
// operating system, over IPv4 and IPv6, UDP and TCP.
func TestLookups(t *testing.T) {
	t.Parallel()
	for name, resolv := range map[string]string{
		"IPv4": onlyDead,
		"IPv6": "nameserver " + deadIPv6 + "\n",
		"both": "nameserver " + deadIPv6 + "\nnameserver " + deadIPv4 + "\n",
		"none": "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, resolv)
			b.well(b.run(b.front(nil, b.binary(), "client", "db.corp.lab")), addresses)
			b.well(b.run(b.front(nil, b.binary(), "client", "-tcp", "db.corp.lab")), addresses)
			b.well(b.run(b.front(nil, b.binary(), "client", "many.corp.lab")), "192.0.2.100") // truncated, so over TCP
		})
	}
}

// Without, it fails, after the 10 to 20 s that Go's resolver takes.
func TestWithout(t *testing.T) {
	t.Parallel()
	b := newBed(t, onlyDead)
	o := b.run(b.command(b.binary(), "client", "db.corp.lab"))
	if o.code != 1 || o.took < 9*time.Second {
		t.Errorf("exit code %d after %v: %s%s", o.code, o.took, o.stdout, o.stderr)
	}
}

// Where descriptors cannot be borrowed, as in containers of Docker, sockets are
// replaced.
func TestReplaced(t *testing.T) {
	t.Parallel()
	b := newBed(t, onlyDead)
	b.well(b.run(b.front([]string{"-docker"}, b.binary(), "client", "db.corp.lab")), addresses)
	b.well(b.run(b.front([]string{"-docker"}, b.binary(), "client", "-tcp", "db.corp.lab")), addresses)
	b.well(b.run(b.front([]string{"-docker"}, b.binary(), "client", "-threads=16", "-times=100", "db.corp.lab", "x.lab")), "failed 0 of 1600")
}

// Many threads at once, with signals that interrupt what they do. The benchmark
// has more of each.
func TestCrowd(t *testing.T) {
	t.Parallel()
	b := newBed(t, onlyDead)
	var names []string
	for i := range 50 {
		names = append(names, fmt.Sprintf("host%d.corp.lab", i))
	}
	b.well(b.run(b.front(nil, b.binary(), "client", "-threads=64", "-times=100", "db.corp.lab")), "failed 0 of 6400")
	b.well(b.run(b.front(nil, append([]string{b.binary(), "client", "-threads=16", "-times=200", "-signals=3ms"}, names...)...)), "failed 0 of 3200")
}

// The keeper is killed, twice, while many threads look names up: none fails.
func TestKeeperKilled(t *testing.T) {
	t.Parallel()
	b := newBed(t, onlyDead)
	cmd := b.front([]string{"-report"}, b.binary(), "client", "-threads=16", "-times=800", "-pause=5ms", "db.corp.lab", "a.lab", "b.lab")
	over := make(chan struct{})
	go func() {
		for killed := false; !killed; {
			select {
			case <-over:
				return
			case <-time.After(500 * time.Millisecond):
			}
			if len(b.processes("client")) == 0 { // the keeper has not begun it yet
				continue
			}
			for _, pid := range b.processes("keeper") {
				killed = unix.Kill(pid, unix.SIGKILL) == nil
			}
		}
	}()
	o := b.run(cmd)
	close(over)
	b.well(o, "failed 0 of 12800")
	if !strings.Contains(o.stderr, "lost true") {
		t.Errorf("nothing was killed: %s", o.stderr)
	}
}

// The program begins while its keeper does: here the keeper does nothing until the
// program has made a file, and answers then.
func TestBeginsEarly(t *testing.T) {
	t.Parallel()
	b := newBed(t, onlyDead)
	cmd := b.front(nil, "/bin/sh", "-c", `touch "$UNTIL" && exec "$0" client db.corp.lab`, b.binary())
	cmd.Env = append(cmd.Env, "UNTIL="+b.shared("begun"))
	o := b.run(cmd)
	b.well(o, addresses)
	if o.took > 15*time.Second {
		t.Errorf("the program began after %v, as its keeper did", o.took)
	}
}

// A keeper that is killed before it has said what it started leaves nothing behind
// that nobody answers.
func TestKilledEarly(t *testing.T) {
	t.Parallel()
	b := newBed(t, onlyDead)
	// The front has a child of its own, which is not to be touched.
	script := `sleep 77 >/dev/null 2>&1 & echo $!; exec "$0" front "$0" client -pause=90s db.corp.lab`
	cmd := b.command("/bin/sh", "-c", script, b.binary())
	cmd.Env = append(cmd.Env, "UNTIL="+b.shared("never"))
	var begun atomic.Bool
	go func() {
		for range 3000 {
			if begun.Store(len(b.processes("client")) > 0); begun.Load() {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		for _, pid := range b.processes("keeper") {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}()
	o := b.run(cmd)
	if !begun.Load() || o.code != 125 || !strings.Contains(o.stderr, "ended before it began") {
		t.Errorf("begun %v, exit code %d after %v: %s%s", begun.Load(), o.code, o.took, o.stdout, o.stderr)
	}
	if left := b.processes("client"); len(left) > 0 {
		t.Errorf("the program lives on: %v", left)
	}
	other, err := strconv.Atoi(strings.TrimSpace(o.stdout))
	if err == nil {
		err = unix.Kill(other, unix.SIGKILL)
	}
	if err != nil {
		t.Errorf("another process of the front's: %v: %s", err, o.stdout)
	}
}

// shared is the path of a file that programs of the bed can make.
func (b *bed) shared(name string) string {
	b.t.Helper()
	dir := filepath.Join(filepath.Dir(b.resolv), "shared")
	if err := os.Mkdir(dir, 0o777); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		b.t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// processes returns those of the bed that the test binary is, with this role.
func (b *bed) processes(role string) (pids []int) {
	entries, _ := os.ReadDir("/proc")
	self, err := os.Stat(b.binary())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		exe, err := os.Stat(filepath.Join("/proc", entry.Name(), "exe"))
		words := strings.Split(string(line), "\x00")
		if err == nil && os.SameFile(exe, self) && len(words) > 1 && words[1] == role {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A descendant that lives on when the program has ended is served on, also when
// its keeper is killed then, and when the next one is. All ends with it.
func TestDaemon(t *testing.T) {
	t.Parallel()
	b := newBed(t, onlyDead)
	out := filepath.Join(filepath.Dir(b.resolv), "out")
	if err := os.WriteFile(out, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(out, 0o666); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("setsid sh -c 'for i in 1 2 3 4; do sleep 1.5; %s client -signals=3ms d$i.lab; done' >%s 2>&1 </dev/null & exit 5", b.binary(), out)
	o := b.run(b.front(nil, "/bin/sh", "-c", script))
	if o.code != 5 {
		t.Errorf("exit code %d: %s", o.code, o.stderr)
	}
	for range 2 {
		time.Sleep(1600 * time.Millisecond)
		pids := b.processes("keeper")
		if len(pids) != 2 {
			t.Errorf("%d processes keep the program, want two", len(pids))
		}
		_ = unix.Kill(pids[0], unix.SIGKILL)
	}
	for end := time.Now().Add(patience); len(b.processes("keeper"))+len(b.processes("client")) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the keeper stays when all that it served is gone")
		}
	}
	text, err := os.ReadFile(out)
	if n := strings.Count(string(text), addresses); n != 4 || err != nil {
		t.Errorf("%d lookups of 4 went well: %s %v", n, text, err)
	}
}

// What shells and other programs start is served too, whichever way they start
// it.
func TestTrees(t *testing.T) {
	t.Parallel()
	b := newBed(t, onlyDead)
	b.well(b.run(b.front(nil, "/bin/bash", "-c", b.binary()+" client a.lab; ("+b.binary()+" client b.lab) & wait; "+b.binary()+" client c.lab | cat")), addresses)
	python := need.Program(t, "/usr/bin/python3") // not one of a directory that nobody may enter
	b.well(b.run(b.front(nil, python, "-c", "import subprocess,sys; sys.exit(subprocess.call(['"+b.binary()+"','client','d.lab']))")), addresses)
}

// Within another one the work is left to that.
func TestNested(t *testing.T) {
	t.Parallel()
	b := newBed(t, onlyDead)
	o := b.run(b.front([]string{"-report"}, b.binary(), "front", b.binary(), "client", "db.corp.lab"))
	b.well(o, addresses)
	if !strings.Contains(o.stderr, "ran within this one") || !strings.Contains(o.stderr, "way: nested") {
		t.Errorf("it is not told: %s", o.stderr)
	}
}

// Where somebody else listens, the program is told of a proxy, with a word why.
func TestForeignListener(t *testing.T) {
	t.Parallel()
	b := newBed(t, onlyDead)
	o := b.run(b.front([]string{"-busy"}, "/bin/sh", "-c", "echo $HTTPS_PROXY"))
	b.well(o, "http://lifeline:")
	if !strings.Contains(o.stderr, "way: proxy seccomp: device or resource busy") {
		t.Errorf("it is not told: %s", o.stderr)
	}
	o = b.run(b.front([]string{"-busy", "-via=seccomp"}, "/bin/true"))
	if o.code != 125 || !strings.Contains(o.stderr, "not to be had") {
		t.Errorf("exit code %d: %s", o.code, o.stderr)
	}
}

// A static program of musl, which does not connect, is served, and so is one
// that cannot be borrowed from.
func TestMusl(t *testing.T) {
	t.Parallel()
	gcc := need.Program(t, "musl-gcc")
	for name, resolv := range map[string]string{
		"IPv4": onlyDead,
		"IPv6": "nameserver " + deadIPv6 + "\nnameserver " + deadIPv4 + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, resolv)
			program := filepath.Join(filepath.Dir(b.resolv), "musl")
			if out, err := exec.Command(gcc, "-static", "-o", program, "testdata/lookup.c").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			b.well(b.run(b.front(nil, program, "db.corp.lab", "a.lab", "db.corp.lab")), "192.0.2.1\n")
			b.well(b.run(b.front(nil, program, "many.corp.lab")), "192.0.2.1\n")
			b.well(b.run(b.front([]string{"-docker"}, "/bin/sh", "-c", program+" db.corp.lab")), "192.0.2.1\n")
			if o := b.run(b.front(nil, program, "none.lab")); o.code != 1 || o.took > patience/2 {
				t.Errorf("a name that does not exist: %d after %v: %s", o.code, o.took, o.stdout)
			}
		})
	}
}

// Sockets that cannot reach loopback are replaced.
func TestTied(t *testing.T) {
	t.Parallel()
	b := newBed(t, onlyDead)
	b.lab.Wire(b.host, "10.77.1.7/24", b.lab.Host("gateway"), "10.77.1.1/24")
	b.host.Route("default", "10.77.1.1")
	b.well(b.run(b.front(nil, b.binary(), "client", "-local=10.77.1.7", "db.corp.lab")), addresses)
	b.well(b.run(b.front(nil, b.binary(), "client", "-device=eth0", "db.corp.lab")), addresses)
	b.well(b.run(b.front(nil, b.binary(), "client", "-device=eth0", "-tcp", "db.corp.lab")), addresses)
}

// The report says what could not be helped, and why.
func TestReport(t *testing.T) {
	t.Parallel()
	b := newBed(t, onlyDead)
	dir := filepath.Dir(b.resolv)
	secret := filepath.Join(dir, "secret")
	data, err := os.ReadFile(b.binary())
	if err == nil {
		err = os.WriteFile(secret, data, 0o711)
	}
	if err == nil {
		err = os.Chmod(secret, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	// io_uring_setup(2), whatever the kernel says to it
	uring := need.Program(t, "/usr/bin/python3") + " -c 'import ctypes; ctypes.CDLL(None).syscall(425, 1, ctypes.create_string_buffer(120))'; "
	script := uring + b.binary() + " client a.lab; timeout 1 " + secret + " client b.lab; su -c true nobody </dev/null; timeout 1 getent ahosts c.lab; true"
	o := b.run(b.front([]string{"-report"}, "/bin/sh", "-c", script))
	b.well(o, addresses)
	for _, want := range []string{
		b.binary() + ": asked nameservers, and was answered by the operating system instead",
		secret + ": is executable but not readable",
		"su: is a set-user-ID program and ran without its right",
		"getent: asks nameservers by way of a library; it was left alone",
		": uses io_uring; what it connects to by that is not seen",
		"refused 0 lost false",
	} {
		if !strings.Contains(o.stderr, want) {
			t.Errorf("the report does not say %q:\n%s", want, o.stderr)
		}
	}
}

// A script that nobody controls, as in CI, has a stopped child: that the program
// ends does not hang up the script.
func TestBesideTheStopped(t *testing.T) {
	t.Parallel()
	b := newBed(t, onlyDead)
	const script = `trap 'echo hung up' HUP; sleep 60 & kill -STOP $!; "$@"; kill -KILL $!; echo over`
	cmd := b.command("/bin/sh", "-c", script, "sh", b.binary(), "front", "/bin/echo", "done")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if o := b.run(cmd); o.code != 0 || o.stdout != "done\nover\n" {
		t.Errorf("exit code %d: %q %q", o.code, o.stdout, o.stderr)
	}
}

// Exit codes and deaths are the program's own.
func TestStatus(t *testing.T) {
	t.Parallel()
	b := newBed(t, onlyDead)
	if o := b.run(b.front(nil, "/bin/sh", "-c", "cat <&3; exit 7", "sh")); o.code != 7 {
		t.Errorf("exit code %d, want 7", o.code)
	}
	if o := b.run(b.front(nil, "/bin/sh", "-c", "echo out; echo err >&2; kill -SEGV $$")); o.code != -1 || o.stdout != "out\n" || o.stderr != "err\n" {
		t.Errorf("exit code %d, want death by a signal: %q %q", o.code, o.stdout, o.stderr)
	}
	if o := b.run(b.front(nil, "/nowhere/at-all")); o.code != 125 || !strings.Contains(o.stderr, "no such file") {
		t.Errorf("exit code %d: %s", o.code, o.stderr)
	}
	if o := b.run(b.front(nil, b.resolv)); o.code != 125 || !strings.Contains(o.stderr, "permission denied") {
		t.Errorf("exit code %d: %s", o.code, o.stderr)
	}
}
