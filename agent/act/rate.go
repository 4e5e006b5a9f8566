package act

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Rate is how many connections a second an act touches. The zero Rate means
// [DefaultRate].
type Rate int

// The rates that have a name.
const (
	DefaultRate Rate = 500
	Unpaced     Rate = -1 // as fast as the kernel does it
)

// fastest is a rate that no machine reaches; more would not be a pace.
const fastest Rate = 1_000_000

// ParseRate reads a rate such as "500/s" or "500", or "max" for [Unpaced].
func ParseRate(text string) (Rate, error) {
	if text == "max" {
		return Unpaced, nil
	}
	n, err := strconv.Atoi(strings.TrimSuffix(text, "/s"))
	if err != nil || n < 1 || Rate(n) > fastest {
		return 0, fmt.Errorf("%q is not a rate: take one such as 500/s, or max", text)
	}
	return Rate(n), nil
}

func (r Rate) String() string {
	if r == Unpaced {
		return "max"
	}
	return strconv.Itoa(int(r.orDefault())) + "/s"
}

// Duration returns how long n connections take at this rate; 0 when unpaced.
func (r Rate) Duration(n int) time.Duration {
	if r == Unpaced {
		return 0
	}
	return time.Duration(n) * time.Second / time.Duration(r.orDefault())
}

func (r Rate) orDefault() Rate {
	if r == 0 {
		return DefaultRate
	}
	return r
}

// batch is how many connections go at once: a twentieth of a second's worth,
// so that the pace is even and a stop comes soon.
func (r Rate) batch() int {
	const least, most, perSecond = 1, 256, 20
	if r == Unpaced {
		return most
	}
	return min(max(int(r.orDefault())/perSecond, least), most)
}

// pace is a token bucket: it holds one batch beside the one that is being
// taken, so that lateness of up to a batch is caught up, and more is not.
type pace struct {
	rate Rate
	next time.Time // when the next batch is due; zero before the first
}

// wait returns when n more connections may be touched, or with the cause of
// the end of ctx.
func (p *pace) wait(ctx context.Context, n int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	now, interval := time.Now(), p.rate.Duration(n)
	switch earliest := now.Add(-interval); {
	case p.next.IsZero():
		p.next = now
	case p.next.Before(earliest):
		p.next = earliest
	}
	due := p.next
	p.next = due.Add(interval)
	if !due.After(now) {
		return nil
	}
	timer := time.NewTimer(due.Sub(now))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
