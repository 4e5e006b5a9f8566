package daemon

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
)

// source is one thing that is looked at again and again. Each is followed by a
// goroutine of its own, so that one that hangs holds up nobody, and is not
// asked again before it returns.
type source struct {
	name  string
	every time.Duration
	bound time.Duration // how long a look may take before it is late; of one that goes on, how long it may not say that it looked
	off   string        // why it is not looked at

	// look looks once; or, where there is a beat, until ctx ends. What it returns is
	// how long to wait for the next; 0 = every.
	look func(context.Context) (time.Duration, error)
	end  func() // closes what the looks keep open; nil: nothing

	// wake has a look begin at once when there is something new to look at; nil:
	// there never is.
	wake chan struct{}

	// beat is when a source that goes on looked last; nil: it does not say.
	beat *atomic.Pointer[time.Time]

	// By Daemon.mu:
	began time.Time // of the look under way; zero when none is
	late  bool
	last  time.Time
	took  time.Duration
	err   string
}

// follow looks at a source until ctx ends.
func (d *Daemon) follow(ctx context.Context, s *source) {
	if s.end != nil {
		defer s.end()
	}
	for ctx.Err() == nil && s.off == "" {
		began := time.Now()
		d.mu.Lock()
		s.began = began // nobody need know before it is late
		d.mu.Unlock()
		next, err := s.look(ctx)
		if ctx.Err() != nil {
			return
		}
		if next <= 0 {
			next = s.every
		}
		d.take(func(*known) {
			s.began, s.late, s.took, s.err = time.Time{}, false, time.Since(began), ""
			if err != nil {
				s.err = err.Error()
			} else {
				s.last = time.Now()
			}
			s.every = next
		})
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-time.After(next):
		}
	}
}

// hurry has the source called name look as soon as it can.
func (d *Daemon) hurry(name string) {
	for _, s := range d.sources {
		if s.name != name || s.wake == nil {
			continue
		}
		select {
		case s.wake <- struct{}{}:
		default: // it is about to
		}
	}
}

// sourceLate reports a source that is late. It needs d.mu.
func (d *Daemon) sourceLate(name string) bool {
	return slices.ContainsFunc(d.sources, func(s *source) bool { return s.name == name && s.late })
}

// turned marks the sources that are late, and reports that there is a new one.
func (d *Daemon) turned(now time.Time) (news bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.sources {
		if late := !s.began.IsZero() && now.Sub(s.since()) > s.bound; late != s.late {
			s.late, news = late, true
		}
	}
	return news
}

// since is when the look under way began, or when it last said that it goes on.
func (s *source) since() time.Time {
	if s.beat != nil {
		if at := s.beat.Load(); at != nil && at.After(s.began) {
			return *at
		}
	}
	return s.began
}

// state is the source as it is published.
func (s *source) state(now time.Time) state.Source {
	out := state.Source{Name: s.name, Every: s.every.Seconds(), Late: s.late, Error: s.err, Off: s.off}
	if s.late {
		out.Error = fmt.Sprintf("under way for %v: it is not asked again before it returns", now.Sub(s.since()).Round(time.Second))
	}
	last := s.last
	if s.beat != nil {
		if at := s.beat.Load(); at != nil {
			last = *at
		}
	}
	if !last.IsZero() {
		out.Last = &last
	}
	if s.took > 0 {
		took := s.took.Seconds()
		out.Took = &took
	}
	return out
}
