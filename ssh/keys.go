package ssh

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// ErrPassphrase: a key is encrypted, and the passphrase is missing or wrong.
var ErrPassphrase = errors.New("the key needs another passphrase")

// ReadKey reads a private key for Config.Keys. The passphrase is for one that is
// encrypted; nil is none. If there is a certificate beside it, as ssh-keygen
// names it (-cert.pub), the key is shown with that.
func ReadKey(file string, passphrase []byte) (xssh.Signer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("ssh: %w", err)
	}
	signer, err := xssh.ParsePrivateKey(text)
	var missing *xssh.PassphraseMissingError
	if errors.As(err, &missing) && passphrase != nil {
		signer, err = xssh.ParsePrivateKeyWithPassphrase(text, passphrase)
	}
	switch {
	case errors.As(err, &missing), errors.Is(err, x509.IncorrectPasswordError):
		return nil, fmt.Errorf("ssh: %s: %w", file, ErrPassphrase)
	case err != nil:
		return nil, fmt.Errorf("ssh: %s: %w", file, err)
	}
	text, err = os.ReadFile(file + "-cert.pub")
	if errors.Is(err, os.ErrNotExist) {
		return signer, nil
	}
	if err == nil {
		signer, err = certified(signer, text)
	}
	if err != nil {
		return nil, fmt.Errorf("ssh: %s-cert.pub: %w", file, err)
	}
	return signer, nil
}

func certified(signer xssh.Signer, text []byte) (xssh.Signer, error) {
	public, _, _, _, err := xssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, err
	}
	certificate, ok := public.(*xssh.Certificate)
	if !ok {
		return nil, errors.New("is no certificate")
	}
	return xssh.NewCertSigner(certificate, signer)
}

// keys returns the authentication by Config.Keys and the keys of the agent, one
// method because x/crypto tries each kind once. Nil means that there are none.
func (g *greeting) keys() xssh.AuthMethod {
	if len(g.config.Keys) == 0 && g.config.Agent == "" {
		return nil
	}
	return xssh.PublicKeysCallback(func() ([]xssh.Signer, error) {
		if g.config.Agent == "" {
			return g.config.Keys, nil
		}
		signers, err := g.agentKeys()
		if err != nil && len(g.config.Keys) == 0 {
			return nil, fmt.Errorf("asking the ssh-agent at %s: %w", g.config.Agent, err)
		}
		return append(signers[:len(signers):len(signers)], g.config.Keys...), nil
	})
}

// agentKeys asks the agent. Its connection is closed with the handshake, and so
// whatever still waits for the agent returns.
func (g *greeting) agentKeys() ([]xssh.Signer, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-g.over:
			cancel()
		case <-ctx.Done():
		}
	}()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", g.config.Agent)
	if err != nil {
		return nil, err
	}
	go func() {
		<-g.over
		_ = conn.Close()
	}()
	return agent.NewClient(conn).Signers()
}
