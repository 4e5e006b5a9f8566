package act

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
)

// The path comes back while connections with heartbeats are being cut, and
// nobody says so but the peer: the cut stops, and the rest carry data.
func TestCutStopsWhenThePathIsBack(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	const all, rate = 400, 100
	links := dial(t, near, far, "10.77.1.2:80", all)
	far.Unplug()
	since := time.Now().Add(20 * time.Millisecond) // ages come in ticks of up to 10 ms
	beating, told := make(chan struct{}), make(map[net.Conn]error)
	go func() { // each end has something to say, one after the other
		defer close(beating)
		for _, l := range links {
			_, _ = l.far.Write([]byte{'b'})
			_, told[l.near] = l.near.Write([]byte{'b'})
			time.Sleep(5 * time.Millisecond)
		}
	}()
	defer func() { <-beating }()
	time.Sleep(50 * time.Millisecond)
	m := look(t, near)
	var first, last time.Time
	back := make(chan time.Time, 1)
	time.AfterFunc(time.Second, func() { far.Plug(); back <- time.Now() })
	batches := 0
	report, err := Cut(t.Context(), m, Select(m, to("10.77.1.2"), 0), CutOptions{Rate: rate, Before: StillSilent(m, since), After: func(CutReport) {
		if last = time.Now(); first.IsZero() {
			first = last
		}
		batches++
	}})
	stopped := time.Now()
	plugged := <-back
	if !errors.Is(err, ErrAlive) || len(report.Cut)+len(report.Left) != all || len(report.Gone)+len(report.Failed) != 0 {
		t.Fatalf("got %v, %d cut, %d left, %d gone, %v failed", err, len(report.Cut), len(report.Left), len(report.Gone), report.Failed)
	}
	paced := float64((batches-1)*Rate(rate).batch()) / last.Sub(first).Seconds()
	t.Logf("%d cut at %.1f a second, stopped %v after the path was back: %v", len(report.Cut), paced, stopped.Sub(plugged).Round(time.Millisecond), err)
	if paced > rate*1.25 { // slower is what a busy machine makes of it
		t.Errorf("cut at %.1f a second, want %d", paced, rate)
	}
	if len(report.Left) < all/4 {
		t.Errorf("only %d of %d are left", len(report.Left), all)
	}
	<-beating
	left := make(map[netip.AddrPort]bool)
	for _, s := range report.Left {
		left[s.Local] = true
	}
	for _, l := range links {
		if left[l.near.LocalAddr().(*net.TCPAddr).AddrPort()] {
			carries(t, l.near, l.far)
			carries(t, l.far, l.near)
			continue
		}
		err := told[l.near] // the kernel says it once, to whom asks first
		if err == nil {
			_ = l.near.SetReadDeadline(time.Now().Add(30 * time.Second))
			_, err = io.Copy(io.Discard, l.near) // what the far end said may have come before the cut
		}
		if !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("one that was cut: %v", err)
		}
	}
}

// carries sends a mark from one end to the other.
func carries(t *testing.T, from, to net.Conn) {
	t.Helper()
	if _, err := from.Write([]byte{'m'}); err != nil {
		t.Fatal(err)
	}
	_ = to.SetReadDeadline(time.Now().Add(30 * time.Second))
	for b := []byte{0}; b[0] != 'm'; {
		if _, err := to.Read(b); err != nil {
			t.Fatalf("%v does not hear from %v: %v", to.LocalAddr(), from.LocalAddr(), err)
		}
	}
}

// Twenty pokes on a dead path: nothing of any connection has changed, and when
// the path is back all of them live, even one that has a single unanswered probe
// to spend.
func TestManyPokesUseUpNothing(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	links := dial(t, near, far, "10.77.1.2:80", 3)
	tuned(t, links)
	for _, l := range links[1:] { // so long that what happens is of the pokes' making
		withFD(t, l.near, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 600) })
	}
	before := allOptions(t, links)
	far.Unplug()
	for range 20 {
		if r := poke(t, near, "10.77.1.2"); r.Verdict != Silent || r.Took > 10*time.Second {
			t.Fatalf("%v after %v", r.Verdict, r.Took)
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
		if info := infoOf(t, l.near); info.Probes != 0 {
			t.Errorf("%d probes are still counted", info.Probes)
		}
	}
	for i, after := range allOptions(t, links) {
		if after != before[i] {
			t.Errorf("connection %d had %+v, has %+v", i/2, before[i], after)
		}
	}
	if r := poke(t, near, "10.77.1.2"); r.Verdict != Alive || r.Took > 5*time.Second {
		t.Errorf("%v after %v", r.Verdict, r.Took)
	}
}

