package names

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultTimeout is how long a lookup takes at most when nothing else is said.
// It is less than callers wait as a rule (5 s and more), and time for six
// questions to each server.
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
	// etc/nsswitch.conf, etc/resolv.conf, run/nscd/socket and the like.
	// Empty means the root of the file system.
	Root string

	// Nameservers are asked instead of those of resolv.conf, where it is not nil.
	Nameservers []netip.AddrPort

	// System are the ways that speak for the operating system, in place of those
	// that this system has and those that are registered, where it is not nil.
	System []Way

	mu      sync.Mutex
	conf    *config
	looked  time.Time
	servers map[netip.AddrPort]*server // of conf
	ways    map[string]*health
	cache   map[question]memory
	flights map[question]*flight
	running map[chan struct{}]context.CancelFunc // what goes on in the background; closed when it is over

	turn    atomic.Uint32 // of rotated servers
	silence atomic.Int64  // until when nothing is known to answer; nanoseconds since 1970, 0 = something does
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

// question is what is looked up.
type question struct {
	network, host string
	whole         bool // nameservers are asked for host as it is, without the search list
}

// flight is a lookup that is under way, for all who want the same.
type flight struct {
	done    chan struct{}
	answer  Answer
	err     error
	waiting int
	cancel  context.CancelCauseFunc
}

// errLeft is the cause of a lookup whose callers have all left.
var errLeft = errors.New("nobody waits for the answer any more")

// Lookup returns the addresses of host and where they come from. Network is
// "ip", "ip4" or "ip6". It takes no longer than Timeout, and returns when ctx is
// done. Errors are [*net.DNSError]: with IsNotFound where the name, or the kind of
// address, is known not to exist; with IsTimeout where time ran out.
func (r *Resolver) Lookup(ctx context.Context, network, host string) (Answer, error) {
	return r.lookup(ctx, question{network: network, host: host})
}

func (r *Resolver) lookup(ctx context.Context, q question) (Answer, error) {
	if q.network != "ip" && q.network != "ip4" && q.network != "ip6" {
		return Answer{}, &net.DNSError{Err: net.UnknownNetworkError(q.network).Error(), UnwrapErr: net.UnknownNetworkError(q.network), Name: q.host}
	}
	if addr, ok := address(q.host); ok {
		addrs := ofNetwork(q.network, []netip.Addr{addr})
		if len(addrs) == 0 {
			return Answer{}, notFound(q.host, "", "an address of another kind")
		}
		now := time.Now()
		return Answer{Addrs: addrs, Way: "address", Why: "the name is an address", At: now, Until: now}, nil
	}
	if q.host == "" || q.host == "." || len(q.host) > 1024 || strings.ContainsRune(q.host, 0) {
		return Answer{}, notFound(q.host, "", "no such host")
	}
	c := r.config()
	f, remembered := r.join(ctx, c, q)
	if remembered != nil {
		return remembered.answer, remembered.err
	}
	select {
	case <-f.done:
		answer := f.answer
		answer.Addrs = slices.Clone(answer.Addrs) // others have it too
		return answer, f.err
	case <-ctx.Done():
		r.leave(q, f)
		return Answer{}, &net.DNSError{
			Err: ctx.Err().Error(), UnwrapErr: context.Cause(ctx), Name: q.host,
			IsTimeout: errors.Is(ctx.Err(), context.DeadlineExceeded), IsTemporary: true,
		}
	}
}

// join returns what is remembered, or the lookup that will tell, which it starts
// where there is none.
func (r *Resolver) join(ctx context.Context, c *config, q question) (*flight, *memory) {
	key := q
	key.host = strings.ToLower(q.host)
	r.mu.Lock()
	defer r.mu.Unlock()
	if m, ok := r.recallLocked(key); ok {
		return nil, &m
	}
	if f := r.flights[key]; f != nil {
		f.waiting++
		return f, nil
	}
	within, cancelCause := context.WithCancelCause(context.WithoutCancel(ctx))
	f := &flight{done: make(chan struct{}), waiting: 1, cancel: cancelCause}
	if r.flights == nil {
		r.flights = make(map[question]*flight)
	}
	r.flights[key] = f
	go func() {
		within, cancel := context.WithTimeout(within, r.bound(q))
		defer cancel()
		defer cancelCause(nil)
		f.answer, f.err = r.race(within, c, q)
		r.noteSilence(q, f.err)
		r.mu.Lock()
		if r.flights[key] == f {
			delete(r.flights, key)
		}
		if r.conf == c {
			r.rememberLocked(key, f.answer, f.err)
		}
		r.mu.Unlock()
		close(f.done)
	}()
	return f, nil
}

// leave ends a lookup that nobody waits for any more.
func (r *Resolver) leave(q question, f *flight) {
	q.host = strings.ToLower(q.host)
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		f.cancel(errLeft)
		if r.flights[q] == f {
			delete(r.flights, q)
		}
	}
}

// bound is how long a lookup may take. Who asks as if this were a nameserver
// asks again and again, with every name of the search list: when nothing at all
// answers, only the first question waits its time.
func (r *Resolver) bound(q question) time.Duration {
	const shorter = 10
	if q.whole && time.Now().UnixNano() < r.silence.Load() {
		return r.timeout() / shorter
	}
	return r.timeout()
}

func (r *Resolver) noteSilence(q question, err error) {
	const lasts = 5 * time.Second
	var e *net.DNSError
	switch {
	case !q.whole:
	case errors.As(err, &e) && e.IsTimeout && time.Now().UnixNano() >= r.silence.Load():
		r.silence.Store(time.Now().Add(lasts).UnixNano())
	case err == nil, isNotFound(err):
		r.silence.Store(0)
	}
}

func (r *Resolver) timeout() time.Duration { return cmp.Or(max(r.Timeout, 0), DefaultTimeout) }

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

// Ways returns how the ways of this resolver have done, in the order in which
// they are asked as long as all of them answer.
func (r *Resolver) Ways() []Health {
	c := r.config()
	var all []Health
	for _, way := range r.system(c, c.plan("")) {
		all = append(all, r.healthOf(way.Name()).report(way.Name(), true))
	}
	for _, s := range c.servers {
		all = append(all, s.health.report(s.name(0), false))
	}
	return all
}

// healthOf returns what is remembered of a way.
func (r *Resolver) healthOf(way string) *health {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.ways[way]
	if h == nil {
		if r.ways == nil {
			r.ways = make(map[string]*health)
		}
		h = new(health)
		r.ways[way] = h
	}
	return h
}
