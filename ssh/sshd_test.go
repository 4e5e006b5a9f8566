package ssh_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/opensshd"
	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
)

// sshd is a real OpenSSH server on loopback, and how to log in to it.
type sshd struct {
	addr   string
	config ssh.Config
}

func startSSHD(t testing.TB, options ...string) *sshd {
	t.Helper()
	d := opensshd.Start(t, options...)
	return &sshd{addr: d.Addr, config: ssh.Config{User: "root", Auth: []xssh.AuthMethod{xssh.PublicKeys(d.Me)}, HostKey: xssh.FixedHostKey(d.Host.PublicKey())}}
}

func (d *sshd) dial(t testing.TB) *ssh.Client {
	t.Helper()
	client, err := ssh.Dial(t.Context(), d.addr, d.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOpenSSH(t *testing.T) {
	t.Parallel()
	client := startSSHD(t).dial(t)

	r, err := client.Run(t.Context(), "echo out; echo err >&2; exit 7")
	var exit *ssh.ExitError
	if !errors.As(err, &exit) || exit.Status != 7 || string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" {
		t.Errorf("%+v, %v", r, err)
	}
	cmd := client.Command("echo $LIFELINE_A; tty")
	cmd.Env, cmd.Pty = []string{"LIFELINE_A=it works"}, &ssh.Pty{Rows: 50, Columns: 132}
	if out, err := cmd.Output(t.Context()); err != nil || !strings.HasPrefix(string(out), "it works\r\n/dev/pts/") {
		t.Errorf("%q, %v", out, err)
	}
	cmd = client.Command("true")
	cmd.Env = []string{"SECRET=1"}
	if err := cmd.Run(t.Context()); !errors.Is(err, ssh.ErrRefused) || !strings.Contains(err.Error(), "SECRET") {
		t.Error(err)
	}
	cmd = client.Command("echo $LIFELINE_A-$SECRET")
	cmd.SendEnv = []string{"SECRET=1", "LIFELINE_A=taken"} // what AcceptEnv does not have is left out, as ssh has it
	if out, err := cmd.Output(t.Context()); err != nil || string(out) != "taken-\n" {
		t.Errorf("%q, %v", out, err)
	}
	cmd = client.Command("true")
	cmd.SendEnv = []string{"=secret"}
	if err := cmd.Run(t.Context()); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "NAME=value") {
		t.Error(err)
	}
	cmd = client.Command("cat")
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<19)
	cmd.Stdin = bytes.NewReader(text)
	if out, err := cmd.Output(t.Context()); err != nil || !bytes.Equal(out, text) {
		t.Errorf("%d bytes of %d, %v", len(out), len(text), err)
	}
	cmd = client.Command("head -c 30000000 /dev/zero")
	if out, err := cmd.Output(t.Context()); err != nil || len(out) != 16<<20 || !cmd.Truncated() {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}

// A command that is given up is ended on the server when it has a terminal: sshd
// passes no signals on to processes of root (session_signal_req in session.c), and
// without a terminal nothing else would reach them.
func TestOpenSSHCancel(t *testing.T) {
	t.Parallel()
	client := startSSHD(t).dial(t)
	mark := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithTimeout(t.Context(), 4*s)
	defer cancel()
	cmd := client.Command("echo $$ > " + ssh.Quote(mark) + "; echo begun; while :; do sleep 0.1; done")
	cmd.Pty = &ssh.Pty{}
	began := time.Now()
	out, err := cmd.Output(ctx)
	took := time.Since(began)
	t.Logf("after %v: %v", took, err)
	if !errors.Is(err, context.DeadlineExceeded) || took > 30*s || string(out) != "begun\r\n" {
		t.Errorf("%q, %v after %v", out, err, took)
	}
	pid, err := os.ReadFile(mark)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * s); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat("/proc/" + strings.TrimSpace(string(pid))); os.IsNotExist(err) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the command still runs")
		}
	}
	if err := client.Command("true").Run(t.Context()); err != nil {
		t.Errorf("the connection: %v", err)
	}
}

