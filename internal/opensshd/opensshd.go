// Package opensshd is a real OpenSSH server on loopback, for tests.
package opensshd

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
	"strconv"
	"strings"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"github.com/lifeline-go/lifeline/internal/need"
)

const program = "/usr/sbin/sshd" // it must be called by its path

// T is the test that needs one: a testing.TB.
type T interface {
	need.T
	Cleanup(func())
	Failed() bool
	Logf(format string, args ...any)
	TempDir() string
}

// Server is one, with keys and configuration of its own. It lets in who runs the
// test, root, with the key Me.
type Server struct {
	Dir      string // of its files, authorized_keys among them
	Addr     string
	Port     int
	Host, Me xssh.Signer
	MeFile   string
	Process  *os.Process
}

// Start starts a server that is killed at the end of the test, with all that it
// began. Options are lines of sshd_config that go before its own.
func Start(t T, options ...string) *Server {
	t.Helper()
	need.Root(t) // it changes to the user's identity
	_, err := os.Stat(program)
	need.Feature(t, "sshd", err)
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // to separate privileges in
		t.Fatalf("%v", err)
	}
	s := &Server{Dir: t.TempDir(), Port: need.Port(t)}
	s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port))
	var hostFile string
	s.Host, hostFile = Key(t, s.Dir, "host")
	s.Me, s.MeFile = Key(t, s.Dir, "me")
	authorized, conf := filepath.Join(s.Dir, "authorized_keys"), filepath.Join(s.Dir, "sshd_config")
	write(t, authorized, xssh.MarshalAuthorizedKey(s.Me.PublicKey()))
	write(t, conf, []byte(strings.Join(append(options, "ListenAddress 127.0.0.1", fmt.Sprint("Port ", s.Port), "HostKey "+hostFile, "AuthorizedKeysFile "+authorized,
		"PidFile none", "StrictModes no", "PermitRootLogin yes", "UsePAM no", "AcceptEnv LIFELINE_*", "Subsystem sftp internal-sftp", "LogLevel ERROR",
		"SetEnv SHLVL=5", ""), "\n"))) // SHLVL keeps a bash from reading what interactive ones read, as it does below an sshd
	cmd := exec.Command(program, "-D", "-e", "-f", conf)
	var log bytes.Buffer
	cmd.Stderr, cmd.WaitDelay = &log, time.Second // its children have its standard error too
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v", err)
	}
	s.Process = cmd.Process
	t.Cleanup(func() {
		for _, pid := range s.Family() {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill()
			}
		}
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("sshd: %s", log.Bytes())
		}
	})
	s.await(t)
	return s
}

// await waits until it answers, and until the process that did so is gone: who
// freezes or counts its processes has those of the test only.
func (s *Server) await(t T) {
	t.Helper()
	err := s.greeted()
	for deadline := time.Now().Add(10 * time.Second); err != nil || len(s.Family()) > 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("sshd does not answer, or has done so and still does: %v", err)
		}
		if err != nil {
			err = s.greeted()
		}
	}
}

// greeted asks it for its greeting, which a process of its own sends.
func (s *Server) greeted() error {
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

// Family returns its processes, the one that listens first.
func (s *Server) Family() []int {
	pids := []int{s.Process.Pid}
	for i := 0; i < len(pids); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, task := range tasks {
			text, _ := os.ReadFile(task)
			for word := range strings.FieldsSeq(string(text)) {
				child, _ := strconv.Atoi(word)
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// Key makes a key and its file.
func Key(t T, dir, name string) (xssh.Signer, string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatalf("%v", err)
	}
	signer, err := xssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatalf("%v", err)
	}
	block, err := xssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatalf("%v", err)
	}
	file := filepath.Join(dir, name)
	write(t, file, pem.EncodeToMemory(block))
	return signer, file
}

func write(t T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatalf("%v", err)
	}
}
