package bound_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/bound"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

const (
	ms  = time.Millisecond
	sec = time.Second
	lan = 204 * ms // RTO of a connection without latency, at 250 ticks a second
)

func keepalive(idle, interval time.Duration, count int) bound.Options {
	return bound.Options{KeepAlive: true, Idle: idle, Interval: interval, Count: count}
}

func within(o bound.Options, timeout time.Duration) bound.Options {
	o.UserTimeout = timeout
	return o
}

// The rows that were timed on a real kernel (6.18, 250 ticks a second) say so in
// measured: counted as the bound is, the measured time must be no later than
// Latest, and Latest no more than vague after it.
func TestBounds(t *testing.T) {
	goDefault := keepalive(15*sec, 15*sec, 9)
	for _, test := range []struct {
		name     string
		bound    bound.Bound
		after    time.Duration
		by       bound.Mechanism
		oneLoss  bool
		slowDies bool
		measured time.Duration
		vague    time.Duration
	}{
		{name: "idle, keepalive off", by: bound.None,
			bound: bound.Conn{}.Idle()},
		{name: "idle, keepalive off, user timeout set", by: bound.None,
			bound: bound.Conn{Options: within(bound.Options{}, 5*sec)}.Idle()},
		{name: "idle, Go's default 15/15/9", after: 150 * sec, by: bound.KeepAlive,
			bound: bound.Conn{Options: goDefault}.Idle()},
		{name: "idle, Go before 1.23 with KeepAlive 30 s", after: 300 * sec, by: bound.KeepAlive,
			bound: bound.Conn{Options: keepalive(30*sec, 30*sec, 9)}.Idle()},
		{name: "idle, Go since 1.23 with KeepAlive 30 s", after: 165 * sec, by: bound.KeepAlive,
			bound: bound.Conn{Options: keepalive(30*sec, 15*sec, 9)}.Idle()},
		{name: "idle, SetKeepAlivePeriod(3m) before Go 1.23", after: 1800 * sec, by: bound.KeepAlive,
			bound: bound.Conn{Options: keepalive(180*sec, 180*sec, 9)}.Idle()},
		{name: "idle, SetKeepAlivePeriod(3m) since Go 1.23", after: 315 * sec, by: bound.KeepAlive,
			bound: bound.Conn{Options: keepalive(180*sec, 15*sec, 9)}.Idle()},
		{name: "idle, Linux's default", after: 7875 * sec, by: bound.KeepAlive,
			bound: bound.Conn{Options: bound.Options{KeepAlive: true}}.Idle()},
		{name: "idle, the namespace's settings", after: 90 * sec, by: bound.KeepAlive,
			bound: bound.Conn{Options: bound.Options{KeepAlive: true}, Sysctl: bound.Sysctl{
				KeepAliveTime: 60 * sec, KeepAliveInterval: 10 * sec, KeepAliveProbes: 3}}.Idle()},
		{name: "idle, one probe", after: 30 * sec, by: bound.KeepAlive, oneLoss: true,
			bound: bound.Conn{Options: keepalive(15*sec, 15*sec, 1)}.Idle()},
		{name: "idle, only TCP_KEEPIDLE set: the interval of 75 s comes first", after: 750 * sec, by: bound.KeepAlive,
			bound: bound.Conn{Options: bound.Options{KeepAlive: true, Idle: 15 * sec}}.Idle()},
		{name: "idle, a real 0 in tcp_keepalive_probes", after: 7200 * sec, by: bound.KeepAlive, oneLoss: true,
			bound: bound.Conn{Options: bound.Options{KeepAlive: true}, Sysctl: bound.Sysctl{KeepAliveProbes: -1}}.Idle()},

		{name: "idle, user timeout 5 s below Idle: the count is ignored", after: 30 * sec, by: bound.UserTimeout, oneLoss: true,
			bound: bound.Conn{Options: within(goDefault, 5*sec)}.Idle(), measured: 30 * sec, vague: sec},
		{name: "idle, user timeout 20 s, as gRPC sets it", after: 30 * sec, by: bound.UserTimeout, oneLoss: true,
			bound: bound.Conn{Options: within(goDefault, 20*sec)}.Idle(), measured: 30 * sec, vague: sec},
		{name: "idle, user timeout 40 s: two probes", after: 45 * sec, by: bound.UserTimeout,
			bound: bound.Conn{Options: within(goDefault, 40*sec)}.Idle()},
		{name: "idle, user timeout at the end of an interval", after: 45 * sec, by: bound.UserTimeout,
			bound: bound.Conn{Options: within(goDefault, 45*sec)}.Idle()},
		{name: "idle, user timeout beyond the count", after: 600 * sec, by: bound.UserTimeout,
			bound: bound.Conn{Options: within(goDefault, 600*sec)}.Idle()},
		{name: "idle, user timeout, interval longer than Idle", after: 175 * sec, by: bound.UserTimeout, oneLoss: true,
			bound: bound.Conn{Options: within(bound.Options{KeepAlive: true, Idle: 15 * sec}, 100*sec)}.Idle()},

		{name: "sending, Linux's default on a local network", after: 928896 * ms, by: bound.Retransmission,
			bound: bound.Conn{RTO: lan}.Sending(), measured: 939500 * ms, vague: sec},
		{name: "sending, keepalive has no effect", after: 928896 * ms, by: bound.Retransmission,
			bound: bound.Conn{Options: keepalive(4*sec, sec, 3), RTO: lan}.Sending(), measured: 939500 * ms, vague: sec},
		{name: "sending, RTO unknown", after: 924800 * ms, by: bound.Retransmission,
			bound: bound.Conn{}.Sending()},
		{name: "sending, RTO of 3 s", after: 1032 * sec, by: bound.Retransmission,
			bound: bound.Conn{RTO: 3 * sec}.Sending()},
		{name: "sending, tcp_retries2=3", after: 6528 * ms, by: bound.Retransmission,
			bound: bound.Conn{RTO: lan, Sysctl: bound.Sysctl{Retries2: 3}}.Sending()},
		{name: "sending, tcp_retries2=8, as RFC 1122 has it at least", after: 104448 * ms, by: bound.Retransmission,
			bound: bound.Conn{RTO: lan, Sysctl: bound.Sysctl{Retries2: 8}}.Sending()},
		{name: "sending, tcp_rto_max_ms=1000", after: 14632 * ms, by: bound.Retransmission,
			bound: bound.Conn{RTO: lan, Sysctl: bound.Sysctl{RTOMax: sec}}.Sending()},
		{name: "sending, user timeout 5 s", after: 5408 * ms, by: bound.UserTimeout,
			bound: bound.Conn{Options: within(goDefault, 5*sec), RTO: lan}.Sending(),
			// 6.65 s after the death, with a heartbeat of 1 s to be lost first
			measured: 5650 * ms, vague: sec},
		{name: "sending, user timeout makes it longer", after: time.Hour + 408*ms, by: bound.UserTimeout,
			bound: bound.Conn{Options: within(goDefault, time.Hour), RTO: lan}.Sending()},

		{name: "stalled, user timeout 5 s: a live slow reader is killed", after: 5204 * ms, by: bound.UserTimeout, slowDies: true,
			bound: bound.Conn{Options: within(goDefault, 5*sec), RTO: lan}.Stalled(), measured: 5450 * ms, vague: sec}, // 5.5 s, to a tenth
		{name: "stalled, no user timeout: only silence counts", after: 1920 * sec, by: bound.Retransmission,
			bound: bound.Conn{Options: goDefault, RTO: lan}.Stalled()},

		{name: "connecting, Linux's default", after: 131 * sec, by: bound.SynRetries,
			bound: bound.Conn{}.Connecting()},
		{name: "connecting, before Linux 6.5", after: 127 * sec, by: bound.SynRetries,
			bound: bound.Conn{Sysctl: bound.Sysctl{SynLinearTimeouts: -1}}.Connecting()},
		{name: "connecting, tcp_syn_retries=3", after: 19 * sec, by: bound.SynRetries,
			bound: bound.Conn{Sysctl: bound.Sysctl{SynRetries: 3}}.Connecting()},
		{name: "connecting, tcp_syn_retries=2: its own time is over first", after: 7 * sec, by: bound.SynRetries,
			bound: bound.Conn{Sysctl: bound.Sysctl{SynRetries: 2}}.Connecting()},
		{name: "connecting, user timeout 10 s", after: 10 * sec, by: bound.UserTimeout,
			bound: bound.Conn{Options: within(goDefault, 10*sec)}.Connecting()},
		{name: "connecting, user timeout below the first wait", after: sec, by: bound.UserTimeout,
			bound: bound.Conn{Options: within(goDefault, 10*ms)}.Connecting()},
		{name: "accepting, Linux's default", after: 63 * sec, by: bound.SynRetries,
			bound: bound.Conn{}.Accepting()},
		{name: "accepting, a real 0 in tcp_synack_retries", after: sec, by: bound.SynRetries,
			bound: bound.Conn{Sysctl: bound.Sysctl{SynAckRetries: -1}}.Accepting()},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := test.bound
			want := bound.Bound{After: test.after, Latest: b.Latest, By: test.by, OneLoss: test.oneLoss, SlowDies: test.slowDies}
			if b != want {
				t.Errorf("got  %+v\nwant %+v", b, want)
			}
			if b.Never() != (test.by == bound.None) {
				t.Errorf("Never is %v", b.Never())
			}
			if test.measured > 0 && (test.measured > b.Latest || test.measured < b.Latest-test.vague) {
				t.Errorf("the kernel took %v, Latest is %v", test.measured, b.Latest)
			}
		})
	}
}