// The keepalive that a program asked for ends a connection of its own accord,
// and not a moment earlier because somebody poked all the time.
func TestPokeSparesTheBudget(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	links := dial(t, near, far, "10.77.1.2:80", 2)
	for _, l := range links {
		if err := l.near.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: 3 * time.Second, Count: 3}); err != nil {
			t.Fatal(err)
		}
		l.say(t)
	}
	died := time.Now()
	far.Unplug()
	var poked []*fact.Socket
	for _, s := range Select(look(t, near), to("10.77.1.2"), 0) {
		if s.Local == links[0].near.LocalAddr().(*net.TCPAddr).AddrPort() {
			poked = append(poked, s)
		}
	}
	var ended [2]time.Duration
	done := make(chan struct{})
	for i, l := range links {
		go func() {
			_ = l.near.SetReadDeadline(died.Add(40 * time.Second))
			_, err := l.near.Read(make([]byte, 1))
			if ended[i] = time.Since(died); !errors.Is(err, syscall.ETIMEDOUT) {
				t.Errorf("connection %d: %v", i, err)
			}
			done <- struct{}{}
		}()
	}
	pokes := 0
	for left := 2; left > 0; {
		select {
		case <-done:
			left--
		default:
			if r, err := Poke(t.Context(), poked); err != nil || r.Verdict == Alive {
				t.Errorf("%v, %v", r.Verdict, err)
			}
			pokes++
		}
	}
	t.Logf("%d pokes: ended by its own keepalive after %v, without pokes after %v", pokes, ended[0].Round(time.Millisecond), ended[1].Round(time.Millisecond))
	if early := ended[1] - ended[0]; early > 2500*time.Millisecond || early < -2500*time.Millisecond {
		t.Errorf("pokes changed when keepalive ends a connection: %v, without %v", ended[0], ended[1])
	}
}

// A namespace that vanishes in the middle of a paced cut ends it well: what was
// in it is gone. A poke in it does not know.
func TestTheNamespaceVanishes(t *testing.T) {
	t.Parallel()
	t.Run("cut", func(t *testing.T) {
		t.Parallel()
		near, far := hosts(t)
		links := dial(t, near, far, "10.77.1.2:80", 30)
		far.Unplug()
		m := look(t, near)
		batches := 0
		report, err := Cut(t.Context(), m, Select(m, to("10.77.1.2"), 0), CutOptions{Rate: 100, Before: StillSilent(m, time.Now()), After: func(CutReport) {
			if batches++; batches == 2 {
				vanish(t, near, links)
			}
		}})
		if err != nil || len(report.Cut) != 10 || len(report.Gone) != 20 {
			t.Errorf("got %v, %d cut, %d gone, %v failed, %d left", err, len(report.Cut), len(report.Gone), report.Failed, len(report.Left))
		}
	})
	t.Run("poke", func(t *testing.T) {
		t.Parallel()
		near, far := hosts(t)
		links := dial(t, near, far, "10.77.1.2:80", 3)
		sockets := Select(look(t, near), to("10.77.1.2"), 0)
		far.Unplug()
		gone := make(chan struct{})
		time.AfterFunc(200*time.Millisecond, func() { defer close(gone); vanish(t, near, links) })
		report, err := Poke(t.Context(), sockets)
		<-gone
		if err != nil {
			t.Error(err)
		}
		checkPoke(t, report, Unsure, NotAsked, 3)
	})
}

// vanish ends all that is on a host, without a word, and the host.
func vanish(t *testing.T, h *lab.Host, links []link) {
	for _, l := range links {
		_ = l.near.SetLinger(0)
		_ = l.near.Close()
	}
	if out, err := exec.Command("ip", "netns", "del", filepath.Base(h.Path())).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// Answers of the kernel that do not fit into the receive buffer are asked for
// again: every socket is accounted for.
func TestCutSurvivesAnOverrun(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	links := dial(t, near, far, "10.77.1.2:80", 200)
	m := look(t, near)
	c := cutter{machine: m, open: make(map[uint32]*destroyer)}
	c.Left = Select(m, to("10.77.1.2"), 0)
	d, err := c.destroyer(near.Netns())
	defer c.close()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(d.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil { // the kernel's least
		t.Fatal(err)
	}
	if err := c.batch(len(c.Left)); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d cut, %d whose answer was lost", len(c.Cut), len(c.Gone))
	if len(c.Cut)+len(c.Gone) != len(links) || len(c.Gone) == 0 {
		t.Errorf("%d cut, %d gone, %v failed, %d left", len(c.Cut), len(c.Gone), c.Failed, len(c.Left))
	}
	for _, l := range links {
		if err := failed(t, l.near); !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("one that was cut: %v", err)
		}
	}
}