func TestOpenSSHBackgroundChild(t *testing.T) {
	t.Parallel()
	client := startSSHD(t).dial(t)
	cmd := client.Command("sleep 20 & echo hi")
	cmd.Budgets.WaitAfterExit = s
	began := time.Now()
	out, err := cmd.Output(t.Context())
	took := time.Since(began)
	t.Logf("after %v: %v", took, err)
	if !errors.Is(err, ssh.ErrWaitAfterExit) || string(out) != "hi\n" || took > 15*s {
		t.Errorf("%q, %v after %v", out, err, took)
	}
	if e, ok := cmd.Exit(); !ok || !e.OK() {
		t.Errorf("%+v, %v", e, ok)
	}
}

// The server dies in the middle: of its own processes only the one of our
// connection is killed. It has started the command then, and may not have said so
// yet.
func TestOpenSSHKilled(t *testing.T) {
	t.Parallel()
	client := startSSHD(t).dial(t)
	cmd := client.Command("echo begun; kill -9 $PPID; sleep 20")
	began := time.Now()
	out, err := cmd.Output(t.Context())
	took := time.Since(began)
	t.Logf("after %v: %v", took, err)
	var e *ssh.Error
	if !errors.As(err, &e) || !errors.Is(err, ssh.ErrDisconnected) || e.Phase != ssh.Run && e.Phase != ssh.Request || e.Fate != ssh.MayHaveRun || took > 15*s {
		t.Errorf("%q, %v after %v", out, err, took)
	}
}

// More commands at a time than a server takes: the refusals say so, and
// everything else is done.
func TestOpenSSHSessions(t *testing.T) {
	t.Parallel()
	client := startSSHD(t, "MaxSessions 3").dial(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	counts := map[string]int{}
	for i := range 12 {
		wg.Go(func() {
			out, err := client.Command(fmt.Sprintf("sleep 0.3; echo %d", i)).Output(t.Context())
			var e *ssh.Error
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && string(out) == fmt.Sprintf("%d\n", i):
				counts["done"]++
			case errors.Is(err, ssh.ErrRefused) && errors.As(err, &e) && e.Fate == ssh.NotSent && e.Phase == ssh.Open:
				counts["refused"]++
			default:
				t.Errorf("%q, %v", out, err)
			}
		})
	}
	wg.Wait()
	if counts["done"] < 3 || counts["refused"] == 0 {
		t.Error(counts)
	}
}

func TestOpenSSHWrongKey(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	other, _ := opensshd.Key(t, t.TempDir(), "other")
	d.config.Auth = []xssh.AuthMethod{xssh.PublicKeys(other)}
	_, err := ssh.Dial(t.Context(), d.addr, d.config)
	if !errors.Is(err, ssh.ErrAuthentication) {
		t.Error(err)
	}
	d.config.HostKey = xssh.FixedHostKey(other.PublicKey())
	if _, err := ssh.Dial(t.Context(), d.addr, d.config); !errors.Is(err, ssh.ErrHostKey) {
		t.Error(err)
	}
}

// What the guarantee costs: the same command in sequence, here and by x/crypto.
func TestCost(t *testing.T) {
	d := startSSHD(t)
	client := d.dial(t)
	raw, err := xssh.Dial("tcp", d.addr, &xssh.ClientConfig{User: d.config.User, Auth: d.config.Auth, HostKeyCallback: d.config.HostKey})
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	var ours, theirs []time.Duration
	for began := time.Now(); time.Since(began) < 2*s; { // by turns, so that other load hits both
		start := time.Now()
		if err := client.Command("true").Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		ours = append(ours, time.Since(start))
		start = time.Now()
		session, err := raw.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := session.Run("true"); err != nil {
			t.Fatal(err)
		}
		theirs = append(theirs, time.Since(start))
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	here, there := ours[len(ours)/2], theirs[len(theirs)/2]
	t.Logf("true, median of %d: %v here, %v by x/crypto: %.2f times as fast", len(ours), here, there, float64(there)/float64(here))
}
