package sftp_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
	"github.com/lifeline-go/lifeline/ssh"
	"github.com/lifeline-go/lifeline/ssh/sftp"
	xssh "golang.org/x/crypto/ssh"
)

const s = time.Second

func TestMain(m *testing.M) { leakcheck.Main(m) }

// sshd is a real OpenSSH server on loopback, with keys and configuration of its
// own.
type sshd struct {
	addr    string
	keyFile string
	config  ssh.Config
	process *os.Process
}

func startSSHD(t testing.TB, options ...string) *sshd {
	t.Helper()
	need.Root(t) // it changes to the user's identity
	_, err := os.Stat("/usr/sbin/sshd")
	need.Feature(t, "sshd", err)
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // to separate privileges in
		t.Fatal(err)
	}
	dir := t.TempDir()
	host, hostFile := keyFile(t, dir, "host")
	me, myFile := keyFile(t, dir, "me")
	authorized := filepath.Join(dir, "authorized_keys")
	write(t, authorized, xssh.MarshalAuthorizedKey(me.PublicKey()))
	port := strconv.Itoa(need.Port(t))
	addr := net.JoinHostPort("127.0.0.1", port)
	conf := filepath.Join(dir, "sshd_config")
	write(t, conf, []byte(strings.Join(append(options, "ListenAddress 127.0.0.1", "Port "+port, "HostKey "+hostFile, "AuthorizedKeysFile "+authorized,
		"PidFile none", "StrictModes no", "PermitRootLogin yes", "UsePAM no", "LogLevel ERROR", "Subsystem sftp internal-sftp", ""), "\n")))
	cmd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", conf)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("sshd: %s", log.Bytes())
		}
	})
	who, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("sshd does not listen: %v", err)
		}
	}
	return &sshd{addr: addr, keyFile: myFile, process: cmd.Process, config: ssh.Config{
		User: who.Username, Auth: []xssh.AuthMethod{xssh.PublicKeys(me)}, HostKey: xssh.FixedHostKey(host.PublicKey()),
	}}
}

func (d *sshd) dial(t testing.TB) *ssh.Client {
	t.Helper()
	client, err := ssh.Dial(context.Background(), d.addr, d.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// files starts sftp on a server of its own.
func files(t testing.TB, options sftp.Options) (*sftp.Client, *ssh.Client) {
	t.Helper()
	client := startSSHD(t).dial(t)
	return open(t, client, options), client
}

func open(t testing.TB, client *ssh.Client, options sftp.Options) *sftp.Client {
	t.Helper()
	c, err := sftp.New(context.Background(), client, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

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
	write(t, file, pem.EncodeToMemory(block))
	return signer, file
}

func write(t testing.TB, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
