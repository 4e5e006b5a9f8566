package sshconf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
)

// Login is who answers the questions of a connection, and how patient it is. The
// zero value answers none: then keys that need no passphrase are used, and those
// of the agent.
//
// The callbacks may wait for a person. Their context ends with the attempt; one
// that does not return then keeps its goroutine.
type Login struct {
	// Passphrase decrypts an identity file. A wrong one is asked for again, as
	// often as Host.PasswordPrompts says. Each connection asks by itself: where
	// there are many, keep the answer, or have an agent.
	Passphrase func(ctx context.Context, file string) ([]byte, error)
	// Password is for user@host.
	Password func(ctx context.Context, who string) (string, error)
	// Interactive answers what a server asks; what it says comes from the server
	// as it is. Where it is nil, Password answers a single question that is not to
	// be echoed.
	Interactive func(ctx context.Context, who, instruction string, questions []string, echo []bool) ([]string, error)
	// AcceptHostKey is asked about the key of an unknown host where
	// StrictHostKeyChecking is ask. To accept it, and have it written to
	// known_hosts, return nil. A changed or revoked key is never asked about.
	AcceptHostKey func(ctx context.Context, e *HostKeyError) error
	// Warn is told of lines in known_hosts that could be for a host on the way and
	// make no sense, before the host is connected to. It must not block. Nil means
	// that only the error tells when the host is not known.
	Warn func(Warning)

	// AgentTimeout bounds each request to the ssh-agent. Zero means 5 s for its
	// list of keys, and 20 s for a signature, for which a key may have to be
	// touched. When it is over, other keys and methods are tried.
	AgentTimeout time.Duration

	// Way returns the client of the last of the jump hosts, for those who keep one
	// for all the hosts behind it; it stays theirs. It must return when its context
	// ends. Where it is nil, each connection makes a way of its own.
	Way func(ctx context.Context, jumps []*Host) (*ssh.Client, error)

	// Stderr is given what a ProxyCommand says there. Nil means that only the end
	// of it is kept, for errors.
	Stderr io.Writer

	// Base is the rest of what a connection is made with. User, Auth, HostKey,
	// HostKeyAlgorithms and AuthCallback in it are not used. Where its Budgets and
	// Liveness are zero, those of the configuration are taken (ConnectTimeout,
	// ServerAliveInterval), and else the recommended ones.
	Base ssh.Config
}

// attempts chooses how to authenticate next. It is used by one connection.
type attempts struct {
	host      *Host
	methods   func() []string
	keys      *keyring
	list      func() []xssh.Signer // all keys, in their order
	password  func() (string, error)
	questions xssh.KeyboardInteractiveChallenge

	signers []xssh.Signer // those that are left
	listed  bool
	asked   map[string]int // how often, of password and keyboard-interactive
	partial int
}

// newAttempts prepares the authentication of one connection. Nothing is asked
// before the server says what it takes.
func newAttempts(ctx context.Context, h *Host, login Login, check *hostKeyCheck) *attempts {
	ring := &keyring{host: h}
	if h.Agent != "" {
		ring.agent = &agentSocket{path: h.Agent, limit: login.AgentTimeout}
	}
	a := &attempts{host: h, keys: ring, asked: map[string]int{}, methods: func() []string { return check.safe(h.Methods) }}
	a.list = func() []xssh.Signer { return ring.signers(ctx) }
	if h.BatchMode {
		return a
	}
	if login.Passphrase != nil {
		ring.ask = func(file string) ([]byte, error) { return login.Passphrase(ctx, file) }
	}
	who := h.User + "@" + h.Alias
	if login.Password != nil {
		a.password = func() (string, error) { return login.Password(ctx, who) }
	}
	switch {
	case login.Interactive != nil:
		a.questions = func(_, instruction string, questions []string, echo []bool) ([]string, error) {
			if len(questions) == 0 && instruction == "" {
				return nil, nil // it only says that it has no more to ask
			}
			return login.Interactive(ctx, who, instruction, questions, echo)
		}
	case a.password != nil:
		a.questions = a.passwordOnly
	}
	return a
}

