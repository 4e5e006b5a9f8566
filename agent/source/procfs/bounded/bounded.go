// Package bounded calls functions that may never return, and comes back all
// the same. A read of /proc or of a file whose server is gone heeds no deadline
// for as long as the kernel waits; the only way out is to leave behind the
// goroutine that reads.
package bounded

import (
	"errors"
	"sync"
	"time"
)

const (
	// Patience is how long a call may take.
	Patience = time.Second
	// MostHung is how many calls of one [Calls] may be left behind at a time.
	// Calls made one after another therefore wait MostHung × Patience in all;
	// beyond that they are refused at once.
	MostHung = 4
)

// ErrHung is the error of a call that did not return within [Patience], and of
// one that was not made because it, or [MostHung] others, still has not.
var ErrHung = errors.New("did not return within " + Patience.String())

// Calls remembers which calls were left behind, so that what hangs is not
// called again until it returns. The zero value is ready. It may be used from
// many goroutines at once; each of them may leave one call more than MostHung.
type Calls struct {
	mu   sync.Mutex
	hung map[string]int // calls left behind, by key
}

// Do returns what f returns, or [ErrHung] after [Patience]. Key names what may
// hang. F runs in a goroutine of its own, must own all that it writes to, and
// must close all that it opens: it may run long after Do has returned.
func Do[T any](c *Calls, key string, f func() (T, error)) (T, error) {
	var none T
	if c.refuses(key) {
		return none, ErrHung
	}
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	left := false // behind; guarded by c.mu
	go func() {
		value, err := f()
		done <- outcome{value, err}
		c.mu.Lock()
		defer c.mu.Unlock()
		if left {
			c.returned(key)
		}
	}()
	patience := time.NewTimer(Patience)
	defer patience.Stop()
	select {
	case o := <-done:
		return o.value, o.err
	case <-patience.C:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case o := <-done: // at the last moment; nobody is left behind
		return o.value, o.err
	default:
	}
	left = true
	if c.hung == nil {
		c.hung = make(map[string]int)
	}
	c.hung[key]++
	return none, ErrHung
}

func (c *Calls) refuses(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.hung) >= MostHung || c.hung[key] > 0
}

// returned needs c.mu.
func (c *Calls) returned(key string) {
	if c.hung[key]--; c.hung[key] == 0 {
		delete(c.hung, key)
	}
}
