package act

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Verdict is what a poke makes of a peer.
type Verdict uint8

// The verdicts.
const (
	Unsure Verdict = iota // nothing could be asked, or not long enough
	Alive                 // it answered
	Silent                // it was asked, and did not
)

func (v Verdict) String() string {
	return [...]string{"unsure", "alive", "silent"}[min(v, Silent)]
}

// Outcome is what a poke made of one connection.
type Outcome uint8

// The outcomes, the first two of which prove that the peer is alive.
const (
	Answered       Outcome = iota + 1 // the peer acknowledged or sent something since the poke began
	Reset                             // the peer answered that it knows of no such connection
	Unanswered                        // every probe was
	Retransmitting                    // it has data in flight, sent again at least twice, and nothing came back
	Waiting                           // it has data in flight, for too short a time to tell
	Ended                             // it ended without a word from the peer
	NotAsked                          // it could not be looked at; Err says why
)

func (o Outcome) String() string {
	names := [...]string{"", "answered", "reset", "unanswered", "retransmitting", "waiting", "ended", "not asked"}
	return names[min(o, NotAsked)]
}

// Poked is one connection of a poke.
type Poked struct {
	Socket      *fact.Socket
	Outcome     Outcome
	After       time.Duration // Answered and Reset: since the poke began
	Probes      int           // that were sent for the poke
	Retransmits int           // of the same data, unanswered
	Err         error         // of NotAsked
}

// PokeReport is the verdict on a peer, and what it rests on.
type PokeReport struct {
	Verdict  Verdict
	Took     time.Duration
	Evidence []Poked
}

// ErrNoConnection means that there is no connection that could be poked.
var ErrNoConnection = errors.New("there is no established connection to it")

const (
	pokeRounds  = 3
	pokeWait    = 300 * time.Millisecond // for an answer, in each round
	pokeLongest = 2 * time.Second        // that a path with a long RTO makes of it
	pokeSockets = 3                      // idle ones, and as many with data in flight
	pokeEvery   = 10 * time.Millisecond  // answers are looked for

	// newer is by how much a sign of life must be newer than the last one before
	// the poke: the kernel counts ages in ticks of up to 10 ms, rounded.
	newer  = 25 * time.Millisecond
	settle = 40 * time.Millisecond // from the first look to the first probe, so that an answer is newer
)

// Poke asks a peer for a sign of life, now: sockets are its connections in one
// network namespace, of whichever process. It makes the kernel send an empty
// segment, such as keepalive sends, on up to three idle connections, and waits
// for the answer that every TCP must give (RFC 9293, 3.10.7.4). Programs notice
// nothing, and their data, timers and keepalive settings are not touched. A
// connection with data in flight is asked already: its retransmissions are
// watched.
//
// An answer ends the poke at once. Silence takes three rounds of 300 ms, or of
// half a retransmission timeout on a long path. When ctx ends before, that is
// the error, and the verdict is of what came until then.
//
// It needs Linux 5.6, CAP_NET_ADMIN and the right to trace a process that has
// such a connection (CAP_SYS_PTRACE); without them it returns an [*Error], as it
// does, with [ErrNoConnection], when there is nothing to poke.
func Poke(ctx context.Context, sockets []*fact.Socket) (PokeReport, error) {
	start := time.Now()
	subjects := choose(sockets)
	if len(subjects) == 0 {
		return PokeReport{}, &Error{Act: "poke", Err: ErrNoConnection}
	}
	ended := ask(ctx, subjects, start)
	report := PokeReport{Took: time.Since(start)}
	for _, s := range subjects {
		report.Evidence = append(report.Evidence, s.Poked)
	}
	if ended != nil {
		if slices.ContainsFunc(report.Evidence, Poked.proof) {
			report.Verdict = Alive
		}
		return report, ended
	}
	report.Verdict = conclude(report.Evidence)
	if report.Verdict == Unsure {
		for _, p := range report.Evidence {
			if p.Err != nil && p.Err != errGone {
				return report, borrowing("poke", p.Err)
			}
		}
	}
	return report, nil
}

func (p Poked) proof() bool { return p.Outcome == Answered || p.Outcome == Reset }

// conclude makes the verdict of evidence that was waited for.
func conclude(evidence []Poked) Verdict {
	verdict := Unsure
	for _, p := range evidence {
		switch p.Outcome {
		case Answered, Reset:
			return Alive
		case Unanswered, Retransmitting:
			verdict = Silent
		}
	}
	return verdict
}

// choose takes some connections that are idle and some with data in flight, of
// each those that heard from the peer last: they are the likeliest to be heard.
func choose(sockets []*fact.Socket) (subjects []*subject) {
	sockets = slices.Clone(sockets)
	sockets = slices.DeleteFunc(sockets, func(s *fact.Socket) bool { return s.State != fact.Established || s.Conn == nil })
	slices.SortStableFunc(sockets, func(a, b *fact.Socket) int {
		if (len(a.Owners) == 0) != (len(b.Owners) == 0) {
			return len(b.Owners) - len(a.Owners) // without an owner there is no way to it
		}
		return cmp.Compare(quiet(a.Conn), quiet(b.Conn))
	})
	var taken [2]int
	for _, s := range sockets {
		kind := 0
		if s.Conn.Unacked > 0 {
			kind = 1
		}
		if taken[kind] < pokeSockets {
			taken[kind]++
			subjects = append(subjects, &subject{Poked: Poked{Socket: s}})
		}
	}
	return subjects
}

