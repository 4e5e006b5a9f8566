//go:build linux

package lab

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// sshdTime bounds the wait for an sshd to listen.
const sshdTime = 20 * time.Second

// SSHPrograms is what SSHD needs, beside what every lab needs.
var SSHPrograms = []string{"sshd"}

// SSHKeys are the keys that the SSH servers of a lab share, and that of their
// only user, who is the one this process runs as.
type SSHKeys struct {
	Login string // the user's name
	// Dir has the files user and host, in the form of OpenSSH, their public halves
	// user.pub and host.pub, login, which is the user's name, and known_hosts, in
	// which every host has the host's.
	Dir        string
	User, Host xssh.Signer
}

// SSHKeys makes keys. They are removed with the lab.
func (l *Lab) SSHKeys() *SSHKeys {
	l.t.Helper()
	k, err := makeSSHKeys(l.Dir())
	if err != nil {
		l.t.Fatalf("lab: keys: %v", err)
	}
	return k
}

func makeSSHKeys(dir string) (*SSHKeys, error) {
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	k := &SSHKeys{Login: me.Username, Dir: dir}
	for name, signer := range map[string]*xssh.Signer{"user": &k.User, "host": &k.Host} {
		if *signer, err = makeSSHKey(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "login"), []byte(k.Login), 0o600); err != nil {
		return nil, err
	}
	known := append([]byte("* "), xssh.MarshalAuthorizedKey(k.Host.PublicKey())...)
	return k, os.WriteFile(filepath.Join(dir, "known_hosts"), known, 0o600)
}

func makeSSHKey(file string) (xssh.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := xssh.MarshalPrivateKey(key, "")
	if err != nil {
		return nil, err
	}
	signer, err := xssh.NewSignerFromSigner(key)
	if err != nil {
		return nil, err
	}
	return signer, errors.Join(
		os.WriteFile(file, pem.EncodeToMemory(block), 0o600),
		os.WriteFile(file+".pub", xssh.MarshalAuthorizedKey(signer.PublicKey()), 0o600))
}

// SSHD runs OpenSSH's server on this host until the lab is taken apart, at addr,
// an IP address with a port, and returns when it listens. It has a configuration
// of its own, and no PAM. The caller must have asked for SSHPrograms.
func (h *Host) SSHD(addr string, keys *SSHKeys) {
	h.lab.t.Helper()
	path, err := exec.LookPath("sshd") // which must be called by its whole path
	if err != nil {
		h.lab.t.Fatalf("lab: %v", err)
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // where it separates privileges, as its unit makes it
		h.lab.t.Fatalf("lab: %v", err)
	}
	config := filepath.Join(keys.Dir, "sshd_config-"+h.name)
	// SHLVL keeps a bash from reading what interactive ones read, as it does below an sshd.
	text := strings.Join([]string{"HostKey " + filepath.Join(keys.Dir, "host"), "AuthorizedKeysFile " + filepath.Join(keys.Dir, "user.pub"),
		"ListenAddress " + addr, "PidFile none", "StrictModes no", "PermitRootLogin yes", "UsePAM no", "UseDNS no", "LogLevel ERROR",
		"MaxStartups 100", "PrintMotd no", "PrintLastLog no", "SetEnv SHLVL=5", ""}, "\n")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		h.lab.t.Fatalf("lab: %v", err)
	}
	h.Serve(addr, path, "-D", "-e", "-f", config)
}

// Serve runs a program on this host until the lab is taken apart, and returns
// when it listens at addr, an IP address with a port.
func (h *Host) Serve(addr, program string, args ...string) {
	h.lab.t.Helper()
	cmd := h.Command(program, args...)
	var log bytes.Buffer
	cmd.Stderr, cmd.WaitDelay = &log, time.Second // others may have its standard error when it is gone
	if err := cmd.Start(); err != nil {
		h.lab.t.Fatalf("lab: %s: %v", program, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	h.lab.t.Cleanup(func() {
		h.Signal(unix.SIGKILL)
		_ = cmd.Process.Kill() // should it not have entered the namespace yet
		<-ended
	})
	for deadline := time.Now().Add(sshdTime); ; time.Sleep(10 * time.Millisecond) {
		var conn net.Conn
		err := h.Do(func() (err error) {
			conn, err = (&net.Dialer{Timeout: dialTimeout}).Dial("tcp", addr)
			return err
		})
		if err == nil {
			conn.Close()
			return
		}
		select {
		case err := <-ended:
			ended <- err
			h.lab.t.Fatalf("lab: %s: %s ended: %v: %s", h.name, program, err, bytes.TrimSpace(log.Bytes()))
		default:
		}
		if time.Now().After(deadline) {
			h.lab.t.Fatalf("lab: %s: %s does not listen: %v", h.name, program, err)
		}
	}
}

// Dir returns a directory of this lab that only the user can read and that is
// removed with it; after a crash, by the next lab.
func (l *Lab) Dir() string {
	l.t.Helper()
	if l.dir == "" {
		l.dir = l.makeDir("", 0o700)
	}
	return l.dir
}

// makeDir makes a directory that is named after the lab, and removed with it.
func (l *Lab) makeDir(suffix string, mode os.FileMode) string {
	l.t.Helper()
	dir := directories + strings.TrimSuffix(l.name, "-") + suffix
	if err := os.Mkdir(dir, mode); err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	l.t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			l.t.Fatalf("lab: %v", err)
		}
	})
	return dir
}

// Signal sends a signal to every process of the host.
func (h *Host) Signal(s unix.Signal) {
	h.lab.t.Helper()
	sent := make(map[int]bool)
	for before := -1; len(sent) > before; { // again for those that were started meanwhile
		before = len(sent)
		pids, err := h.Processes()
		if err != nil {
			h.lab.t.Fatalf("lab: %v", err)
		}
		for _, pid := range pids {
			if !sent[pid] {
				sent[pid] = true
				_ = unix.Kill(pid, s) // an error says that it is gone
			}
		}
	}
}

// Processes returns the numbers of the processes that run on the host.
func (h *Host) Processes() ([]int, error) { return processes(h.netns) }

// processes leaves this one out: a thread of it may be there, in Do.
func processes(netns string) (pids []int, err error) {
	out, err := exec.Command("ip", "netns", "pids", netns).Output()
	if err != nil {
		return nil, fmt.Errorf("ip netns pids %s: %w", netns, err)
	}
	for _, field := range strings.Fields(string(out)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 1 && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
