package sftp_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/opensshd"
	"github.com/lifeline-go/lifeline/ssh"
	"github.com/lifeline-go/lifeline/ssh/sftp"
	xssh "golang.org/x/crypto/ssh"
)

const s = time.Second

func TestMain(m *testing.M) { leakcheck.Main(m) }

// sshd is a real OpenSSH server on loopback, and how to log in to it.
type sshd struct {
	*opensshd.Server
	config ssh.Config
}

func startSSHD(t testing.TB, options ...string) *sshd {
	t.Helper()
	d := opensshd.Start(t, options...)
	return &sshd{d, ssh.Config{User: "root", Auth: []xssh.AuthMethod{xssh.PublicKeys(d.Me)}, HostKey: xssh.FixedHostKey(d.Host.PublicKey())}}
}

func (d *sshd) dial(t testing.TB) *ssh.Client {
	t.Helper()
	client, err := ssh.Dial(context.Background(), d.Addr, d.config)
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

func write(t testing.TB, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
