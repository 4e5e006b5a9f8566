package node

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
	"github.com/lifeline-go/lifeline/agent/source/tcpevent"
	"github.com/lifeline-go/lifeline/internal/need"
)

// The kernel tells of the first segment that is not answered, and of probes as
// they go out, to who watches their namespace.
func TestListen(t *testing.T) {
	t.Parallel()
	events, err := tcpevent.Open()
	need.Feature(t, "BPF tracepoints and ring buffer", err)
	probes := events.Probes()
	if err := events.Close(); err != nil {
		t.Fatal(err)
	}
	c := connected(t, 1, net.KeepAliveConfig{Enable: true, Idle: 3 * time.Second, Interval: 3 * time.Second})
	n := New()
	defer n.Close()
	words, stop := n.listen(t.Context(), Namespaces{inode: c.pod.Netns()})
	defer stop()
	deaf, stopDeaf := n.listen(t.Context(), Namespaces{inode: c.node.Netns()})
	defer stopDeaf()
	for _, first := range []word{hear(t, words), hear(t, deaf)} {
		if !first.silent() || first.complete != probes {
			t.Fatalf("the first word is %+v", first)
		}
	}
	if probes {
		w := hear(t, words)
		for len(w.asked) == 0 {
			w = hear(t, words)
		}
		if w.asked[0].key.Remote.String() != c.server[0].RemoteAddr().String() || w.asked[0].netns != c.pod.Netns() || time.Since(w.asked[0].at) > 5*time.Second {
			t.Errorf("a probe went out: %+v", w)
		}
	}
	c.node.Unplug()
	sent := time.Now()
	if _, err := c.server[0].Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	for len(hear(t, words).look) == 0 {
	}
	t.Logf("told of a segment that is not answered after %v (aim 1 s)", time.Since(sent).Round(time.Millisecond))
	select {
	case w := <-deaf:
		t.Errorf("who watches another namespace hears %+v", w)
	default:
	}
}

func hear(t *testing.T, words <-chan word) word {
	t.Helper()
	select {
	case w := <-words:
		return w
	case <-time.After(20 * time.Second):
		t.Fatal("nobody says a word")
		return word{}
	}
}

func TestListenEnds(t *testing.T) {
	n := New()
	defer n.Close()
	for range 2 {
		_, stop := n.listen(context.Background(), Namespaces{})
		stop() // leakcheck sees what stays
	}
	n.withoutBPF = true
	words, stop := n.listen(context.Background(), Namespaces{})
	defer stop()
	if words != nil {
		t.Error("without BPF there is somebody who listens")
	}
}

func TestHeard(t *testing.T) {
	now := time.Now()
	one := func(k tcpevent.Kind, s fact.State, netns uint32, count uint8) tcpevent.Batch {
		e := tcpevent.Event{Kind: k, State: s, Netns: netns, At: time.Minute}
		if k == tcpevent.Probe {
			e.Unanswered = count
		} else {
			e.Retransmits = count
		}
		return tcpevent.Batch{Events: []tcpevent.Event{e}}
	}
	blue := Namespaces{inode: 7}
	for _, test := range []struct {
		batch tcpevent.Batch
		of    Namespaces
		look  bool
		asked int
	}{
		{one(tcpevent.Retransmit, fact.Established, 7, 1), blue, false, 1},
		{one(tcpevent.Retransmit, fact.Established, 7, 2), blue, true, 0},
		{one(tcpevent.Retransmit, fact.CloseWait, 7, 2), Namespaces{}, true, 0},
		{one(tcpevent.Retransmit, fact.Established, 8, 2), blue, false, 0},
		{one(tcpevent.Retransmit, fact.SynSent, 7, 2), blue, false, 0},
		{one(tcpevent.Probe, fact.Established, 7, 0), blue, false, 1},
		{one(tcpevent.Probe, fact.Established, 7, 1), blue, false, 1},
		{one(tcpevent.Probe, fact.Established, 8, 1), blue, false, 0},
		{tcpevent.Batch{Lost: 1}, blue, true, 0},
	} {
		w := heard(test.batch, test.of, now, time.Minute+time.Second)
		if (len(w.look) > 0 || w.anybody) != test.look || len(w.asked) != test.asked || test.asked > 0 && !w.asked[0].at.Equal(now.Add(-time.Second)) {
			t.Errorf("%+v of %+v: %+v", test.batch, test.of, w)
		}
	}
}

