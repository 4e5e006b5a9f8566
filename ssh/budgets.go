package ssh

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/bound"
)

// Budgets bounds what a call may take, phase by phase. A field that is zero or
// negative is as recommended; [lifeline.Never] is no bound of its own, so that
// the context and [Liveness] remain.
type Budgets struct {
	// Connect bounds the TCP connection, with the look-up of the name.
	// Recommended are 10 s, see [lifeline.Policy].
	Connect time.Duration
	// Handshake bounds the exchange of versions and keys, until the server has
	// shown its host key. It is for the whole, so that a server that sends a line
	// now and then gets no more. Recommended are 10 s.
	Handshake time.Duration
	// Authentication bounds what follows: the check of the host key, and the
	// authentication of the user, with all callbacks and the agent. Recommended
	// are 30 s, for people who must touch a key.
	Authentication time.Duration
	// ChannelOpen bounds the opening of a channel. Recommended are 10 s.
	ChannelOpen time.Duration
	// Request bounds each request on a channel: a terminal, a variable of the
	// environment, the command itself. Recommended are 10 s.
	Request time.Duration
	// FirstOutput bounds the time from the server's word that the command
	// started to its first output. It is not bounded unless set.
	FirstOutput time.Duration
	// IdleOutput bounds the time without output of a command. Time in which the
	// caller's Writer does not take what is there does not count. It is not
	// bounded unless set.
	IdleOutput time.Duration
	// Total bounds a command from Start to the end. Recommended is 1 h. A command
	// that is meant to run for ever needs [lifeline.Never].
	Total time.Duration
	// WaitAfterExit bounds the wait for output after the command has exited,
	// which a child in the background may keep open. Time in which the caller's
	// Writer does not take what is there does not count. Recommended are 5 s.
	WaitAfterExit time.Duration
	// Cancel bounds how long a command that is given up may take to obey the
	// signal, while its last output is still taken. It is added to the bounds
	// above. Recommended are 200 ms.
	Cancel time.Duration
}

var recommended = Budgets{
	Connect:        10 * time.Second,
	Handshake:      10 * time.Second,
	Authentication: 30 * time.Second,
	ChannelOpen:    10 * time.Second,
	Request:        10 * time.Second,
	FirstOutput:    lifeline.Never,
	IdleOutput:     lifeline.Never,
	Total:          time.Hour,
	WaitAfterExit:  5 * time.Second,
	Cancel:         200 * time.Millisecond,
}

// or returns the budgets with those of other where there are none.
func (b Budgets) or(other Budgets) Budgets {
	first := func(a, b time.Duration) time.Duration { return cmp.Or(max(a, 0), max(b, 0)) }
	return Budgets{
		Connect:        first(b.Connect, other.Connect),
		Handshake:      first(b.Handshake, other.Handshake),
		Authentication: first(b.Authentication, other.Authentication),
		ChannelOpen:    first(b.ChannelOpen, other.ChannelOpen),
		Request:        first(b.Request, other.Request),
		FirstOutput:    first(b.FirstOutput, other.FirstOutput),
		IdleOutput:     first(b.IdleOutput, other.IdleOutput),
		Total:          first(b.Total, other.Total),
		WaitAfterExit:  first(b.WaitAfterExit, other.WaitAfterExit),
		Cancel:         first(b.Cancel, other.Cancel),
	}
}

// Liveness says when a server that says nothing is given up. The zero value is
// the recommended one.
type Liveness struct {
	// Silence is how long nothing may come from the server. Zero means 20 s, as
	// in [lifeline.Policy].
	Silence time.Duration
	// Interval is how long nothing comes before the server is asked. Zero means
	// a quarter of Silence; more than half of it is taken as half.
	Interval time.Duration
}

func (l Liveness) settled() Liveness {
	l.Silence = min(cmp.Or(max(l.Silence, 0), 20*time.Second), lifeline.Never/4)
	l.Interval = min(cmp.Or(max(l.Interval, 0), l.Silence/4), l.Silence/2)
	return l
}

// Bound is how long calls can take at most. An overloaded machine may be later.
type Bound struct {
	// Silence is within which every call returns when the server has gone silent.
	Silence time.Duration
	// Dial is Connect, Handshake and Authentication together.
	Dial time.Duration
	// Start is a channel and one request; each variable of the environment and
	// a terminal are one more.
	Start time.Duration
	// Command is Total and Cancel.
	Command time.Duration
}

// sum adds bounds, of which Never is the most.
func sum(times ...time.Duration) (all time.Duration) {
	for _, t := range times {
		if all > lifeline.Never-t {
			return lifeline.Never
		}
		all += t
	}
	return all
}

// A BudgetError is the cause of a call that ended because a budget of its own
// was used up. It is [context.DeadlineExceeded] too, as errors.Is says.
type BudgetError struct {
	Budget string        // the field of [Budgets]
	Limit  time.Duration // what it was
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("its budget %s of %s is used up", e.Budget, bound.Format(e.Limit))
}

// Is says that it is a deadline.
func (e *BudgetError) Is(target error) bool { return target == context.DeadlineExceeded }

// Timeout is true, as in [net.Error].
func (e *BudgetError) Timeout() bool { return true }

// within bounds ctx by a budget, whose end is then the cause of the context's.
func within(ctx context.Context, budget string, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit == lifeline.Never {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, limit, &BudgetError{budget, limit})
}
