package ssh

import (
	"context"
	"slices"
	"sync"
)

// slots are the sessions that a server takes at a time, as far as is known:
// fewer after it refused one, and more again when all has gone well for long.
type slots struct {
	most int // as many as there may ever be

	mu      sync.Mutex
	limit   int
	used    int
	stuck   int // of those, that belong to commands that were given up
	well    int // commands that were started since the limit was last changed
	waiting []chan struct{}
}

func newSlots(most int) *slots { return &slots{most: most, limit: most} }

// take waits for a slot; who came first gets the first.
func (s *slots) take(ctx context.Context, closed <-chan struct{}) error {
	s.mu.Lock()
	if s.used < s.limit && len(s.waiting) == 0 {
		s.used++
		s.mu.Unlock()
		return nil
	}
	mine := make(chan struct{})
	s.waiting = append(s.waiting, mine)
	s.mu.Unlock()
	var err error
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-closed:
		err = ErrClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiting, mine); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
	} else { // it came at this moment
		s.used--
		s.wake()
	}
	return err
}

// give returns a slot.
func (s *slots) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used--
	s.wake()
}

// wake must be called with the lock when there may be room.
func (s *slots) wake() {
	for s.used < s.limit && len(s.waiting) > 0 {
		s.used++
		close(s.waiting[0])
		s.waiting = s.waiting[1:]
	}
}

// refused returns a slot that the server has refused. It reports whether there
// are others whose end can be waited for.
func (s *slots) refused() (others bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used--
	others = s.used > 0
	s.limit, s.well = max(1, min(s.limit, s.used)), 0
	s.wake()
	return others
}

// started tells of a command that the server has taken.
func (s *slots) started() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.well++; s.well >= 8*s.limit && s.limit < s.most {
		s.limit, s.well = s.limit+1, 0
		s.wake()
	}
}

// stick tells of a slot whose command was given up, or (by -1) has ended after
// all.
func (s *slots) stick(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stuck += n
}

// retire calls end, which must end the connection, if there are only slots left
// whose commands were given up, and none is free. Nobody gets a slot meanwhile.
func (s *slots) retire(end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stuck < s.limit || s.stuck < s.used {
		return
	}
	end()
	s.limit, s.well = s.most, 0
	s.wake()
}

// reset is for a new connection, of which nothing is known.
func (s *slots) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit, s.well = s.most, 0
	s.wake()
}