// A probe, and data sent again, is seen to when its answer is due, later on a long path, and is no
// alarm when its peer was heard since on any connection that is looked at.
func TestQuestions(t *testing.T) {
	now := time.Now()
	again := false
	about := func(peer, port int, after time.Duration) question {
		q := newQuestion(7, sockdiag.Key{Local: netip.MustParseAddrPort("10.0.0.1:80"),
			Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(peer)}), uint16(port))}, now.Add(after))
		q.data = again
		return q
	}
	const long = time.Minute
	probing := func(rtt time.Duration) *fact.Conn {
		return &fact.Conn{Life: fact.Life{Probes: 1, RTT: rtt, LastAck: long}, Exchange: fact.Exchange{LastReceived: long}}
	}
	heard := func(before time.Duration) *fact.Conn {
		return &fact.Conn{Life: fact.Life{LastAck: before}, Exchange: fact.Exchange{LastReceived: long}}
	}
	losing := func(rtt time.Duration) *fact.Conn {
		return &fact.Conn{Life: fact.Life{Retransmits: 1, Unacked: 1, RTT: rtt, LastAck: long}, Exchange: fact.Exchange{LastReceived: long}}
	}
	for name, test := range map[string]struct {
		data          bool
		first, second *fact.Conn // nil: the socket is gone
		due           time.Duration
		found         bool
	}{
		"gone":                  {false, nil, nil, answered, false},
		"answered":              {false, &fact.Conn{}, nil, answered, false},
		"data since":            {false, &fact.Conn{Life: fact.Life{Probes: 1, Unacked: 1}}, nil, answered, false},
		"unanswered":            {false, probing(0), nil, answered + lonely, true},
		"two unanswered":        {false, probing(0), probing(0), answered, true},
		"the other is not":      {false, probing(0), &fact.Conn{}, answered, false},
		"spoke a moment before": {false, probing(0), heard(answered + answered/2), answered, false},
		"spoke before that":     {false, probing(0), heard(3 * answered), answered + lonely, true},
		"a long path":           {false, probing(300 * time.Millisecond), nil, answered + 600*time.Millisecond + lonely, true},
		"data arrived":          {true, &fact.Conn{}, nil, answered, false},
		"data after it":         {true, &fact.Conn{Life: fact.Life{Unacked: 3}}, nil, answered, false},
		"data lost":             {true, losing(0), nil, answered + lonely, true},
		"data lost to one":      {true, losing(0), &fact.Conn{}, answered, false},
		"data on a long path":   {true, losing(300 * time.Millisecond), nil, answered + 600*time.Millisecond + lonely, true},
		"data of who was asked": {true, probing(0), nil, answered, false},
	} {
		again = test.data
		var q questions
		q.add(about(1, 1000, 0), about(1, 1001, answered/2), about(1, 1002, answered/2))
		get := func(netns uint32, keys []sockdiag.Key) (found []fact.Socket) {
			for _, k := range keys {
				conn := map[uint16]*fact.Conn{1000: test.first, 1001: test.second}[k.Remote.Port()]
				if conn != nil && netns == 7 {
					found = append(found, fact.Socket{Netns: netns, Local: k.Local, Remote: k.Remote, Conn: conn})
				}
			}
			return found
		}
		found := false
		for range 5 {
			at := q.next(now)
			if found || at.After(now.Add(long)) {
				break
			}
			found = len(q.unanswered(at, get)) > 0
			if found && at.Before(now.Add(test.due)) {
				t.Errorf("%s: an alarm after %v", name, at.Sub(now))
			}
		}
		if found != test.found {
			t.Errorf("%s: alarm %v, open %+v", name, found, q.open)
		}
	}
	again = false
	var many questions
	for peer := range 200 {
		for port := range 10 {
			many.add(about(peer, port, 0))
		}
	}
	if len(many.open) != mostQuestions || many.open[mostOfPeer].peer() == many.open[0].peer() {
		t.Errorf("%d questions at the same time", len(many.open))
	}
	if first, last := many.open[0].key.Remote.Port(), many.open[mostOfPeer-1].key.Remote.Port(); first != 0 || last != 9 {
		t.Errorf("of ten of a peer the first is %d, the last %d", first, last)
	}
	if many.pay(now, time.Millisecond); !many.next(now).Equal(now.Add(getting * time.Millisecond)) {
		t.Errorf("what cost 1 ms is paid for after %v", many.next(now).Sub(now))
	}
}
