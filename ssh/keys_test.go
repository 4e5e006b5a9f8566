package ssh_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/opensshd"
	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// accepts is a server that knows one key, or the certificates of an authority.
func accepts(key xssh.PublicKey) fault {
	return fault{config: func(c *xssh.ServerConfig) {
		checker := &xssh.CertChecker{
			IsUserAuthority: func(a xssh.PublicKey) bool { return string(a.Marshal()) == string(key.Marshal()) },
			UserKeyFallback: func(_ xssh.ConnMetadata, given xssh.PublicKey) (*xssh.Permissions, error) {
				if string(given.Marshal()) != string(key.Marshal()) {
					return nil, errors.New("no")
				}
				return nil, nil
			},
		}
		c.NoClientAuth, c.PublicKeyCallback = false, checker.Authenticate
	}}
}

// agentAt starts an ssh-agent in this process, or what answer makes of it.
func agentAt(t *testing.T, answer func(net.Conn)) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "agent")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				answer(conn)
			}()
		}
	}()
	return socket
}

func TestAgent(t *testing.T) {
	t.Parallel()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	signers, err := ring.Signers()
	if err != nil {
		t.Fatal(err)
	}
	works := agentAt(t, func(c net.Conn) { _ = agent.ServeAgent(ring, c) })
	stuck := agentAt(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	asks := agentAt(t, func(c net.Conn) { _ = agent.ServeAgent(waiting{ring}, c) }) // a person, who is not there
	gone := filepath.Join(t.TempDir(), "nothing")

	budget := new(ssh.BudgetError)
	for name, row := range map[string]struct {
		agent string
		keys  []xssh.Signer
		key   xssh.PublicKey // that the server knows
		slow  bool
		is    error
	}{
		"has the key":              {agent: works, key: signers[0].PublicKey()},
		"has others":               {agent: works, key: otherKey.PublicKey(), is: ssh.ErrAuthentication},
		"has others, and a key":    {agent: works, key: otherKey.PublicKey(), keys: []xssh.Signer{otherKey}},
		"is stuck":                 {agent: stuck, key: signers[0].PublicKey(), slow: true, is: budget},
		"is stuck when it signs":   {agent: asks, key: signers[0].PublicKey(), slow: true, is: budget},
		"is not there":             {agent: gone, key: signers[0].PublicKey(), is: ssh.ErrAuthentication},
		"is not there, and a key":  {agent: gone, key: otherKey.PublicKey(), keys: []xssh.Signer{otherKey}},
		"is not asked for":         {key: signers[0].PublicKey(), is: ssh.ErrAuthentication},
		"is not asked, certified":  {key: otherKey.PublicKey(), keys: []xssh.Signer{certify(t, hostKey.PublicKey(), xssh.UserCert, "somebody")}},
		"is not asked, other name": {key: otherKey.PublicKey(), keys: []xssh.Signer{certify(t, hostKey.PublicKey(), xssh.UserCert, "other")}, is: ssh.ErrAuthentication},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config()
			c.Agent, c.Keys = row.agent, row.keys
			if row.slow {
				c.Budgets.Authentication = s / 2
			}
			began := time.Now()
			client, _, err := dial(t, c, accepts(row.key))
			took := time.Since(began)
			if err == nil {
				client.Close()
			}
			var used *ssh.BudgetError
			if row.is == budget {
				if !errors.As(err, &used) || used.Budget != "Authentication" || took > 30*s {
					t.Errorf("%v after %v", err, took)
				}
			} else if !errors.Is(err, row.is) {
				t.Errorf("%v, want %v", err, row.is)
			}
		})
	}
}

// waiting is an agent that never signs.
type waiting struct{ agent.Agent }

func (waiting) Sign(xssh.PublicKey, []byte) (*xssh.Signature, error) {
	time.Sleep(2 * time.Second)
	return nil, errors.New("nobody is there")
}

func TestReadKey(t *testing.T) {
	t.Parallel()
	const encrypted = "testdata/encrypted" // with one round of bcrypt, which is slow under -race
	dir := t.TempDir()
	signer, plain := opensshd.Key(t, dir, "plain")
	_, certified := opensshd.Key(t, dir, "certified")
	for name, row := range map[string]struct {
		file, passphrase, certificate string
		kind                          string
		fails                         bool
		is                            error
	}{
		"plain":                 {file: plain, kind: xssh.KeyAlgoED25519},
		"plain, passphrase":     {file: plain, passphrase: "any", kind: xssh.KeyAlgoED25519},
		"encrypted":             {file: encrypted, passphrase: "secret", kind: xssh.KeyAlgoED25519},
		"encrypted, wrong":      {file: encrypted, passphrase: "other", fails: true, is: ssh.ErrPassphrase},
		"encrypted, none":       {file: encrypted, fails: true, is: ssh.ErrPassphrase},
		"not there":             {file: filepath.Join(dir, "none"), fails: true},
		"a directory":           {file: dir, fails: true},
		"of another's":          {file: certified, certificate: line("", certify(t, hostKey.PublicKey(), xssh.UserCert, "x").PublicKey()), fails: true},
		"certificate is a key":  {file: certified, certificate: line("", signer.PublicKey()), fails: true},
		"certificate is no key": {file: certified, certificate: "nonsense", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			var passphrase []byte
			if row.passphrase != "" {
				passphrase = []byte(row.passphrase)
			}
			if row.certificate != "" {
				write(t, row.file+"-cert.pub", row.certificate)
			}
			key, err := ssh.ReadKey(row.file, passphrase)
			if (err != nil) != row.fails || row.is != nil && !errors.Is(err, row.is) {
				t.Fatalf("%v", err)
			}
			if err == nil && key.PublicKey().Type() != row.kind {
				t.Errorf("a key of %s", key.PublicKey().Type())
			}
		})
	}
}
