package act

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
)

// options are what a poke must leave as it was.
type options struct{ keepAlive, idle, interval, count, userTimeout, reuse, repair int }

var optionNames = [...]struct{ level, name int }{
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
	{unix.SOL_SOCKET, unix.SO_REUSEADDR},
	{unix.IPPROTO_TCP, unix.TCP_REPAIR},
}

func withFD(t *testing.T, c *net.TCPConn, do func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if failed := raw.Control(func(fd uintptr) { err = do(int(fd)) }); failed != nil || err != nil {
		t.Fatal(failed, err)
	}
}

func optionsOf(t *testing.T, c *net.TCPConn) (o options) {
	t.Helper()
	withFD(t, c, func(fd int) (err error) {
		for i, into := range []*int{&o.keepAlive, &o.idle, &o.interval, &o.count, &o.userTimeout, &o.reuse, &o.repair} {
			if *into, err = unix.GetsockoptInt(fd, optionNames[i].level, optionNames[i].name); err != nil {
				return err
			}
		}
		return nil
	})
	return o
}

func infoOf(t *testing.T, c *net.TCPConn) (info *unix.TCPInfo) {
	t.Helper()
	withFD(t, c, func(fd int) (err error) {
		info, err = tcpInfo(fd)
		return err
	})
	return info
}

// poke pokes peer from host.
func poke(t *testing.T, host *lab.Host, peer string) PokeReport {
	t.Helper()
	report, err := Poke(t.Context(), Select(look(t, host), to(peer), 0))
	if err != nil {
		t.Fatalf("%v, %+v", err, report)
	}
	t.Logf("%v after %v", report.Verdict, report.Took)
	return report
}

// checkPoke compares the verdict and the outcome on each connection.
func checkPoke(t *testing.T, r PokeReport, want Verdict, outcome Outcome, connections int) {
	t.Helper()
	n := 0
	for _, p := range r.Evidence {
		if p.Outcome == outcome {
			n++
		}
	}
	if r.Verdict != want || n != connections {
		t.Errorf("%v by %+v; want %v by %d that are %v", r.Verdict, r.Evidence, want, connections, outcome)
	}
}

// tuned gives the near end options that a careless poke would change: none of
// its own, keepalive off, or a user timeout that ends it on the first probe
// that is unanswered.
func tuned(t *testing.T, links []link) {
	t.Helper()
	withFD(t, links[0].near, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
	})
	withFD(t, links[1].near, func(fd int) error {
		return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	})
}

func allOptions(t *testing.T, links []link) (all []options) {
	t.Helper()
	for _, l := range links {
		all = append(all, optionsOf(t, l.near), optionsOf(t, l.far))
	}
	return all
}

func TestPokeOfTheLiving(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	mapped := far.Listen("tcp", "[::]:80")
	links := dialTo(t, near, mapped, "10.77.1.2:80", 3)
	v6 := dialTo(t, near, mapped, "[fd77::2]:80", 3)
	tuned(t, links)
	before := allOptions(t, append(links, v6...))
	for _, from := range []struct {
		host *lab.Host
		peer string
	}{{near, "10.77.1.2"}, {far, "10.77.1.1"}, {near, "fd77::2"}, {far, "fd77::1"}} {
		if r := poke(t, from.host, from.peer); r.Verdict != Alive || r.Took > 5*time.Second {
			t.Errorf("%s is %v after %v: %+v", from.peer, r.Verdict, r.Took, r.Evidence)
		}
	}
	for i, after := range allOptions(t, append(links, v6...)) {
		if after != before[i] {
			t.Errorf("connection %d had %+v, has %+v", i/2, before[i], after)
		}
	}
}

// Silence takes about a second. It changes nothing, and it uses up nothing: not
// even a connection that one unanswered probe would end is ended.
func TestPokeOfTheDead(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	links := dial(t, near, far, "10.77.1.2:80", 3)
	tuned(t, links)
	before := allOptions(t, links)
	far.Unplug()
	for range 2 { // the second one takes nothing from a budget that the first one left
		checkPoke(t, poke(t, near, "10.77.1.2"), Silent, Unanswered, 3)
	}
	for i, after := range allOptions(t, links) {
		if after != before[i] {
			t.Errorf("connection %d had %+v, has %+v", i/2, before[i], after)
		}
	}
	for i, l := range links {
		if probes := infoOf(t, l.near).Probes; probes != 0 {
			t.Errorf("connection %d has %d probes counted as unanswered", i, probes)
		}
	}
	far.Plug()
	for _, l := range links {
		l.say(t)
	}
	checkPoke(t, poke(t, near, "10.77.1.2"), Alive, NotAsked, 0)
}