// The lateness of timers is worth minutes where they are long, and depends on
// the kernel's clock.
func TestLatest(t *testing.T) {
	idle := bound.Conn{Options: bound.Options{KeepAlive: true}}
	for _, test := range []struct {
		hz   time.Duration
		idle time.Duration
		send time.Duration
	}{
		{100, 8222 * sec, 956 * sec},
		{250, 8014 * sec, 940 * sec},
		{1000, 8164 * sec, 954 * sec},
	} {
		idle.Tick = sec / test.hz
		send := bound.Conn{RTO: lan, Tick: sec / test.hz}
		if got := idle.Idle().Latest.Round(sec); got != test.idle {
			t.Errorf("CONFIG_HZ=%d: idle for up to %v, want %v", test.hz, got, test.idle)
		}
		if got := send.Sending().Latest.Round(sec); got != test.send {
			t.Errorf("CONFIG_HZ=%d: sending for up to %v, want %v", test.hz, got, test.send)
		}
	}
}

func TestDefaults(t *testing.T) {
	want := bound.Sysctl{
		KeepAliveTime: 2 * time.Hour, KeepAliveInterval: 75 * sec, KeepAliveProbes: 9, Retries2: 15,
		SynRetries: 6, SynLinearTimeouts: 4, SynAckRetries: 5, RTOMax: 2 * time.Minute,
	}
	if got := (bound.Sysctl{}).Defaults(); got != want {
		t.Errorf("got %+v", got)
	}
	if got := (bound.Sysctl{SynLinearTimeouts: -1}).Defaults(); got.SynLinearTimeouts != -1 {
		t.Errorf("a real 0 became %d", got.SynLinearTimeouts)
	}
	set := keepalive(sec, 2*sec, 3)
	if got := set.In(bound.Sysctl{}); got != set {
		t.Errorf("what the program set became %+v", got)
	}
	if got := (bound.Options{KeepAlive: true, Idle: sec}).In(bound.Sysctl{KeepAliveProbes: -1}); got != keepalive(sec, 75*sec, 0) {
		t.Errorf("got %+v", got)
	}
}

