//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/need"
	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// What small machines run: it knows no keepalive@openssh.com, and refuses it.
func newDropbear(t *testing.T) *fleet {
	t.Helper()
	program, keygen := need.Program(t, "dropbear"), need.Program(t, "dropbearkey")
	f := &fleet{}
	f.near, f.far = hosts(t, "10.77.1.1/24", "10.77.1.2/24")
	dir := f.far.lab.Dir()
	keys, err := makeSSHKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "dropbear")
	out, err := exec.Command(keygen, "-t", "ed25519", "-f", key).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var host xssh.PublicKey
	for line := range strings.Lines(string(out)) {
		if parsed, _, _, _, err := xssh.ParseAuthorizedKey([]byte(line)); err == nil {
			host = parsed
		}
	}
	if host == nil {
		t.Fatalf("no public key in %q", out)
	}
	f.config = impatient(keys)
	f.config.HostKey = xssh.FixedHostKey(host)
	// As with known_hosts, the algorithm is that of the key that is known: dropbear
	// 2022.83 agrees to an RSA one also when it has no such key, and then ends.
	f.config.HostKeyAlgorithms = []string{host.Type()}
	// It looks for the user's key in the user's home, which here is another than
	// the real one: of that nothing must be touched.
	preload := "LD_PRELOAD=libnss_wrapper.so"
	check := exec.Command("env", preload, "true")
	var complaint strings.Builder
	check.Stderr = &complaint
	if err := check.Run(); err != nil {
		t.Fatal(err)
	}
	if complaint.Len() > 0 {
		need.Feature(t, "libnss-wrapper", errors.New(strings.TrimSpace(complaint.String())))
	}
	if err := os.Mkdir(filepath.Join(dir, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"passwd":               fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", keys.Login, os.Getuid(), os.Getgid(), dir),
		"group":                fmt.Sprintf("%s:x:%d:\n", keys.Login, os.Getgid()),
		".ssh/authorized_keys": string(xssh.MarshalAuthorizedKey(keys.User.PublicKey())),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.far.Serve(server, "env", preload, "NSS_WRAPPER_PASSWD="+filepath.Join(dir, "passwd"), "NSS_WRAPPER_GROUP="+filepath.Join(dir, "group"),
		program, "-F", "-E", "-s", "-r", key, "-p", server, "-P", filepath.Join(dir, "dropbear.pid"))
	f.await(t)
	return f
}

func TestDropbear(t *testing.T) {
	t.Parallel()
	client := newDropbear(t).connect(t)
	r, err := client.Run(t.Context(), "echo out; echo err >&2; exit 7")
	var exit *ssh.ExitError
	if !errors.As(err, &exit) || exit.Status != 7 || string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" {
		t.Errorf("%+v, %v", r, err)
	}
	cmd := client.Command("tty")
	cmd.Pty = &ssh.Pty{Rows: 50, Columns: 132}
	if out, err := cmd.Output(t.Context()); err != nil || !strings.HasPrefix(string(out), "/dev/pts/") {
		t.Errorf("%q, %v", out, err)
	}
	cmd = client.Command("cat")
	cmd.Stdin = strings.NewReader("said back")
	if out, err := cmd.Output(t.Context()); err != nil || string(out) != "said back" {
		t.Errorf("%q, %v", out, err)
	}
	const bound = 4 * time.Second // enough for a session of a busy machine to begin
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	began := time.Now()
	err = client.Command("sleep 100").Run(ctx)
	returned(t, err, began, bound, context.DeadlineExceeded, ssh.Run)
	// It refuses to be asked for a sign of life, which is one.
	time.Sleep(client.Bound().Silence * 3 / 2)
	if err := client.Command("true").Run(t.Context()); err != nil {
		t.Errorf("after a silence of ours: %v", err)
	}
}

// newJump is a fleet with a server behind the far host, whose address it returns.
func newJump(t *testing.T) (f *fleet, behind string) {
	t.Helper()
	f = newFleet(t)
	l := f.far.lab
	last := l.Host("behind")
	l.Wire(last, "10.77.2.2/24", f.far, "10.77.2.1/24")
	behind = "10.77.2.2:22"
	last.SSHD(behind, f.keys)
	return f, behind
}

