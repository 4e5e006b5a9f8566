package fleet

import (
	"context"
	"sync"

	"github.com/lifeline-go/lifeline/ssh/sftp"
)

// Step is one thing that is done on each host: a command, or a copy.
type Step struct {
	Command string // for the shell of the remote user
	Copy    *Copy  // nil where it is the command
}

// String is the step as a person would say it.
func (s Step) String() string {
	switch {
	case s.Copy == nil:
		return s.Command
	case s.Copy.Get:
		return "--get " + s.Copy.Remote
	}
	return "--put " + s.Copy.Local
}

// HostName stands in Copy.Local for the name of the host.
const HostName = "{host}"

// Copy is a file or a tree to be copied, by SFTP.
type Copy struct {
	Get    bool   // from the host; to it otherwise
	Local  string // of Get each host must have its own, by HostName; the directory it is in is made
	Remote string // the home directory of the remote user is where relative names begin
	How    sftp.Copy
}

// Script is a list of steps that grows while hosts do what is in it. The zero
// value is empty. It may be used by many goroutines.
type Script struct {
	mu    sync.Mutex
	steps []Step
	ended bool
	grown chan struct{} // closed when there is more; nil when nobody waits
	cut   chan struct{} // closed by Interrupt; nil when no step has begun since
}

// Add adds a step.
func (s *Script) Add(step Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, step)
	s.tell()
}

// End says that no more steps will come. It must be called.
func (s *Script) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.tell()
}

func (s *Script) tell() {
	if s.grown != nil {
		close(s.grown)
		s.grown = nil
	}
}

// Interrupt ends what hosts are doing now, as the end of the context would. With
// Plan.KeepGoing they do the next step then.
func (s *Script) Interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut != nil {
		close(s.cut)
		s.cut = nil
	}
}

// interruptible returns a context for a step.
func (s *Script) interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	s.mu.Lock()
	if s.cut == nil {
		s.cut = make(chan struct{})
	}
	cut := s.cut
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-cut:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// Step returns the i-th step, which must be there.
func (s *Script) Step(i int) Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.steps[i]
}

// next waits for the i-th step; there is none when the script has ended, or the
// context before it came.
func (s *Script) next(ctx context.Context, i int) (step Step, ok bool) {
	for {
		s.mu.Lock()
		if i < len(s.steps) {
			step, ok = s.steps[i], true
		}
		if ok || s.ended {
			s.mu.Unlock()
			return step, ok
		}
		if s.grown == nil {
			s.grown = make(chan struct{})
		}
		grown := s.grown
		s.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return Step{}, false
		}
	}
}