func TestBaseRTO(t *testing.T) {
	for _, test := range []struct {
		name                 string
		rto                  time.Duration
		retransmits, backoff uint8
		want                 time.Duration
	}{
		{"nothing lost", lan, 0, 0, lan},
		{"retransmitting", 816 * ms, 2, 2, lan},
		{"retransmitting, at the most", 120 * sec, 15, 15, 200 * ms},
		{"probing a closed window", lan, 0, 5, lan},
		{"an RTO below the usual minimum", 80 * ms, 1, 1, 80 * ms},
		{"nonsense", lan, 255, 255, 200 * ms},
	} {
		if got := bound.BaseRTO(test.rto, test.retransmits, test.backoff); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

func TestString(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 4 * ms: "4 ms", 204 * ms: "204 ms", sec: "1 s", 6528 * ms: "6.5 s", 9949 * ms: "9.9 s", 9951 * ms: "10 s",
		30 * sec: "30 s", 150 * sec: "150 s", 179600 * ms: "3 min", 180 * sec: "3 min", 939736 * ms: "15 min 40 s",
		1800 * sec: "30 min", 7199600 * ms: "2 h", 7875 * sec: "2 h 11 min", 48 * time.Hour: "2 d", 50 * time.Hour: "2 d 2 h",
	} {
		if got := (bound.Bound{After: d, By: bound.KeepAlive}).String(); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
	if got := (bound.Bound{}).String(); got != "never" {
		t.Errorf("got %q, want never", got)
	}
}

func TestCompare(t *testing.T) {
	bounds := []bound.Bound{
		{},
		{After: 2 * sec, Latest: 2 * sec, By: bound.KeepAlive},
		{After: sec, Latest: 2 * sec, By: bound.UserTimeout},
		{After: sec, Latest: sec, By: bound.Retransmission},
	}
	want := slices.Clone(bounds)
	slices.Reverse(want)
	slices.SortFunc(bounds, bound.Compare)
	if !slices.Equal(bounds, want) {
		t.Errorf("got %v", bounds)
	}
	if bound.Compare(bound.Bound{}, bound.Bound{}) != 0 {
		t.Error("never is longer than never")
	}
}

// Without a user timeout, asking for less never gives more. (With one it can:
// the end of the connection is at the end of an interval.)
func TestMonotone(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	seconds := func(n int) time.Duration { return time.Duration(1+random.IntN(n)) * sec }
	for range 20000 {
		c := bound.Conn{
			Options: keepalive(seconds(300), seconds(300), 1+random.IntN(20)),
			Sysctl:  bound.Sysctl{Retries2: 1 + random.IntN(30), SynRetries: 1 + random.IntN(20), SynAckRetries: 1 + random.IntN(20)},
			RTO:     time.Duration(random.IntN(5000)) * ms,
		}
		more := c
		switch random.IntN(6) {
		case 0:
			more.Options.Idle += seconds(60)
		case 1:
			more.Interval += seconds(60)
		case 2:
			more.Count++
		case 3:
			more.Retries2++
		case 4:
			more.SynRetries++
		case 5:
			more.SynAckRetries++
		}
		for name, f := range all {
			if bound.Compare(f(c), f(more)) > 0 {
				t.Fatalf("%s: %+v for\n%+v\nis longer than %+v for\n%+v", name, f(c), c, f(more), more)
			}
		}
	}
}

var all = map[string]func(bound.Conn) bound.Bound{
	"Idle": bound.Conn.Idle, "Sending": bound.Conn.Sending, "Stalled": bound.Conn.Stalled,
	"Connecting": bound.Conn.Connecting, "Accepting": bound.Conn.Accepting,
}

// Whatever a socket is set to, a bound is positive, late at most by a bearable
// share, and takes bounded time to compute.
func FuzzBounds(f *testing.F) {
	f.Add(true, int64(15*sec), int64(15*sec), 9, int64(0), int64(0), 15, 6, 4, int64(lan), int64(0))
	f.Add(true, int64(math.MaxInt64), int64(math.MaxInt64), math.MaxInt, int64(math.MaxInt64), int64(math.MaxInt64), math.MaxInt, math.MaxInt, math.MaxInt, int64(math.MaxInt64), int64(math.MaxInt64))
	f.Add(true, int64(math.MinInt64), int64(math.MinInt64), math.MinInt, int64(math.MinInt64), int64(math.MinInt64), math.MinInt, math.MinInt, math.MinInt, int64(math.MinInt64), int64(math.MinInt64))
	f.Add(true, int64(1), int64(1), 1, int64(math.MaxInt64), int64(1), 1, 1, -1, int64(1), int64(1))
	f.Fuzz(func(t *testing.T, on bool, idle, interval int64, count int, timeout, rtoMax int64, retries, syn, linear int, rto, tick int64) {
		c := bound.Conn{
			Options: bound.Options{KeepAlive: on, Idle: time.Duration(idle), Interval: time.Duration(interval),
				Count: count, UserTimeout: time.Duration(timeout)},
			Sysctl: bound.Sysctl{KeepAliveTime: time.Duration(idle), KeepAliveInterval: time.Duration(interval), KeepAliveProbes: count,
				Retries2: retries, SynRetries: syn, SynLinearTimeouts: linear, SynAckRetries: retries, RTOMax: time.Duration(rtoMax)},
			RTO: time.Duration(rto), Tick: time.Duration(tick),
		}
		for name, f := range all {
			b := f(c)
			if b.Never() {
				if name != "Idle" || on || b != (bound.Bound{}) {
					t.Errorf("%s: %+v", name, b)
				}
				continue
			}
			if b.After < 0 || b.Latest < b.After {
				t.Errorf("%s: %+v", name, b)
			}
			if b.String() == "" || b.By.String() == "" {
				t.Errorf("%s: %+v has no name", name, b)
			}
		}
	})
}

// A node of the story has 30,000 sockets.
func BenchmarkBounds(b *testing.B) {
	c := bound.Conn{Options: keepalive(15*sec, 15*sec, 9), RTO: lan}
	b.ReportAllocs()
	for b.Loop() {
		if c.Idle().Never() || c.Sending().Never() {
			b.Fatal("never")
		}
	}
}
