package sshconf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

const (
	agentList = 5 * time.Second  // to name its keys: no person is in this
	agentSign = 20 * time.Second // to sign, for which a key may have to be touched
)

// ErrAgent: the ssh-agent did not answer in time, or not as one.
var ErrAgent = errors.New("the ssh-agent does not do its part")

// An agentSocket is an ssh-agent. Each request has a connection of its own and
// ends with it, so that an agent that is stuck holds nothing here.
type agentSocket struct {
	path  string
	limit time.Duration // of each request; zero is as recommended
	stuck atomic.Bool   // it was given up once, and is not asked again
}

// An agentRequest is one, and takes its answer.
type agentRequest = func(agent.ExtendedAgent) error

// ask makes one request.
func (a *agentSocket) ask(ctx context.Context, limit time.Duration, request agentRequest) error {
	limit = cmp.Or(a.limit, limit)
	if a.stuck.Load() {
		return fmt.Errorf("%w: %s was given up", ErrAgent, a.path)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", a.path)
	if err == nil {
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		err = request(agent.NewClient(struct{ io.ReadWriter }{conn})) // x/crypto keeps no goroutine for what it cannot close
		stop()
		_ = conn.Close()
	}
	if ctx.Err() != nil && err != nil {
		a.stuck.Store(true)
		return fmt.Errorf("%w: %s has not answered for %v", ErrAgent, a.path, limit)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrAgent, a.path, err)
	}
	return nil
}

// keys returns what the agent has.
func (a *agentSocket) keys(ctx context.Context) (keys []*agent.Key, err error) {
	err = a.ask(ctx, agentList, func(c agent.ExtendedAgent) (err error) {
		keys, err = c.List()
		return err
	})
	return keys, err
}

// agentKey is a key that the agent has.
type agentKey struct {
	agent  *agentSocket
	public xssh.PublicKey
	sign   func(agentRequest) error
	file   xssh.AlgorithmSigner // the same key in a file, or nil
}

func (k *agentKey) PublicKey() xssh.PublicKey { return k.public }

func (k *agentKey) Sign(rand io.Reader, data []byte) (*xssh.Signature, error) {
	return k.SignWithAlgorithm(rand, data, "")
}

// SignWithAlgorithm asks the agent, and uses the file where that fails.
func (k *agentKey) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (signature *xssh.Signature, err error) {
	var flags agent.SignatureFlags
	switch algorithm {
	case xssh.KeyAlgoRSASHA256:
		flags = agent.SignatureFlagRsaSha256
	case xssh.KeyAlgoRSASHA512:
		flags = agent.SignatureFlagRsaSha512
	}
	err = k.sign(func(c agent.ExtendedAgent) (err error) {
		signature, err = c.SignWithFlags(k.public, data, flags)
		return err
	})
	if err != nil && k.file != nil {
		return k.file.SignWithAlgorithm(rand, data, algorithm)
	}
	return signature, err
}
