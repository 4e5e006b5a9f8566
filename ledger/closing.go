package ledger

import (
	"sync/atomic"
	"time"
)

// patience is how long a scope waits for what cannot be closed at once; it does so
// three times at most.
const patience = 100 * time.Millisecond

// closeAll closes what tickets are for, and returns when that is done or
// cannot be done now. Package net's Close waits until no function that the
// program gave to a RawConn runs, and other people's may wait for anything. So
// it is done by one goroutine, and from where that hangs by one for each.
func closeAll(tickets []*Ticket) {
	var next atomic.Int64
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for i := next.Add(1) - 1; int(i) < len(tickets); i = next.Add(1) - 1 {
			tickets[i].close()
		}
	}()
	look := time.NewTicker(patience)
	defer look.Stop()
	for before := int64(-1); ; {
		select {
		case <-closed:
			return
		case <-look.C:
		}
		if now := next.Load(); now != before {
			before = now
			continue
		}
		rest := min(int(next.Swap(int64(len(tickets)))), len(tickets)) // the one that hangs takes none of them
		select {
		case <-closeEach(tickets[rest:]):
		case <-look.C:
		}
		return
	}
}

// closeEach closes each by a goroutine of its own.
func closeEach(tickets []*Ticket) (closed chan struct{}) {
	one, closed := make(chan struct{}), make(chan struct{})
	for _, t := range tickets {
		go func() {
			t.close()
			one <- struct{}{}
		}()
	}
	go func() {
		defer close(closed)
		for range tickets {
			<-one
		}
	}()
	return closed
}

// close closes it without waiting for the peer: the system's close waits as
// long as the program told it to by SO_LINGER.
func (t *Ticket) close() {
	if c, ok := t.what.(interface{ SetLinger(seconds int) error }); ok {
		_ = c.SetLinger(-1) // the default, to send what was written in the background
	}
	_ = t.what.Close()
}
