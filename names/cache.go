package names

import (
	"errors"
	"net"
	"slices"
	"time"
)

const (
	// unknownLife is how long an answer is kept whose lifetime nobody said: as
	// long as it takes to open some connections to the same name.
	unknownLife = time.Second

	// longestLife is how long an answer of a nameserver is kept whatever its TTL:
	// what the system would say can change without it, as when a VPN comes up.
	longestLife = 30 * time.Second

	// remembered is how many answers are kept.
	remembered = 1024
)

// memory is an answer that is kept.
type memory struct {
	answer Answer
	err    error
	until  time.Time
}

func (r *Resolver) recallLocked(q question) (memory, bool) {
	m, ok := r.cache[q]
	if !ok || !time.Now().Before(m.until) {
		return memory{}, false
	}
	m.answer.Addrs = slices.Clone(m.answer.Addrs)
	m.answer.Cached = m.err == nil
	return m, true
}

// rememberLocked keeps what is known for as long as it is: an answer until its
// Until, and a no of the system, which has no lifetime, for unknownLife. So is a
// failure for those who ask as if this were a nameserver: they ask again at once
// (RFC 9520 section 3.2). A no that nobody confirmed is not kept.
func (r *Resolver) rememberLocked(q question, answer Answer, err error) {
	until := answer.Until
	if err != nil {
		var e *net.DNSError
		failed := q.whole && errors.As(err, &e) && !e.IsNotFound
		if !failed && !errors.Is(err, errConfirmed) {
			return
		}
		until = time.Now().Add(unknownLife)
	}
	now := time.Now()
	if !now.Before(until) {
		return
	}
	if r.cache == nil {
		r.cache = make(map[question]memory)
	}
	if len(r.cache) >= remembered {
		for old, m := range r.cache { // in no order
			if len(r.cache) > remembered*7/8 || !now.Before(m.until) {
				delete(r.cache, old)
			}
		}
	}
	r.cache[q] = memory{answer, err, until}
}
