//go:build unix

package sshconf_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/need"
	"github.com/lifeline-go/lifeline/ssh/sshconf"
	xssh "golang.org/x/crypto/ssh"
)

// sshd is a real OpenSSH server on loopback.
type sshd struct {
	dir     string
	port    int
	host    xssh.PublicKey // its key
	me      string         // the file of a key that it lets in
	process *os.Process
}

// startSSHD starts a server that lets in whoever has the key me.
func startSSHD(t testing.TB, options ...string) *sshd {
	t.Helper()
	need.Root(t) // it changes to the user's identity
	_, err := os.Stat("/usr/sbin/sshd")
	need.Feature(t, "sshd", err)
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // to separate privileges in
		t.Fatal(err)
	}
	d := &sshd{dir: t.TempDir()}
	host, hostFile := keyFile(t, d.dir, "host")
	d.host = host.PublicKey()
	me, meFile := keyFile(t, d.dir, "me")
	d.me = meFile
	write(t, filepath.Join(d.dir, "authorized"), string(xssh.MarshalAuthorizedKey(me.PublicKey())))
	d.port = need.Port(t)
	conf := filepath.Join(d.dir, "sshd_config")
	write(t, conf, strings.Join(append(options, "ListenAddress 127.0.0.1", fmt.Sprintf("Port %d", d.port), "HostKey "+hostFile,
		"AuthorizedKeysFile "+filepath.Join(d.dir, "authorized"), "PidFile none", "StrictModes no", "PermitRootLogin yes", "UsePAM no",
		"LogLevel ERROR", "SetEnv SHLVL=5", ""), "\n"))
	cmd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", conf)
	var log bytes.Buffer
	cmd.Stderr, cmd.WaitDelay = &log, time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.process = cmd.Process
	t.Cleanup(func() {
		for _, pid := range family(cmd.Process.Pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("sshd: %s", log.Bytes())
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", d.port))
		if err == nil {
			conn.Close()
			return d
		}
		if time.Now().After(deadline) {
			t.Fatalf("sshd does not listen: %v", err)
		}
	}
}

// freeze stops the server and its children, and lets them go on at the end.
func (d *sshd) freeze(t testing.TB) {
	t.Helper()
	for _, pid := range family(d.process.Pid) {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Error(err)
		}
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	}
}

// family returns a process and its descendants.
func family(pid int) []int {
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, task := range tasks {
			text, _ := os.ReadFile(task)
			for _, word := range strings.Fields(string(text)) {
				child, _ := strconv.Atoi(word)
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// entry is what ssh_config says of the server.
func (d *sshd) entry(name string) string {
	return fmt.Sprintf("Host %s\n HostName 127.0.0.1\n Port %d\n User root\n IdentityFile %s\n UserKnownHostsFile %s\n StrictHostKeyChecking yes\n", name, d.port, d.me, d.knownHosts())
}

func (d *sshd) knownHosts() string { return filepath.Join(d.dir, "known_hosts") }

// know writes a key of the server to its known_hosts.
func (d *sshd) know(t testing.TB, marker string, key xssh.PublicKey) {
	t.Helper()
	write(t, d.knownHosts(), fmt.Sprintf("%s[127.0.0.1]:%d %s", marker, d.port, xssh.MarshalAuthorizedKey(key)))
}

// keyFile makes a key and its files.
func keyFile(t testing.TB, dir, name string) (xssh.Signer, string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := xssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block, err := xssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, name)
	write(t, file, string(pem.EncodeToMemory(block)))
	return signer, file
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
