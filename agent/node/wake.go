package node

import (
	"context"
	"sync"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/tcpevent"
)

// wake returns a channel that says when a peer of the chosen namespaces leaves
// something unanswered, with four words a second at most, and how to end that.
// Where BPF is not to be had it never says anything: looks come at their own
// pace then, and find the same up to 3 s later.
func (n *Node) wake(ctx context.Context, of Namespaces) (woken <-chan struct{}, stop func()) {
	if n.withoutBPF {
		return nil, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	words := make(chan struct{}, 1)
	var listener sync.WaitGroup
	listener.Go(func() {
		events, err := tcpevent.Open() // takes a while, which the first look need not wait for
		if err != nil {
			return
		}
		defer events.Close()
		for {
			batch, err := events.Next(ctx)
			if err != nil {
				return
			}
			if !concerns(batch, of) {
				continue
			}
			select {
			case words <- struct{}{}:
			default: // there is one already
			}
			if sleep(ctx, quickest) != nil {
				return
			}
		}
	})
	return words, func() { cancel(); listener.Wait() }
}

// concerns says whether a batch may tell of a peer of the chosen namespaces
// that does not answer. A connection that is not yet open, or that its program
// has closed, tells nothing of that; and who resets one is there.
func concerns(b tcpevent.Batch, of Namespaces) bool {
	if b.Lost > 0 {
		return true
	}
	for _, e := range b.Events {
		open := e.State == fact.Established || e.State == fact.CloseWait
		if e.Kind == tcpevent.Retransmit && open && (of.inode == 0 || of.inode == e.Netns) {
			return true
		}
	}
	return false
}
