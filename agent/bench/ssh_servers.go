package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/lab"
)

// sshdPath is absolute because sshd insists on it, to execute itself.
const sshdPath = "/usr/sbin/sshd"

// What all clients are told of dead hosts, as a careful administrator would.
const (
	connectTimeout = 5                                // seconds, for each host
	aliveInterval  = 5                                // seconds of silence before the server is asked
	aliveCount     = 3                                // times, before it is given up
	quietLimit     = aliveInterval * (aliveCount + 1) // server_alive_check in OpenSSH's clientloop.c
	commandTimeout = 30                               // seconds, where a program knows such a limit
)

// servers is many hosts as a client sees them: addresses of one namespace, with
// an sshd process for each.
type servers struct {
	near, far *lab.Host
	dir       string
	addrs     []string
	daemons   []*exec.Cmd
	user      xssh.Signer
	hostKey   xssh.PublicKey
}

func (s *servers) file(name string) string { return filepath.Join(s.dir, name) }

// startServers starts them and waits until all listen. What has started is
// returned even with an error: stop it.
func startServers(ctx context.Context, l *lab.Lab, dir string, o sshOptions) (*servers, error) {
	s := &servers{near: l.Host("client"), far: l.Host("servers"), dir: dir}
	l.Wire(s.near, "10.78.1.1/24", s.far, "10.78.1.2/24")
	s.near.Route("10.78.0.0/24", "10.78.1.2")
	s.far.Run("ip", "route", "add", "local", "10.78.0.0/24", "dev", "lo")
	for i := range o.hosts {
		s.addrs = append(s.addrs, fmt.Sprintf("10.78.0.%d", i+1))
	}
	if err := s.configure(o); err != nil {
		return s, err
	}
	log, err := os.Create(s.file("log"))
	if err != nil {
		return s, err
	}
	defer log.Close()
	for _, addr := range s.addrs {
		cmd := s.far.Command(sshdPath, "-D", "-e", "-f", s.file("sshd_config"), "-o", "ListenAddress="+addr+":22")
		cmd.Stderr = log
		if err := cmd.Start(); err != nil {
			return s, err
		}
		s.daemons = append(s.daemons, cmd)
	}
	if err := s.await(ctx); err != nil {
		said, _ := os.ReadFile(s.file("log"))
		return s, fmt.Errorf("%w: %s", err, said)
	}
	return s, nil
}

// configure writes keys, and the files of servers and clients.
func (s *servers) configure(o sshOptions) error {
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // where sshd separates privileges
		return err
	}
	if err := os.Mkdir(s.file("frozen"), 0o755); err != nil {
		return err
	}
	for _, name := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", s.file(name)).CombinedOutput(); err != nil {
			return fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	user, err := os.ReadFile(s.file("user"))
	if err != nil {
		return err
	}
	if s.user, err = xssh.ParsePrivateKey(user); err != nil {
		return err
	}
	host, err := os.ReadFile(s.file("host.pub"))
	if err != nil {
		return err
	}
	if s.hostKey, _, _, _, err = xssh.ParseAuthorizedKey(host); err != nil {
		return err
	}
	var known, list strings.Builder
	for _, addr := range s.addrs {
		fmt.Fprintf(&known, "%s %s", addr, xssh.MarshalAuthorizedKey(s.hostKey))
		fmt.Fprintln(&list, addr)
	}
	for name, text := range map[string]string{"sshd_config": s.serverConfig(o.kex), "config": s.clientConfig(), "known_hosts": known.String(), "hosts": list.String(), "ansible.cfg": ""} {
		if err := os.WriteFile(s.file(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// serverConfig leaves MaxSessions and MaxStartups as they are by default. SHLVL
// keeps a bash from reading what interactive ones read.
func (s *servers) serverConfig(kex string) string {
	lines := []string{"HostKey " + s.file("host"), "AuthorizedKeysFile " + s.file("user.pub"), "PidFile none", "StrictModes no",
		"PermitRootLogin yes", "UsePAM no", "UseDNS no", "LogLevel ERROR", "Subsystem sftp internal-sftp", "SetEnv SHLVL=5"}
	if kex != "" {
		lines = append(lines, "KexAlgorithms "+kex)
	}
	return strings.Join(lines, "\n") + "\n"
}

func (s *servers) clientConfig() string {
	return strings.Join([]string{"User root", "IdentityFile " + s.file("user"), "IdentitiesOnly yes", "IdentityAgent none",
		"UserKnownHostsFile " + s.file("known_hosts"), "GlobalKnownHostsFile /dev/null", "StrictHostKeyChecking yes", "BatchMode yes",
		fmt.Sprint("ConnectTimeout ", connectTimeout), fmt.Sprint("ServerAliveInterval ", aliveInterval), fmt.Sprint("ServerAliveCountMax ", aliveCount), ""}, "\n")
}

// await waits until every server listens.
func (s *servers) await(ctx context.Context) error {
	deadline := time.Now().Add(2 * time.Minute)
	return s.near.Do(func() error {
		for _, addr := range s.addrs {
			for {
				c, err := net.DialTimeout("tcp", addr+":22", time.Second) // on this thread, as it is an address
				if err == nil {
					_ = c.Close()
					break
				}
				if time.Now().After(deadline) {
					return fmt.Errorf("sshd does not listen: %w", err)
				}
				if err := pause(ctx, 10*time.Millisecond); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// memory is what the idle servers take together, in bytes, pages that they share
// counted once; 0 if it cannot be told.
func (s *servers) memory() (sum int64) {
	for _, d := range s.daemons {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", d.Process.Pid))
		for line := range strings.Lines(string(text)) {
			var kib int64
			if n, _ := fmt.Sscanf(line, "Pss: %d kB", &kib); n == 1 {
				sum += kib << 10
			}
		}
	}
	return sum
}

// spread returns n of the addresses, evenly spread.
func (s *servers) spread(n int) map[string]bool {
	chosen := make(map[string]bool)
	for i := range n {
		chosen[s.addrs[(i+1)*len(s.addrs)/n-1]] = true
	}
	return chosen
}

// freeze stops servers: their kernel goes on to accept connections.
func (s *servers) freeze(which map[string]bool) error { return s.signal(which, unix.SIGSTOP) }

func (s *servers) thaw(which map[string]bool) error { return s.signal(which, unix.SIGCONT) }

func (s *servers) signal(which map[string]bool, sig unix.Signal) error {
	var failed []error
	for i, addr := range s.addrs {
		if which[addr] {
			failed = append(failed, s.daemons[i].Process.Signal(sig))
		}
	}
	return errors.Join(failed...)
}

// stop ends the servers. Sessions that are left end with the namespace.
func (s *servers) stop() {
	for _, d := range s.daemons {
		_ = d.Process.Kill()
	}
	for _, d := range s.daemons {
		_ = d.Wait()
	}
}
