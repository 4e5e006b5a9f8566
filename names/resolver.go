package names

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"time"
)

// DefaultTimeout is how long a lookup takes at most when nothing else is said.
// It is less than callers wait as a rule (5 s and more), and time for eight
// questions to servers.
const DefaultTimeout = 3 * time.Second

// Default is the resolver of lifeline.Dialer and of [Install].
var Default = new(Resolver)

// Resolver looks names up by all ways that this system has. The zero value is
// the recommended one. It remembers how the ways and servers did, so a program
// should have one. Its methods can be called from many goroutines at a time; its
// fields must not be changed after the first lookup.
type Resolver struct {
	// Timeout bounds a lookup with all that it tries. Zero or less means
	// [DefaultTimeout].
	Timeout time.Duration

	// Root is the directory below which the files of the configuration are
	// looked for, and the sockets of the system's resolvers: etc/hosts,
	// etc/nsswitch.conf, etc/resolv.conf, var/run/nscd/socket and the like.
	// Empty means the root of the file system.
	Root string

	// Nameservers are asked instead of those of resolv.conf, where there are any.
	Nameservers []netip.AddrPort

	// System are the ways that speak for the operating system, in place of those
	// that this system has and those that are registered, where it is not nil.
	System []Way
}

// Answer is what a lookup found, and where.
type Answer struct {
	Addrs     []netip.Addr  // in the order in which they should be tried
	Way       string        // that gave it: the name of a [Way], or "address" where the name is one
	Why       string        // why it was this one, in words
	At        time.Time     // when the way gave it
	Took      time.Duration // how long the lookup took then
	Until     time.Time     // how long it is known to be true; no later than At where that is not known
	Canonical string        // the name at the end of the CNAME records, where the way says it
	Cached    bool          // an earlier lookup found it
}

// Lookup returns the addresses of host and where they come from. Network is
// "ip", "ip4" or "ip6". It takes no longer than Timeout, and returns when ctx is
// done. Errors are [*net.DNSError]: with IsNotFound where the name, or the kind of
// address, is known not to exist; with IsTimeout where time ran out.
func (r *Resolver) Lookup(ctx context.Context, network, host string) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(max(r.Timeout, 0), DefaultTimeout))
	defer cancel()
	began := time.Now()
	var failed error
	ways := r.System
	if ways == nil {
		ways = Registered()
	}
	for _, way := range ways {
		addrs, err := way.Lookup(ctx, network, host)
		if err == nil {
			return Answer{Addrs: addrs, Way: way.Name(), Why: "it speaks for the operating system", At: time.Now(), Took: time.Since(began)}, nil
		}
		failed = cmp.Or(failed, err)
	}
	if failed != nil {
		return Answer{}, failed
	}
	addrs, err := new(net.Resolver).LookupNetIP(ctx, network, host)
	return Answer{Addrs: addrs, Way: "system", Why: "the only one", At: time.Now(), Took: time.Since(began)}, err
}

// LookupNetIP is as the method of [net.Resolver].
func (r *Resolver) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	answer, err := r.Lookup(ctx, network, host)
	return answer.Addrs, err
}

// LookupHost is as the method of [net.Resolver].
func (r *Resolver) LookupHost(ctx context.Context, host string) ([]string, error) {
	answer, err := r.Lookup(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	addrs := make([]string, len(answer.Addrs))
	for i, addr := range answer.Addrs {
		addrs[i] = addr.String()
	}
	return addrs, nil
}