// passwordOnly answers a server whose one question is that for a password.
func (a *attempts) passwordOnly(_, _ string, questions []string, echo []bool) ([]string, error) {
	switch {
	case len(questions) == 0:
		return nil, nil
	case len(questions) > 1 || echo[0]:
		return nil, fmt.Errorf("the server asks %q, and nobody can answer", questions)
	}
	password, err := a.password()
	return []string{password}, err
}

// next is an xssh.ClientAuthCallback: the methods in their order, and keys one
// by one, so that one that cannot sign keeps none of the others from being tried.
func (a *attempts) next(state *xssh.ClientAuthContext) (xssh.AuthMethod, error) {
	if len(state.PartialSuccessMethods) > a.partial { // the server wants something more
		a.partial = len(state.PartialSuccessMethods)
		clear(a.asked)
	}
	for _, method := range a.methods() {
		if !slices.Contains(state.AllowedMethods, method) {
			continue
		}
		switch {
		case method == "publickey":
			if !a.listed {
				a.signers, a.listed = a.list(), true
			}
			if len(a.signers) > 0 {
				signer := a.signers[0]
				a.signers = a.signers[1:]
				return xssh.PublicKeys(a.noting(signer)), nil
			}
		case a.asked[method] >= a.host.PasswordPrompts:
		case method == "password" && a.password != nil:
			a.asked[method]++
			return xssh.PasswordCallback(func() (string, error) {
				password, err := a.password()
				return password, a.note(method, err)
			}), nil
		case method == "keyboard-interactive" && a.questions != nil:
			a.asked[method]++
			return xssh.KeyboardInteractive(func(name, instruction string, questions []string, echo []bool) ([]string, error) {
				answers, err := a.questions(name, instruction, questions, echo)
				return answers, a.note(method, err)
			}), nil
		}
	}
	return nil, &noWayIn{user: a.host.User, allowed: state.AllowedMethods, tried: state.TriedMethods, reasons: a.keys.notes, suspicious: len(a.methods()) < len(a.host.Methods)}
}

// note keeps the error of a callback: whoever has no password now has none
// later, and is not asked again.
func (a *attempts) note(method string, err error) error {
	if err != nil {
		a.keys.notes = append(a.keys.notes, fmt.Errorf("%s: %w", method, err))
		a.asked[method] = a.host.PasswordPrompts
	}
	return err
}

// noting returns a signer whose errors are kept.
func (a *attempts) noting(signer xssh.Signer) xssh.Signer {
	with, ok := signer.(xssh.AlgorithmSigner)
	if !ok {
		return signer
	}
	return notingSigner{with, func(err error) { a.keys.notes = append(a.keys.notes, err) }}
}

type notingSigner struct {
	xssh.AlgorithmSigner
	note func(error)
}

func (s notingSigner) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*xssh.Signature, error) {
	signature, err := s.AlgorithmSigner.SignWithAlgorithm(rand, data, algorithm)
	if err != nil {
		s.note(err)
	}
	return signature, err
}

// noWayIn says that nothing is left to authenticate with, and why.
type noWayIn struct {
	user           string
	allowed, tried []string
	reasons        []error
	suspicious     bool // passwords were kept back
}

func (e *noWayIn) Error() string {
	tried := 0
	for _, method := range e.tried {
		if method == "publickey" {
			tried++
		}
	}
	text := fmt.Sprintf("it takes %s from %s, and ", strings.Join(e.allowed, ", "), e.user)
	if tried == 0 {
		text += "there was no key to show"
	} else {
		text += fmt.Sprintf("none of %d keys would do", tried)
	}
	if slices.Contains(e.tried, "password") || slices.Contains(e.tried, "keyboard-interactive") {
		text += ", and no password"
	}
	if e.suspicious {
		text += "; its host key has changed, so it is sent no password"
	}
	for _, reason := range e.reasons {
		text += "; " + reason.Error()
	}
	return text
}

func (e *noWayIn) Unwrap() error { return errors.Join(e.reasons...) }
