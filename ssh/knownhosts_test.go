package ssh_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
)

// otherKey is of another kind than hostKey.
var otherKey = func() xssh.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	signer, err := xssh.NewSignerFromKey(key)
	if err != nil {
		panic(err)
	}
	return signer
}()

func line(hosts string, key xssh.PublicKey) string {
	return hosts + " " + string(xssh.MarshalAuthorizedKey(key))
}

func TestKnownHosts(t *testing.T) {
	t.Parallel()
	known, other := hostKey.PublicKey(), otherKey.PublicKey()
	certificate, old := certify(t, known, xssh.HostCert, "faulty"), certify(t, known, xssh.HostCert, "the name before")
	for name, row := range map[string]struct {
		file   string
		server xssh.Signer // nil is hostKey
		accept bool
		is     error
		added  int // lines
	}{
		"known":                     {file: line("faulty", known)},
		"known, by a wildcard":      {file: line("fau*", known)},
		"known, of two":             {file: line("faulty", other) + line("faulty", known)},
		"known, of another kind":    {file: line("faulty", other), is: ssh.ErrHostKeyChanged},
		"unknown":                   {file: line("another", known), is: ssh.ErrHostKeyUnknown},
		"unknown, no file":          {is: ssh.ErrHostKeyUnknown},
		"changed":                   {file: line("faulty", other), accept: true, is: ssh.ErrHostKeyChanged},
		"revoked":                   {file: line("faulty", known) + line("@revoked *", known), accept: true, is: ssh.ErrHostKeyRevoked},
		"new, accepted":             {file: line("another", other), accept: true, added: 1},
		"new, no end of line":       {file: strings.TrimSpace(line("another", other)), accept: true, added: 1},
		"new, no file":              {accept: true, added: 1},
		"certificate":               {file: line("@cert-authority *", other), server: certificate},
		"certificate, of another":   {file: line("@cert-authority elsewhere", other), server: certificate, is: ssh.ErrHostKey},
		"a line that is none":       {file: line("faulty", known) + "faulty ssh-ed25519 nonsense\n"},
		"only lines that are none":  {file: "faulty ssh-ed25519 nonsense\n", is: ssh.ErrHostKeyUnknown},
		"perhaps it is revoked":     {file: line("faulty", known) + "@revoked f* ssh-ed25519 nonsense\n", accept: true, is: ssh.ErrHostKey},
		"perhaps another is":        {file: line("faulty", known) + "@revoked another ssh-ed25519 nonsense\n"},
		"in capitals":               {file: line("FAULTY", known)},
		"certificate, other name":   {file: line("@cert-authority *", other), server: old, is: ssh.ErrHostKey},
		"a comment, and empty ones": {file: "# hosts\n\n" + line("faulty", known)},
	} {
		for _, hash := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				file := filepath.Join(t.TempDir(), "ssh", "known_hosts")
				if row.file != "" {
					if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
						t.Fatal(err)
					}
					write(t, file, row.file)
				}
				c := ssh.Config{User: "somebody", KnownHosts: &ssh.KnownHosts{Files: []string{file}, AcceptNew: row.accept, Hash: hash}}
				dialOnce := func() error {
					client, _, err := dial(t, c, fault{config: func(s *xssh.ServerConfig) {
						if row.server != nil {
							*s = xssh.ServerConfig{NoClientAuth: true}
							s.AddHostKey(row.server)
						}
					}})
					if err == nil {
						client.Close()
					}
					return err
				}
				err := dialOnce()
				if !errors.Is(err, row.is) || err != nil && (!errors.Is(err, ssh.ErrHostKey) || strings.Contains(err.Error(), "\n")) {
					t.Errorf("%v, want %v", err, row.is)
				}
				text, _ := os.ReadFile(file)
				if added := strings.Count(string(text), "\n") - strings.Count(row.file, "\n"); row.added > 0 && (added < row.added || strings.Contains(string(text), "faulty") == hash) {
					t.Errorf("%d lines were added: %q", added, text)
				} else if row.added == 0 && string(text) != row.file {
					t.Errorf("the file is now %q", text)
				}
				c.KnownHosts.AcceptNew = false
				if err := dialOnce(); !errors.Is(err, row.is) {
					t.Errorf("the second time: %v", err)
				}
			})
		}
	}
}

// certify returns hostKey with a certificate by otherKey.
func certify(t *testing.T, key xssh.PublicKey, kind uint32, name string) xssh.Signer {
	t.Helper()
	certificate := &xssh.Certificate{Key: key, CertType: kind, ValidPrincipals: []string{name}, ValidBefore: xssh.CertTimeInfinity}
	if err := certificate.SignCert(rand.Reader, otherKey); err != nil {
		t.Fatal(err)
	}
	signer, err := xssh.NewCertSigner(certificate, hostKey)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// Many who meet the same new host at a time write one line.
func TestKnownHostsTogether(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "known_hosts")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			c := ssh.Config{User: "somebody", KnownHosts: &ssh.KnownHosts{Files: []string{file}, AcceptNew: true}}
			client, _, err := dial(t, c, fault{})
			if err != nil {
				t.Error(err)
				return
			}
			client.Close()
		})
	}
	wg.Wait()
	if text, _ := os.ReadFile(file); string(text) != line("faulty", hostKey.PublicKey()) {
		t.Errorf("%q", text)
	}
}

// Somebody keeps the file locked for longer than the budget.
func TestKnownHostsLocked(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "known_hosts")
	write(t, file, "")
	unlock := lockFile(t, file)
	defer unlock()
	c := ssh.Config{User: "somebody", KnownHosts: &ssh.KnownHosts{Files: []string{file}, AcceptNew: true}}
	c.Budgets.Authentication = s / 4
	began := time.Now()
	_, _, err := dial(t, c, fault{})
	var budget *ssh.BudgetError
	if took := time.Since(began); !errors.As(err, &budget) || budget.Budget != "Authentication" || took > 30*s {
		t.Errorf("%v after %v", err, took)
	}
}
