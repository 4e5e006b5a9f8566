//go:build linux

package redirect

import (
	"sync"
	"unsafe"

	"github.com/lifeline-go/lifeline/agent/act/run/notify"
)

// mostSlow is how many calls may wait for something at a time; of further ones
// it is only lost what they were when the process dies meanwhile.
const mostSlow = 64

// Journal has the calls that are being answered, in memory that processes share:
// who takes over from one that died finds them there. The kernel writes them
// there itself, so there is no moment at which one could be lost.
type Journal struct {
	slots [mostLoops + mostSlow]notify.Call // those of loops, then those of slow calls
}

// JournalSize is how many bytes [NewJournal] needs.
const JournalSize = int(unsafe.Sizeof(Journal{}))

// NewJournal returns the journal in some memory, at first all zero, that begins
// with a page.
func NewJournal(memory []byte) *Journal {
	_ = memory[JournalSize-1]
	return (*Journal)(unsafe.Pointer(&memory[0]))
}

// slots are those for slow calls.
type slots struct {
	mu   sync.Mutex
	used [mostSlow]bool
}

// take returns the number of a free one, -1 when there is none.
func (s *slots) take() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, used := range s.used {
		if !used {
			s.used[i] = true
			return i
		}
	}
	return -1
}

func (s *slots) free(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[i] = false
}

// later answers a call with what f says, which may wait; no other call waits
// with it.
func (r *Redirector) later(c *notify.Call, f func(c *notify.Call) answer) answer {
	call := *c
	i := r.slow.take()
	if i >= 0 {
		r.Journal.slots[mostLoops+i] = call
	}
	go func() {
		r.give(&call, f(&call))
		if i >= 0 {
			r.Journal.slots[mostLoops+i].ID = 0
			r.slow.free(i)
		}
	}()
	return answer{later: true}
}
