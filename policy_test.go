package lifeline

import (
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/bound"
)

func TestPolicy(t *testing.T) {
	for within := time.Duration(0); within < 2*time.Hour; within += within/7 + 500*time.Millisecond {
		p := Policy{Silence: within}
		silence := p.settled().Silence
		if within >= leastSilence && within <= mostSilence && silence != within {
			t.Errorf("a silence of %v became %v", within, silence)
		}
		o := p.keepAlive()
		if o.Count < 2 || o.Interval < time.Second || o.Idle < o.Interval || o.Idle%time.Second+o.Interval%time.Second != 0 {
			t.Errorf("%v: keepalive %+v", silence, o)
		}
		for _, tick := range []time.Duration{time.Millisecond, 4 * time.Millisecond, 10 * time.Millisecond} {
			if last := (bound.Conn{Options: o, Tick: tick}).Idle().Latest; last > silence-late || last < silence/2 {
				t.Errorf("%v: keepalive %+v notices after %v", silence, o, last)
			}
		}
		r := p.rule()
		if r.limit+2*tick > silence || r.limit < silence*3/4 || r.period > 2*time.Second || r.limit < 3*r.period || r.idle+tick > silence || r.near() < o.Idle+2*o.Interval {
			t.Errorf("%v: rule %+v", silence, r)
		}
		if retry := p.longestRetry(); retry < time.Second || retry > 2*time.Minute || 3*retry > silence {
			t.Errorf("%v: retries %v apart", silence, retry)
		}
		if b := p.Bound(); b.Idle != silence || b.Longest() < silence {
			t.Errorf("%v: bound %+v", silence, b)
		}
	}
}

func TestPolicyZero(t *testing.T) {
	want := Policy{Connect: 10 * time.Second, Silence: 20 * time.Second}
	for _, p := range []Policy{{}, {-1, -1}, want} {
		if got := p.settled(); got != want {
			t.Errorf("%+v is %+v", p, got)
		}
	}
	if o := (Policy{}).keepAlive(); o.Idle != 6*time.Second || o.Interval != time.Second || o.Count != 12 {
		t.Errorf("the documentation says a probe every six seconds, and twelve of them: %+v", o)
	}
}
