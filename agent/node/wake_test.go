package node

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/tcpevent"
	"github.com/lifeline-go/lifeline/internal/need"
)

// The first segment that is not answered wakes who watches its namespace.
func TestWake(t *testing.T) {
	t.Parallel()
	events, err := tcpevent.Open()
	need.Feature(t, "BPF tracepoints and ring buffer", err)
	if err := events.Close(); err != nil {
		t.Fatal(err)
	}
	c := connected(t, 1, net.KeepAliveConfig{Enable: true})
	n := New()
	defer n.Close()
	woken, stop := n.wake(t.Context(), Namespaces{inode: c.pod.Netns()})
	defer stop()
	deaf, stopDeaf := n.wake(t.Context(), Namespaces{inode: c.node.Netns()})
	defer stopDeaf()
	time.Sleep(time.Second) // for both to listen
	c.node.Unplug()
	sent := time.Now()
	if _, err := c.server[0].Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-woken:
		t.Logf("woken after %v (aim 1 s)", time.Since(sent).Round(time.Millisecond))
	case <-time.After(20 * time.Second):
		t.Fatal("a segment that is not answered wakes nobody")
	}
	select {
	case <-deaf:
		t.Error("who watches another namespace is woken too")
	default:
	}
}

func TestWakeEnds(t *testing.T) {
	n := New()
	defer n.Close()
	for range 2 {
		_, stop := n.wake(context.Background(), Namespaces{})
		stop() // leakcheck sees what stays
	}
	n.withoutBPF = true
	woken, stop := n.wake(context.Background(), Namespaces{})
	defer stop()
	if woken != nil {
		t.Error("without BPF there is somebody who listens")
	}
}

func TestConcerns(t *testing.T) {
	one := func(k tcpevent.Kind, s fact.State, netns uint32) tcpevent.Batch {
		return tcpevent.Batch{Events: []tcpevent.Event{{Kind: k, State: s, Netns: netns}}}
	}
	blue := Namespaces{inode: 7}
	for _, test := range []struct {
		batch tcpevent.Batch
		of    Namespaces
		want  bool
	}{
		{one(tcpevent.Retransmit, fact.Established, 7), blue, true},
		{one(tcpevent.Retransmit, fact.CloseWait, 7), Namespaces{}, true},
		{one(tcpevent.Retransmit, fact.Established, 8), blue, false},
		{one(tcpevent.Retransmit, fact.SynSent, 7), blue, false},
		{one(tcpevent.Reset, fact.Established, 7), blue, false},
		{tcpevent.Batch{Lost: 1}, blue, true},
	} {
		if got := concerns(test.batch, test.of); got != test.want {
			t.Errorf("%+v of %+v: %v", test.batch, test.of, got)
		}
	}
}