// ask pokes until there is a proof of life, or long enough. The error is the
// end of ctx.
func ask(ctx context.Context, subjects []*subject, start time.Time) error {
	wait := pokeWait
	for _, s := range subjects {
		s.begin()
		wait = max(wait, min(s.rto/2, pokeLongest))
	}
	if err := sleep(ctx, settle); err != nil {
		return err
	}
	for range pokeRounds {
		for _, s := range subjects {
			s.probe(false)
		}
		for deadline := time.Now().Add(wait); time.Now().Before(deadline); {
			if err := sleep(ctx, min(pokeEvery, time.Until(deadline))); err != nil {
				return err
			}
			for _, s := range subjects {
				if s.look(start); s.proof() {
					return nil
				}
			}
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// subject is a connection while it is being poked.
type subject struct {
	Poked
	heard    time.Time // the peer was not heard between this and the poke
	segments uint32    // that had come in by then
	rto      time.Duration
}

// begin notes how things are before the poke.
func (s *subject) begin() {
	s.borrow(func(fd int) error {
		info, err := tcpInfo(fd)
		if err != nil {
			return err
		}
		s.heard = time.Now().Add(-age(info))
		s.segments = info.Segs_in
		if s.rto = time.Duration(info.Rto) * time.Microsecond; info.Retransmits > 0 {
			s.rto >>= info.Backoff
		}
		s.judge(info)
		return nil
	})
}

// probe sends one. Data in flight asks by itself: there it does so only when it
// is wanted always.
func (s *subject) probe(always bool) {
	s.borrow(func(fd int) error {
		info, err := tcpInfo(fd)
		if err != nil || fact.State(info.State) != fact.Established || info.Unacked > 0 && !always {
			return err
		}
		if err := windowProbe(fd); err != nil {
			return err
		}
		s.Probes++
		return nil
	})
}

// look sees what came of it. Its times err on the side of silence: age is
// counted from before the kernel was asked, heard from after.
func (s *subject) look(start time.Time) {
	s.borrow(func(fd int) error {
		now := time.Now()
		info, err := tcpInfo(fd)
		if err != nil {
			return err
		}
		switch {
		case now.Add(-age(info)).Sub(s.heard) > newer:
			s.Outcome, s.After = Answered, time.Since(start)
		case fact.State(info.State) == fact.Close && info.Segs_in != s.segments:
			s.Outcome, s.After = Reset, time.Since(start) // tcp_reset in net/ipv4/tcp_input.c takes no note of the time
		default:
			s.judge(info)
		}
		return nil
	})
}

// judge says what a connection proves on which nothing has come.
func (s *subject) judge(info *unix.TCPInfo) {
	const often = 2 // one may be a lost segment
	s.Retransmits = int(info.Retransmits)
	switch {
	case fact.State(info.State) == fact.Close:
		s.Outcome = Ended
	case s.Retransmits >= often:
		s.Outcome = Retransmitting
	case info.Unacked > 0 || s.Probes == 0:
		s.Outcome = Waiting
	default:
		s.Outcome = Unanswered
	}
}

// borrow is borrow on the socket of s, until it fails once.
func (s *subject) borrow(do func(fd int) error) {
	if s.Err != nil {
		return
	}
	if s.Err = borrow(s.Socket, do); s.Err != nil {
		s.Outcome = NotAsked
	}
}

// age is since the peer was last heard, as quiet has it.
func age(info *unix.TCPInfo) time.Duration {
	return time.Duration(min(info.Last_ack_recv, info.Last_data_recv)) * time.Millisecond
}

func tcpInfo(fd int) (*unix.TCPInfo, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return info, os.NewSyscallError("getsockopt", err)
}

var errRepair = errors.New("it is being checkpointed (TCP_REPAIR)")

// windowProbe makes the kernel send an empty segment that the peer must answer.
//
// To leave TCP_REPAIR is to announce oneself to the peer by such a segment
// (tcp_send_window_probe in net/ipv4/tcp_output.c), also for a connection that
// never was in it. Unlike a keepalive probe, for which TCP_KEEPIDLE would have to
// be shortened, it needs no second of quiet before, is not counted as
// unanswered (icsk_probes_out), starts no timer, and leaves the keepalive
// settings alone, of which those never set could not be unset again. The
// peer answers two such segments in a row half a second apart at the earliest
// (tcp_invalid_ratelimit), which is why there are three rounds.
//
// It clears SO_REUSEADDR, which is put back in the next call. Who is killed
// between the two leaves it cleared: a listener on the same local port could
// then not be bound anew while this connection lasts.
func windowProbe(fd int) error {
	repair, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if repair != 0 {
		return errRepair
	}
	reuse, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	const off = 0 // TCP_REPAIR_OFF of linux/tcp.h
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, off); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if reuse == 0 {
		return nil
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, reuse))
}