// The jump host is lost between us and a server that lives, whose connection
// ends too.
func TestSSHJumpHostLost(t *testing.T) {
	t.Parallel()
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, behind := newJump(t)
			outer := f.connect(t)
			config := f.config
			config.Budgets = busy
			inner, err := outer.Jump(t.Context(), behind, config)
			if err != nil {
				t.Fatal(err)
			}
			defer inner.Close()
			cmd := inner.Command("echo begun; sleep 1000")
			begun, ended := make(begins, 1), make(chan error, 1)
			cmd.Stdout = begun
			if err := cmd.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			go func() { ended <- cmd.Wait(context.Background()) }()
			<-begun
			lose(f)
			lost := time.Now()
			returned(t, <-ended, lost, inner.Bound().Silence, ssh.ErrSilent, ssh.Run)
			<-outer.Done()
			returned(t, outer.Err(), lost, outer.Bound().Silence, ssh.ErrSilent, ssh.Idle)
			err = inner.Command("true").Run(t.Context())
			returned(t, err, time.Now(), 0, ssh.ErrSilent, ssh.Open)
			_, err = outer.Jump(t.Context(), behind, config)
			returned(t, err, time.Now(), 0, ssh.ErrSilent, ssh.Connect)
		})
	}
}

// begins says that there was output.
type begins chan struct{}

func (b begins) Write(p []byte) (int, error) {
	select {
	case b <- struct{}{}:
	default:
	}
	return len(p), nil
}

// proxy is what people most often have as ProxyCommand.
func (f *fleet) proxy(to string) *exec.Cmd {
	jump, _, _ := net.SplitHostPort(server)
	return f.near.Command("ssh", "-F", "none", "-i", filepath.Join(f.keys.Dir, "user"), "-o", "IdentitiesOnly=yes", "-o", "PasswordAuthentication=no",
		"-o", "UserKnownHostsFile="+filepath.Join(f.keys.Dir, "known_hosts"), "-W", to, jump)
}

// A ProxyCommand, the program ssh itself, is frozen, or the jump host is that
// it goes by; the program does not stay.
func TestSSHProxyCommandLost(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(f *fleet, program *exec.Cmd){
		"program stopped":   func(_ *fleet, program *exec.Cmd) { _ = program.Process.Signal(unix.SIGSTOP) },
		"jump host stopped": func(f *fleet, _ *exec.Cmd) { f.far.Signal(unix.SIGSTOP) },
		"jump host cut off": func(f *fleet, _ *exec.Cmd) { f.far.Unplug() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			need.Program(t, "ssh")
			f, behind := newJump(t)
			config := f.config
			config.Budgets = busy
			program := f.proxy(behind)
			client, err := ssh.DialProgram(t.Context(), program, behind, config)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			cmd := client.Command("echo begun; sleep 1000")
			begun, ended := make(begins, 1), make(chan error, 1)
			cmd.Stdout = begun
			if err := cmd.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			go func() { ended <- cmd.Wait(context.Background()) }()
			<-begun
			lose(f, program)
			lost := time.Now()
			returned(t, <-ended, lost, client.Bound().Silence, ssh.ErrSilent, ssh.Run)
			_ = client.Close()
			f.deserted(t)
		})
	}
}

// deserted checks that no program is left on the client's host.
func (f *fleet) deserted(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(slack); ; time.Sleep(10 * time.Millisecond) {
		pids, err := f.near.Processes()
		if err == nil && len(pids) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("these are left: %v, %v", pids, err)
		}
	}
}

// A ProxyCommand whose jump host is frozen from the start.
func TestSSHProxyCommandLostBeforeDial(t *testing.T) {
	t.Parallel()
	need.Program(t, "ssh")
	f := newFleet(t)
	f.far.Signal(unix.SIGSTOP)
	began := time.Now()
	program := f.proxy("10.77.2.2:22")
	program.Stderr = t.Output()
	_, err := ssh.DialProgram(t.Context(), program, "10.77.2.2:22", f.config)
	returned(t, err, began, f.config.Budgets.Handshake, context.DeadlineExceeded, ssh.Handshake)
	f.deserted(t)
}
