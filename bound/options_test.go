package bound

import (
	"testing"
	"time"
)

func TestWithin(t *testing.T) {
	for within := 3200 * time.Millisecond; within < 12*time.Hour; within += within/9 + 77*time.Millisecond {
		o, ok := Within(within)
		if !ok || !o.KeepAlive || o.Count < 2 || o.Count > 12 || o.Interval < time.Second || o.Idle < o.Interval ||
			o.Idle%time.Second+o.Interval%time.Second != 0 || max(o.Idle, o.Interval) > 32767*time.Second || o.UserTimeout != 0 {
			t.Errorf("%v: %+v, %v", within, o, ok)
		}
		asked := min(within, longestKeepAlive)
		for _, tick := range []time.Duration{time.Millisecond, 4 * time.Millisecond, 10 * time.Millisecond} {
			b := Conn{Options: o, Tick: tick}.Idle()
			if b.Latest > asked || b.OneLoss || b.Latest < asked/2 {
				t.Errorf("%v: %+v has the bound %+v", within, o, b)
			}
		}
	}
	for within, want := range map[time.Duration]Options{ // as much of the time as can be is for asking
		4 * time.Second:  {Idle: time.Second, Interval: time.Second, Count: 2},
		6 * time.Second:  {Idle: time.Second, Interval: time.Second, Count: 4},
		10 * time.Second: {Idle: 2 * time.Second, Interval: time.Second, Count: 7},
		20 * time.Second: {Idle: 6 * time.Second, Interval: time.Second, Count: 12},
		time.Minute:      {Idle: 19 * time.Second, Interval: 3 * time.Second, Count: 12},
	} {
		want.KeepAlive = true
		if o, ok := Within(within); !ok || o != want {
			t.Errorf("%v: %+v, %v", within, o, ok)
		}
	}
	for _, within := range []time.Duration{-time.Second, 0, time.Second, 3 * time.Second, 3199 * time.Millisecond} {
		if o, ok := Within(within); ok || o.Count != 2 || o.Idle != time.Second || o.Interval != time.Second {
			t.Errorf("%v: %+v, %v", within, o, ok)
		}
	}
}
