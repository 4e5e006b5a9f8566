package lifeline

import (
	"cmp"
	"math"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/bound"
	"github.com/lifeline-go/lifeline/internal/sockopt"
	"github.com/lifeline-go/lifeline/internal/tcpinfo"
)

const (
	defaultConnect = 10 * time.Second
	defaultSilence = 20 * time.Second
	leastSilence   = 6 * time.Second // room for four probes: the kernel counts keepalive in whole seconds
	mostSilence    = time.Hour       // far below what the options of a socket can hold

	// late is the end of Silence in which keepalive no longer decides: data
	// that is written in the last moment of an idle silence stops keepalive, and
	// the watcher needs two ticks to see that. It need not wait for the data: the
	// peer has left keepalive's probes unanswered.
	late = 2 * tick
)

// Policy says how long a failure of a connection may go unnoticed. The zero
// value is the recommended one, and a field that is zero or negative is as
// recommended; none means for ever.
type Policy struct {
	// Connect bounds an attempt to connect, with the look-up of the name and all
	// addresses that are tried. Recommended are 10 s: enough for a first SYN and
	// three more (Linux sends them after 1, 3 and 7 s, or closer), so that three
	// may be lost; whoever does not answer four will not answer a fifth.
	Connect time.Duration

	// Silence is how long a peer may leave unanswered what it has to answer,
	// before its connection is given up. It is counted from its last
	// acknowledgement. Less than 6 s is taken as 6 s,
	// more than an hour as an hour.
	//
	// Recommended are 20 s: less than callers and load balancers usually wait
	// (30 s), far less than package net's connections do (150 s idle, 15 min
	// sending), and still longer than the pauses that connections should
	// outlive: a route that fails over, a virtual machine that moves to another
	// host, a Wi-Fi client that roams. There is room for twelve probes, three more
	// than Linux sends by default, so that loss on the way ends fewer connections
	// than before. Its price is a probe every six seconds on idle connections.
	//
	// Loss on the way can make a living peer silent. Of 1,000 idle connections so
	// many are given up in a minute, when so much is lost each way:
	//
	//	Silence  probes  1 %   5 %  10 %  20 %  40 %
	//	6 s           4    0     5    61   480   980
	//	10 s          8    0     0     0    11   460
	//	20 s         12    0     0     0     0    36
	//	60 s         12    0     0     0     0    12
	//	net           9    0     0     0     0    26
	//
	// Choose less than 10 s only where hardly anything is lost.
	//
	// A peer that is slow, or does not read at all, is not silent as long as its
	// kernel acknowledges.
	Silence time.Duration
}

// Never is the bound of what nothing notices.
const Never time.Duration = math.MaxInt64

// Bound is how long the death of a peer without a word can go unnoticed, by
// what the connection does at that time. An overloaded machine may be later.
type Bound struct {
	Connect time.Duration // connecting
	Idle    time.Duration // nothing written is unacknowledged
	Sending time.Duration // something is
	Stalled time.Duration // something waits for room, because the peer does not read
}

// Longest returns the longest of the bounds of an open connection.
func (b Bound) Longest() time.Duration { return max(b.Idle, b.Sending, b.Stalled) }

// Bound returns what the policy gives on this system.
//
// On Linux 6.15 and later Idle, Sending and Stalled are Silence. They are not
// added up: a peer that dies on an idle connection is noticed within Silence
// also when something is written meanwhile. A connection with something
// unacknowledged is given up only after two retransmissions, or two probes of a
// closed window. That takes four times its retransmission timeout, which is
// some 200 ms more than a round trip; where it is more than 400 ms, add what
// four of them have beyond 1.6 s.
//
// They hold too where this machine is what cannot send, because its queues drop
// every packet: who is not heard for Silence is given up, whoever is to blame.
// The kernel would not count such probes of keepalive, and not end.
//
// On Linux before 6.15 Stalled is 4 min 30 s: the kernel asks a peer whose
// window is closed ever more rarely, up to two minutes apart, and two
// questions must stay unanswered (on a stall of less than two minutes, it asks
// as often as the stall is long).
//
// On macOS and Windows there is nothing that tells a slow peer from a silent
// one, so the system's own timeouts are set to Silence: keepalive for Idle
// and TCP_RXT_CONNDROPTIME or TCP_MAXRT for Sending. They follow one another, so
// that Sending is up to twice Silence. Stalled is Never, because none of them
// is documented to run while the peer's window is closed. Other systems have
// keepalive only: Idle is Silence, the rest is Never.
func (p Policy) Bound() Bound {
	p = p.settled()
	b := Bound{Connect: p.Connect, Idle: p.Silence, Sending: Never, Stalled: Never}
	switch {
	case tcpinfo.Supported() && sockopt.LongestRetryIsKnown():
		b.Sending, b.Stalled = p.Silence, p.Silence
	case tcpinfo.Supported():
		const twoProbes = 2 * 135 * time.Second // two waits of 120 s, which timers may prolong by an eighth
		b.Sending, b.Stalled = p.Silence, max(p.Silence, twoProbes)
	case runtime.GOOS == "darwin", runtime.GOOS == "windows":
		b.Sending = 2 * p.Silence
	}
	return b
}

// settled returns the policy with nothing left to defaults.
func (p Policy) settled() Policy {
	p.Connect = cmp.Or(max(p.Connect, 0), defaultConnect)
	p.Silence = min(max(cmp.Or(max(p.Silence, 0), defaultSilence), leastSilence), mostSilence)
	return p
}

// keepAlive returns the options that notice a silent peer of an idle connection
// a little sooner than Silence.
func (p Policy) keepAlive() bound.Options {
	if silence := p.settled().Silence; silence != defaultSilence {
		o, _ := bound.Within(silence - late) // at least 5.5 s, which is enough for four probes
		return o
	}
	return recommended()
}

// recommended is kept because every dial asks for it, and bound.Within takes some
// microseconds to weigh the ways to keep a bound.
var recommended = sync.OnceValue(func() bound.Options {
	o, _ := bound.Within(defaultSilence - late)
	return o
})

// keepAliveConfig returns the same for package net.
func (p Policy) keepAliveConfig() net.KeepAliveConfig {
	o := p.keepAlive()
	return net.KeepAliveConfig{Enable: o.KeepAlive, Idle: o.Idle, Interval: o.Interval, Count: o.Count}
}

// longestRetry returns how far apart the kernel's attempts to get an answer from
// a silent peer should be at most: so many must fit into Silence that they are
// not all lost on the way, and retransmissions (tcp_retries2) must last longer
// than it.
func (p Policy) longestRetry() time.Duration {
	return min(max(p.settled().Silence/8, time.Second), 2*time.Minute)
}

// armRetries sets the options that package net does not. What a system does not
// have is left out of [Policy.Bound] too; other errors are those of a connection
// that has ended, which the next Read or Write reports.
func (p Policy) armRetries(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = sockopt.SetLongestRetry(raw, p.longestRetry())
	_ = sockopt.SetGiveUp(raw, p.settled().Silence)
}
