package node

import (
	"slices"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/netns"
)

// Spaces is the list of network namespaces for several who each need it now and
// then, since to make it takes a look at each process. Namespaces that were made
// since are in it 5 s later, or as soon as anybody takes a look. The zero Spaces is
// ready, and nil is a list that is made for each who asks.
type Spaces struct {
	mu     sync.Mutex // not held while a list is made, which may hang
	listed time.Time
	spaces []fact.Namespace
	blind  []fact.Blind
}

// list returns one that is not older than age, and what it could not see. Both are
// the caller's.
func (s *Spaces) list(age time.Duration) ([]fact.Namespace, []fact.Blind) {
	if s == nil {
		return netns.List()
	}
	s.mu.Lock()
	spaces, blind, recent := s.spaces, s.blind, time.Since(s.listed) < age
	s.mu.Unlock()
	if !recent {
		at := time.Now()
		spaces, blind = netns.List()
		s.mu.Lock()
		s.listed, s.spaces, s.blind = at, spaces, blind
		s.mu.Unlock()
	}
	return slices.Clone(spaces), slices.Clone(blind)
}
