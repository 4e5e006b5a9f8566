package act

import (
	"context"
	"errors"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// How much must go unanswered before a confirmation says Silent.
//
// A Linux peer answers empty segments on one connection half a second apart at
// the earliest (tcp_invalid_ratelimit), so a connection can be asked once in each
// confirmWindow, however many probes go out: these see to it that one arrives
// soon. With 40 % loss each way its answer is lost with 0.4, about 0.64², so a
// window counts as two exchanges, each of which is lost with 0.64. A
// retransmission is one exchange, and so is a ping of an address that is known to
// answer them.
//
// Three connections leave 18 exchanges in the shortest confirmation: 0.64^18 =
// 0.03 % when 40 % loss each way begins, and nothing at 20 % (0.36^18). One alone
// leaves 10 in the 2.4 s that there are, 1.2 % and 0.004 %. So it is pinged
// too, and an answer takes the verdict away: 28 pings more make it one in ten million.
// Where it cannot be, or where the peer is known to leave pings unanswered, 16
// exchanges are asked for.
const (
	confirmEvery  = 40 * time.Millisecond
	confirmWindow = 540 * time.Millisecond
	exchangesEach = 2 // in a window

	confirmPinged   = 10
	confirmUnpinged = 16

	// A path that stops for a second is no dead one.
	confirmShortest = 1500 * time.Millisecond
	confirmLongest  = 8 * time.Second

	confirmWait = 100 * time.Millisecond // for the last answer, where the path is short

	// confirmLate is how much later than it was meant to a confirmation may run:
	// one that did not run cannot tell what came meanwhile, and when.
	confirmLate = 250 * time.Millisecond

	// pingedSockets is up to how many connections a peer is pinged.
	pingedSockets = 2
)

// Pings is whether an address answers ICMP echo requests.
type Pings uint8

// What may be known of it.
const (
	PingsUnknown Pings = iota
	PingsAnswered
	PingsIgnored // although it was alive
)

// Confirmation is what came of asking a peer again and again.
type Confirmation struct {
	Verdict   Verdict
	Took      time.Duration // from the first probe to the answer, or to the end
	Exchanges int           // that were left unanswered, without retransmissions: whoever looks at the sockets counts those
	Sockets   int           // that were asked
	Pings     Pings         // what is known of pings now
}

// ErrLate means that Lifeline itself did not run for so long that it cannot tell.
var ErrLate = errors.New("this machine did not run in time to tell")

// Confirm asks a peer for a sign of life as [Poke] does, but for a verdict: many
// times, so that loss is not taken for death, and spread over 1.5 s at the
// least. sockets are connections with it in the namespace ns. It ends with the
// first answer: Alive. Silent is that nothing was answered; that an address
// answers pings and not one of its connections does is Unsure, since what answers
// may be somebody else, or the path may only lose much. A peer with one or two
// connections is pinged, where the caller has CAP_NET_RAW; pings is what is
// known of it.
//
// The verdict of a confirmation that did not run in time is Unsure, with
// [ErrLate]. Errors are otherwise those of Poke, and the needs too.
func Confirm(ctx context.Context, ns fact.Namespace, sockets []*fact.Socket, pings Pings) (Confirmation, error) {
	subjects := choose(sockets)
	if len(subjects) == 0 {
		return Confirmation{}, &Error{Act: "poke", Err: ErrNoConnection}
	}
	c := confirmation{Confirmation: Confirmation{Pings: pings}, subjects: subjects, need: confirmPinged}
	if len(subjects) <= pingedSockets {
		if p, err := newPinger(ns, subjects[0].Socket); err == nil {
			c.pinger = p
			defer p.close()
		}
	}
	if len(subjects) <= pingedSockets && (c.pinger == nil || pings == PingsIgnored) {
		c.need = confirmUnpinged
	}
	err := c.ask(ctx)
	for _, s := range subjects {
		if s.Probes > 0 {
			c.Sockets++
		}
	}
	if err == nil && c.Sockets == 0 {
		for _, s := range subjects {
			if s.Err != nil && s.Err != ErrGone {
				err = Borrowing("poke", s.Err)
			}
		}
	}
	return c.Confirmation, err
}

// confirmation is one under way.
type confirmation struct {
	Confirmation
	subjects []*subject
	pinger   *pinger   // nil where nobody is pinged
	need     int       // exchanges
	began    time.Time // with the first probe
	wait     time.Duration
}

func (c *confirmation) ask(ctx context.Context) error {
	c.wait = confirmWait
	fresh := false
	for _, s := range c.subjects {
		s.begin()
		c.wait = max(c.wait, min(s.rto-confirmWait, pokeLongest)) // a round trip and then some: tcp_set_rto adds 200 ms at the least
		fresh = fresh || time.Since(s.heard) < settle
	}
	if fresh {
		if err := sleep(ctx, settle); err != nil {
			return err
		}
	}
	c.began = time.Now()
	for round := 0; ; round++ {
		c.probe(round)
		due := c.began.Add(time.Duration(round+1) * confirmEvery)
		alive, err := c.listen(ctx, due, round < 2)
		c.Took = time.Since(c.began)
		c.count()
		switch {
		case alive:
			c.Verdict = Alive
			return nil
		case err != nil:
			return err
		case time.Since(due) > confirmLate:
			return ErrLate
		case c.over():
			return nil
		}
	}
}

// probe asks on each connection, and by every second round by ping.
func (c *confirmation) probe(round int) {
	for _, s := range c.subjects {
		s.probe(true)
	}
	if c.pinger != nil && round%2 == 0 {
		c.pinger.ping()
	}
}

// listen waits for an answer until a moment, and learns whether pings are
// answered. Soon after the first probes it looks more often: the living answer
// then.
func (c *confirmation) listen(ctx context.Context, until time.Time, often bool) (alive bool, err error) {
	for {
		pause := time.Until(until)
		if often || alive {
			pause = min(pause, pokeEvery)
		}
		if err := sleep(ctx, pause); err != nil {
			return false, err
		}
		if c.pinger != nil && c.pinger.heard() {
			c.Pings = PingsAnswered
		}
		for _, s := range c.subjects {
			if s.look(c.began); s.proof() {
				alive = true
			}
		}
		unsure := c.pinger != nil && c.Pings == PingsUnknown
		if unsure && alive && time.Since(c.began) > c.wait {
			c.Pings, unsure = PingsIgnored, false
		}
		if alive && !unsure || !alive && !time.Now().Before(until) {
			return alive, nil
		}
	}
}

// count adds up what was left unanswered so far: all that was sent early enough
// to be answered by now.
func (c *confirmation) count() {
	c.Exchanges = 0
	waited := c.Took - c.wait
	if waited < 0 {
		return
	}
	for _, s := range c.subjects {
		if s.Probes > 0 && (s.Outcome == Unanswered || s.Outcome == Waiting || s.Outcome == Retransmitting) {
			c.Exchanges += exchangesEach * (1 + int(waited/confirmWindow))
		}
	}
	if c.pinger != nil && c.Pings == PingsAnswered && !c.pinger.answered {
		c.Exchanges += int(waited/(2*confirmEvery)) + 1
	}
}

// over reports that there is nothing more to wait for, and concludes.
func (c *confirmation) over() bool {
	asked, again := false, 0
	for _, s := range c.subjects {
		asked = asked || s.Probes > 0 && s.Err == nil && s.Outcome != Ended
		if s.Err == nil {
			again += s.Retransmits
		}
	}
	switch {
	case !asked || c.Took > confirmLongest:
		return true
	case c.Took < max(confirmShortest, c.wait) || c.Exchanges+again < c.need:
		return false
	}
	if c.pinger == nil || !c.pinger.answered {
		c.Verdict = Silent
	}
	return true
}
