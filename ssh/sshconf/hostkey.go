package sshconf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"

	xssh "golang.org/x/crypto/ssh"
)

// A hostKeyCheck is how one connection checks the key of its host.
type hostKeyCheck struct {
	host       *Host
	known      known
	algorithms []string                                   // to ask for
	accept     func(context.Context, *HostKeyError) error // nil when nobody can be asked
	suspicious atomic.Bool                                // the key has changed and was accepted all the same
}

// newHostKeyCheck reads what is known.
func newHostKeyCheck(h *Host, login Login) (*hostKeyCheck, error) {
	lines, err := h.known()
	if err != nil {
		return nil, err
	}
	if h.RevokedHostKeys != "" {
		if err := lines.revoke(h.RevokedHostKeys); err != nil {
			return nil, err
		}
	}
	check := &hostKeyCheck{host: h, known: lines, accept: login.AcceptHostKey}
	if h.BatchMode {
		check.accept = nil
	}
	check.algorithms = h.HostKeyAlgorithms
	if check.algorithms == nil {
		check.algorithms = xssh.SupportedAlgorithms().HostKeys
	}
	if h.knownFirst || h.HostKeyAlgorithms == nil {
		check.algorithms = lines.algorithms(h.identity(), check.algorithms)
	}
	return check, nil
}

// revoke takes the keys of a file, one a line, as revoked.
func (k *known) revoke(name string) error {
	text, err := readAtMost(name, largestKnownHosts)
	if err != nil {
		return fmt.Errorf("RevokedHostKeys, without which no host key can be accepted: %w", err)
	}
	if bytes.HasPrefix(text, []byte("SSHKRL\n\x00")) {
		return fmt.Errorf("RevokedHostKeys %s: a binary list (KRL) is not supported: list the keys, one a line", name)
	}
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		at := Position{name, number}
		key, _, _, _, err := xssh.ParseAuthorizedKey(line)
		if err != nil {
			if kind, _, _ := bytes.Cut(line, []byte(" ")); usable(string(kind)) || !bytes.Contains(line, []byte(" ")) {
				return fmt.Errorf("RevokedHostKeys, %v: %w", at, err)
			}
			continue // of a kind that cannot be used here
		}
		*k = append(*k, knownLine{at: at, marker: "revoked", key: key})
	}
	return nil
}

// callback returns the check as x/crypto wants it.
func (c *hostKeyCheck) callback(ctx context.Context) xssh.HostKeyCallback {
	return func(_ string, _ net.Addr, key xssh.PublicKey) error {
		err := c.known.judge(c.host.identity(), key)
		if err == nil {
			return nil
		}
		return c.decide(ctx, key, err)
	}
}

// decide does what the policy says about a key with which something is wrong.
func (c *hostKeyCheck) decide(ctx context.Context, key xssh.PublicKey, wrong error) error {
	unknown := errors.Is(wrong, ErrUnknown)
	switch policy := c.host.HostKeys; {
	case unknown && policy == AcceptNew:
		return c.host.remember(ctx, key)
	case unknown && policy == Insecure:
		if err := c.host.remember(ctx, key); errors.Is(err, ErrRevoked) {
			return err
		}
		return nil // where it cannot be written, it is as new the next time
	case errors.Is(wrong, ErrChanged) && policy == Insecure:
		c.suspicious.Store(true)
		return nil
	case unknown && policy == Ask && c.accept != nil:
		var e *HostKeyError
		errors.As(wrong, &e)
		if err := c.accept(ctx, e); err != nil {
			return fmt.Errorf("%w: %w", wrong, err)
		}
		return c.host.remember(ctx, key)
	}
	return wrong
}

// safe are the methods that give nothing away to whoever shows a changed key.
func (c *hostKeyCheck) safe(methods []string) []string {
	if !c.suspicious.Load() {
		return methods
	}
	return slices.DeleteFunc(slices.Clone(methods), func(m string) bool { return m != "publickey" })
}
