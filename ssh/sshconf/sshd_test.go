//go:build unix

package sshconf_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/need"
	"github.com/lifeline-go/lifeline/internal/opensshd"
	"github.com/lifeline-go/lifeline/ssh/sshconf"
	xssh "golang.org/x/crypto/ssh"
)

// sshd is a real OpenSSH server on loopback.
type sshd struct{ *opensshd.Server }

func startSSHD(t testing.TB, options ...string) *sshd {
	t.Helper()
	return &sshd{opensshd.Start(t, options...)}
}

// freeze stops the server and its children, and lets them go on at the end.
func (d *sshd) freeze(t testing.TB) {
	t.Helper()
	for _, pid := range d.Family() {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Error(err)
		}
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	}
}

// entry is what ssh_config says of the server.
func (d *sshd) entry(name string) string {
	return fmt.Sprintf("Host %s\n HostName 127.0.0.1\n Port %d\n User root\n IdentityFile %s\n UserKnownHostsFile %s\n StrictHostKeyChecking yes\n", name, d.Port, d.MeFile, d.knownHosts())
}

func (d *sshd) knownHosts() string { return filepath.Join(d.Dir, "known_hosts") }

// know writes a key of the server to its known_hosts.
func (d *sshd) know(t testing.TB, marker string, key xssh.PublicKey) {
	t.Helper()
	write(t, d.knownHosts(), fmt.Sprintf("%s[127.0.0.1]:%d %s", marker, d.Port, xssh.MarshalAuthorizedKey(key)))
}

// hostOf resolves a name in a configuration, for an account with nothing of its
// own. The system's known_hosts are not looked at.
func hostOf(t testing.TB, text, name string) *sshconf.Host {
	t.Helper()
	account := nobody(t)
	file := filepath.Join(account.Home, "config")
	write(t, file, "GlobalKnownHostsFile none\n"+text)
	config, err := sshconf.Load(sshconf.Options{Account: account, File: file})
	if err != nil {
		t.Fatal(err)
	}
	return resolve(t, config, name)
}

// agentProcess is a real ssh-agent with the keys of files.
func agentProcess(t testing.TB, files ...string) (socket string, process *os.Process) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // the name of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	cmd := exec.Command(need.Program(t, "ssh-agent"), "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		os.RemoveAll(dir)
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the ssh-agent does not listen")
		}
	}
	add := exec.Command(need.Program(t, "ssh-add"), append([]string{"-q"}, files...)...)
	add.Env = append(slices.Clone(os.Environ()), "SSH_AUTH_SOCK="+socket)
	if out, err := add.CombinedOutput(); len(files) > 0 && err != nil {
		t.Fatalf("ssh-add: %v: %s", err, out)
	}
	return socket, cmd.Process
}