// Data in flight asks by itself: it is not probed, its retransmissions count.
func TestPokeWithDataInFlight(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	links := dial(t, near, far, "10.77.1.2:80", 2)
	far.Unplug()
	for _, l := range links {
		if _, err := l.near.Write([]byte("lost")); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range links {
		for deadline := time.Now().Add(30 * time.Second); infoOf(t, l.near).Retransmits < 2; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("no retransmissions")
			}
		}
	}
	r := poke(t, near, "10.77.1.2")
	checkPoke(t, r, Silent, Retransmitting, 2)
	for _, p := range r.Evidence {
		if p.Probes != 0 {
			t.Errorf("probed: %+v", p)
		}
	}
}

// A peer that reads nothing is alive.
func TestPokeOfASlowReader(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	l := dial(t, near, far, "10.77.1.2:80", 1)[0]
	_ = l.near.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	for err := error(nil); err == nil; {
		_, err = l.near.Write(make([]byte, 1<<16))
	}
	if r := poke(t, near, "10.77.1.2"); r.Verdict != Alive {
		t.Errorf("%v: %+v", r.Verdict, r.Evidence)
	}
}

// A peer that has lost the connection answers with a reset: it is alive.
func TestPokeOfAPeerThatForgot(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	l := dial(t, near, far, "10.77.1.2:80", 1)[0]
	withFD(t, l.far, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1) })
	_ = l.far.Close() // without a word, as if the machine had started anew
	checkPoke(t, poke(t, near, "10.77.1.2"), Alive, Reset, 1)
	if err := failed(t, l.near); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the program got %v", err)
	}
}

func TestPokeOfWhatIsNotThere(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	var refused *Error
	if _, err := Poke(t.Context(), nil); !errors.Is(err, ErrNoConnection) || !errors.As(err, &refused) {
		t.Errorf("without connections: %v", err)
	}
	links := dial(t, near, far, "10.77.1.2:80", 2)
	sockets := Select(look(t, near), to("10.77.1.2"), 0)
	links[0].near.Close()
	links[1].near.Close()
	report, err := Poke(t.Context(), sockets)
	if err != nil {
		t.Errorf("closed since the look: %v", err)
	}
	checkPoke(t, report, Unsure, NotAsked, 2)

	for _, s := range sockets {
		s.Owners = nil
	}
	if report, err := Poke(t.Context(), sockets); !errors.As(err, &refused) || report.Verdict != Unsure {
		t.Errorf("without owners: %v, %v", report.Verdict, err)
	}
}

func TestPokeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	links := dial(t, near, far, "10.77.1.2:80", 2)
	before := allOptions(t, links)
	far.Unplug()
	sockets := Select(look(t, near), to("10.77.1.2"), 0)
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(100*time.Millisecond, func() { cancel(enough) })
	report, err := Poke(ctx, sockets)
	if !errors.Is(err, enough) || report.Verdict != Unsure {
		t.Errorf("%v, %v", report.Verdict, err)
	}
	for i, after := range allOptions(t, links) {
		if after != before[i] {
			t.Errorf("connection %d had %+v, has %+v", i/2, before[i], after)
		}
	}
}

func TestConclude(t *testing.T) {
	for _, test := range []struct {
		outcomes []Outcome
		want     Verdict
	}{
		{nil, Unsure},
		{[]Outcome{Waiting, NotAsked, Ended}, Unsure},
		{[]Outcome{Unanswered, Waiting}, Silent},
		{[]Outcome{Retransmitting}, Silent},
		{[]Outcome{Unanswered, Retransmitting, Answered}, Alive},
		{[]Outcome{Reset, Unanswered}, Alive},
	} {
		var evidence []Poked
		for _, o := range test.outcomes {
			evidence = append(evidence, Poked{Outcome: o})
		}
		if got := conclude(evidence); got != test.want {
			t.Errorf("%v: %v, want %v", test.outcomes, got, test.want)
		}
	}
}

func TestChoose(t *testing.T) {
	var sockets []*fact.Socket
	for i := range 20 {
		s := &fact.Socket{State: fact.Established, Conn: &fact.Conn{Life: fact.Life{LastAck: time.Duration(20-i) * time.Second}, Exchange: fact.Exchange{LastReceived: time.Minute}}, Owners: []fact.Owner{{PID: 1}}}
		if i%2 == 0 {
			s.Conn.Unacked = 1
		}
		if i == 19 {
			s.Owners = nil
		}
		sockets = append(sockets, s)
	}
	sockets = append(sockets, &fact.Socket{State: fact.CloseWait, Conn: &fact.Conn{}}, &fact.Socket{State: fact.TimeWait})
	idle, inFlight := 0, 0
	for _, s := range choose(sockets) {
		if s.Socket.Conn.LastAck > 8*time.Second || len(s.Socket.Owners) == 0 {
			t.Errorf("chosen: %+v", s.Socket)
		}
		if s.Socket.Conn.Unacked > 0 {
			inFlight++
		} else {
			idle++
		}
	}
	if idle != pokeSockets || inFlight != pokeSockets {
		t.Errorf("%d idle ones and %d with data in flight", idle, inFlight)
	}
}
