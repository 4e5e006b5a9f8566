package sshconf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/lifeline-go/lifeline/internal/knownhosts"
	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
)

// What is wrong with a host key, for errors.Is of a [HostKeyError]. The first
// three are those of package ssh.
var (
	// ErrUnknown: no known_hosts file has the host.
	ErrUnknown = ssh.ErrHostKeyUnknown
	// ErrChanged: the files have the host with other keys only. Either it was
	// installed anew, or somebody is in between.
	ErrChanged = ssh.ErrHostKeyChanged
	// ErrRevoked: the key is marked as one that must not be used any more.
	ErrRevoked = ssh.ErrHostKeyRevoked
	// ErrCertificate: the host shows a certificate of an authority that is known
	// for it, which is not valid for it.
	ErrCertificate = errors.New("the host certificate is not valid")
)

// HostKeyError says why a host key is not accepted.
type HostKeyError struct {
	Kind  error          // ErrUnknown, ErrChanged, ErrRevoked or ErrCertificate
	Name  string         // as known_hosts has it: host, or [host]:port
	Key   xssh.PublicKey // that the host shows
	Known []KnownKey     // what the files have: the keys of the host, or the one that revokes
	Err   error          // what is wrong with a certificate, or which lines make no sense, or nil
}

// KnownKey is a key and the line it is in.
type KnownKey struct {
	At  Position
	Key xssh.PublicKey
}

func (e *HostKeyError) Error() string {
	text := fmt.Sprintf("%s: %v: it shows %s", e.Name, e.Kind, knownhosts.Fingerprint(e.Key))
	for i, k := range e.Known {
		if i == 3 {
			text += fmt.Sprintf(", and %d more", len(e.Known)-i)
			break
		}
		text += fmt.Sprintf(", %v has %s", k.At, knownhosts.Fingerprint(k.Key))
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	switch e.Kind {
	case ErrUnknown:
		text += "; compare it with the host's own (ssh-keygen -lf), then connect once with StrictHostKeyChecking=accept-new"
	case ErrChanged:
		text += fmt.Sprintf("; if the host was installed anew: ssh-keygen -f %s -R %s", quoted(e.Known[0].At.File), quoted(e.Name))
	}
	return text
}

// Unwrap returns Kind and Err.
func (e *HostKeyError) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// quoted makes one word of a shell of text.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// identity is by which names the host is known.
func (h *Host) identity() knownhosts.Host {
	if h.HostKeyAlias != "" {
		return knownhosts.Alias(h.HostKeyAlias)
	}
	return knownhosts.At(h.Address())
}

// A hostKeyCheck is how one connection checks the key of its host.
type hostKeyCheck struct {
	host       *Host
	known      *knownhosts.Known
	algorithms []string                                   // to ask for
	accept     func(context.Context, *HostKeyError) error // nil when nobody can be asked
	suspicious atomic.Bool                                // the key has changed and was accepted all the same
}

// newHostKeyCheck reads what is known.
func newHostKeyCheck(h *Host, login Login) (*hostKeyCheck, error) {
	known, err := knownhosts.Lookup(h.identity(), slices.Concat(h.KnownHosts, h.GlobalHosts)...)
	if err != nil {
		return nil, err
	}
	if h.RevokedHostKeys != "" {
		if err := known.Revoke(h.RevokedHostKeys); err != nil {
			return nil, fmt.Errorf("RevokedHostKeys, without which no host key can be accepted: %w", err)
		}
	}
	check := &hostKeyCheck{host: h, known: known, accept: login.AcceptHostKey}
	if h.BatchMode {
		check.accept = nil
	}
	check.algorithms = h.HostKeyAlgorithms
	if check.algorithms == nil {
		check.algorithms = xssh.SupportedAlgorithms().HostKeys
	}
	if h.knownFirst || h.HostKeyAlgorithms == nil {
		check.algorithms = known.Algorithms(check.algorithms)
	}
	return check, nil
}

// warnings are of the lines that were left out.
func (c *hostKeyCheck) warnings() (warnings []Warning) {
	for _, at := range c.known.Skipped {
		warnings = append(warnings, Warning{Position(at), "this line makes no sense and is left out"})
	}
	return warnings
}

// callback returns the check as x/crypto wants it.
func (c *hostKeyCheck) callback(ctx context.Context) xssh.HostKeyCallback {
	return func(_ string, _ net.Addr, key xssh.PublicKey) error {
		if wrong := c.wrong(key, c.known.Judge(key)); wrong != nil {
			return c.decide(ctx, key, wrong)
		}
		return nil
	}
}

// wrong puts a verdict in words. It is nil when nothing is wrong.
func (c *hostKeyCheck) wrong(key xssh.PublicKey, verdict knownhosts.Verdict) *HostKeyError {
	kinds := map[knownhosts.Kind]error{
		knownhosts.Unknown: ErrUnknown, knownhosts.Changed: ErrChanged, knownhosts.Revoked: ErrRevoked, knownhosts.Certificate: ErrCertificate,
	}
	if verdict.Kind == knownhosts.OK {
		return nil
	}
	e := &HostKeyError{Kind: kinds[verdict.Kind], Name: c.host.identity().Name, Key: key, Err: verdict.Err}
	for _, known := range verdict.Keys {
		e.Known = append(e.Known, KnownKey{Position(known.At), known.Key})
	}
	if skipped := c.known.Skipped; len(skipped) > 0 && e.Kind == ErrUnknown {
		e.Err = fmt.Errorf("%v makes no sense and is left out", skipped[len(skipped)-1])
	}
	return e
}

// decide does what the policy says about a key with which something is wrong.
func (c *hostKeyCheck) decide(ctx context.Context, key xssh.PublicKey, wrong *HostKeyError) error {
	unknown := wrong.Kind == ErrUnknown
	switch policy := c.host.HostKeys; {
	case unknown && policy == AcceptNew:
		return c.remember(ctx, key)
	case unknown && policy == Insecure:
		if err := c.remember(ctx, key); errors.Is(err, ErrRevoked) {
			return err
		}
		return nil // where it cannot be written, it is as new the next time
	case wrong.Kind == ErrChanged && policy == Insecure:
		c.suspicious.Store(true)
		return nil
	case unknown && policy == Ask && c.accept != nil:
		if err := c.accept(ctx, wrong); err != nil {
			return fmt.Errorf("%w: %w", wrong, err)
		}
		return c.remember(ctx, key)
	}
	return wrong
}

// remember writes the key of a new host to the first of the user's files.
func (c *hostKeyCheck) remember(ctx context.Context, key xssh.PublicKey) error {
	if len(c.host.KnownHosts) == 0 {
		return nil // UserKnownHostsFile none
	}
	verdict, err := c.known.Remember(ctx, c.host.KnownHosts[0], key, c.host.HashKnownHosts)
	if err != nil {
		return err
	}
	if wrong := c.wrong(key, verdict); wrong != nil {
		return wrong
	}
	return nil
}

// safe are the methods that give nothing away to whoever shows a changed key.
func (c *hostKeyCheck) safe(methods []string) []string {
	if !c.suspicious.Load() {
		return methods
	}
	return slices.DeleteFunc(slices.Clone(methods), func(m string) bool { return m != "publickey" })
}
