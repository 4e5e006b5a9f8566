package node

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// vanish removes the namespace of a host in which nothing runs.
func vanish(t *testing.T, h *lab.Host) {
	t.Helper()
	if out, err := exec.Command("ip", "netns", "del", filepath.Base(h.Path())).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// A watch of one namespace that vanishes ends, and says why.
func TestWatchPeersOfWhatVanishes(t *testing.T) {
	t.Parallel()
	h := lab.New(t).Host("a")
	one, err := ParseNamespaces(h.Path())
	if err != nil {
		t.Fatal(err)
	}
	n := New()
	defer n.Close()
	began := time.Now()
	there := true
	err = n.WatchPeers(t.Context(), PeerWatch{Of: one}, func(*fact.Machine, []verdict.Change) error {
		if there { // it may be told again, of looks that failed for another reason
			vanish(t, h)
		}
		there = false
		return nil
	})
	t.Logf("after %v: %v", time.Since(began).Round(time.Millisecond), err)
	if err == nil || !strings.Contains(err.Error(), h.Path()) || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("it ended with %v", err)
	}
}

// A watch of all namespaces loses one, and goes on with the others. It has no
// BPF, and still knows whose the connections are.
//
// It is not parallel to others: they would make it watch thousands of sockets.
func TestWatchPeersGoesOnWithTheOthers(t *testing.T) {
	lost := lab.New(t).Host("lost")
	c := connected(t, 20, probing)
	ctx, cancel := context.WithCancel(t.Context())
	began, said := make(chan struct{}), make(chan verdict.Change, 64)
	var wg sync.WaitGroup
	wg.Go(func() {
		n, told := New(), false
		n.withoutBPF = true
		defer n.Close()
		_ = n.WatchPeers(ctx, PeerWatch{}, func(_ *fact.Machine, changes []verdict.Change) error {
			if !told {
				told = true
				close(began)
			}
			for _, change := range changes {
				if change.Netns == c.pod.Netns() { // not those of other tests
					said <- change
				}
			}
			return nil
		})
	})
	defer wg.Wait()
	defer cancel()
	<-began
	vanish(t, lost)
	time.Sleep(2 * time.Second)
	died := time.Now()
	c.node.Unplug()
	fell := next(t, said, longest)
	t.Logf("silent after %v", fell.Time.Sub(died).Round(time.Millisecond))
	if fell.Verdict != verdict.Silent || fell.Count != 20 || len(fell.Processes) != 1 {
		t.Errorf("got %+v", fell)
	}
}

// Who reads verdicts learns that looks have failed, also when nothing changed.
func TestWatchPeersTellsOfLooksThatFailed(t *testing.T) {
	t.Parallel()
	var told []fact.Blind
	w := &peerWatch{told: true, failures: 3, failure: errors.New("the kernel is busy"), tell: func(m *fact.Machine, _ []verdict.Change) error {
		told = append(told, m.Blind...)
		return nil
	}}
	for range 2 {
		if err := w.say(t.Context(), &fact.Machine{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) != 1 || told[0].Source != "sockets" || !strings.Contains(told[0].Error, "3 looks in a row could not be taken") || !strings.Contains(told[0].Error, "busy") {
		t.Errorf("told %+v", told)
	}
}
