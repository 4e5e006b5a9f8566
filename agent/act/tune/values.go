//go:build linux

package tune

import (
	"errors"
	"time"

	"github.com/lifeline-go/lifeline/bound"
)

// values are the options of one socket as setsockopt(2) has them, in the order
// of options.bpf.c.
type values [5]int32

const (
	keepAlive   = iota // 0 or 1
	idle               // seconds
	interval           // seconds
	count              //
	userTimeout        // milliseconds
)

var errNoWayBack = errors.New("left alone: a sysctl gives it a value that no program may set, so it could not be undone")

// valuesOf returns options of which none is left to a sysctl.
func valuesOf(o bound.Options) (v values) {
	if o.KeepAlive {
		v[keepAlive] = 1
	}
	v[idle] = int32(o.Idle / time.Second)
	v[interval] = int32(o.Interval / time.Second)
	v[count] = int32(o.Count)
	v[userTimeout] = int32(o.UserTimeout / time.Millisecond)
	return v
}

func (v values) options() bound.Options {
	return bound.Options{
		KeepAlive:   v[keepAlive] != 0,
		Idle:        time.Duration(v[idle]) * time.Second,
		Interval:    time.Duration(v[interval]) * time.Second,
		Count:       int(v[count]),
		UserTimeout: time.Duration(v[userTimeout]) * time.Millisecond,
	}
}

// settable reports whether setsockopt(2) would take the values back: it is
// stricter than the sysctls that stand in for what a program has not set
// (MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL and MAX_TCP_KEEPCNT of net/tcp.h).
func (v values) settable() bool {
	const longest, most = 32767, 127
	in := func(n, most int32) bool { return n >= 1 && n <= most }
	return in(v[idle], longest) && in(v[interval], longest) && in(v[count], most) && v[userTimeout] >= 0
}

// aim returns what a socket should get that has v, or that it is tight: that a
// silent peer is noticed within the time already, and sooner than the user
// timeout that is asked for.
func aim(v values, target bound.Options, within time.Duration) (to values, tight bool) {
	to = valuesOf(target)
	asked := to[userTimeout]
	if v[userTimeout] > 0 && v[userTimeout] <= asked || asked == 0 {
		to[userTimeout] = v[userTimeout]
	}
	now := bound.Conn{Options: v.options(), Tick: 10 * time.Millisecond}.Idle() // the coarsest clock makes the longest bound
	if now.Never() || now.Latest > within {
		return to, v == to
	}
	// Keepalive is tight enough; a user timeout may still be wanted.
	only := v
	only[userTimeout] = to[userTimeout]
	return only, only == v
}

// fit is the rule of options.bpf.c (judge) for sockets that are borrowed.
func (w *wish) judge(was values) outcome {
	result := outcomeSame
	for i := range was {
		if was[i] == w.To[i] {
			continue
		}
		if was[i] != w.From[i] && was[i] != w.Also[i] {
			return outcomeChanged
		}
		result = outcomeSet
	}
	return result
}
