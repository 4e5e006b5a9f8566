package lifeline

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	defaultFirst   = 500 * time.Millisecond
	defaultLongest = 30 * time.Second
)

// Backoff says how long to wait before connecting again, so that clients whose
// connections ended at the same moment do not come back at the same moment:
// anywhere between now and a time that doubles with each failure (full jitter).
// The zero value is ready and recommended. It is for one goroutine.
type Backoff struct {
	First   time.Duration // the longest first wait; zero means 500 ms
	Longest time.Duration // the longest of all waits; zero means 30 s

	failures int
}

// Next returns how long to wait after one more failure.
func (b *Backoff) Next() time.Duration {
	most, longest := b.First, b.Longest
	if most <= 0 {
		most = defaultFirst
	}
	if longest <= 0 {
		longest = defaultLongest
	}
	for range b.failures {
		if most >= longest/2 {
			most = longest
			break
		}
		most *= 2
	}
	b.failures++
	return rand.N(min(most, longest) + 1)
}

// After is Next for a server that said when to come back, by Retry-After or the
// like: not before that, and spread over as long again as Next would have
// waited, since it said so to others too.
func (b *Backoff) After(hint time.Duration) time.Duration { return max(hint, 0) + b.Next() }

// Reset must be called when a connection has proved good, not merely when it
// was made: a server may accept and drop.
func (b *Backoff) Reset() { b.failures = 0 }

// Wait waits for Next, or until the context is done, and returns its cause.
func (b *Backoff) Wait(ctx context.Context) error { return b.WaitAfter(ctx, 0) }

// WaitAfter is Wait for a server that said when to come back; see [Backoff.After].
func (b *Backoff) WaitAfter(ctx context.Context, hint time.Duration) error {
	timer := time.NewTimer(b.After(hint))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
