package ledger

import "time"

// patience is how long a scope waits for what cannot be closed at once, twice.
const patience = 100 * time.Millisecond

// closeAll closes what tickets are for, and returns when that is done or
// cannot be done now. Package net's Close waits until no function that the
// program gave to a RawConn runs, and other people's may wait for anything. So
// it is done by one goroutine, and from where that hangs by one for each.
func closeAll(tickets []*Ticket) {
	if len(tickets) == 0 {
		return
	}
	work, closed := make(chan *Ticket), make(chan struct{})
	go func() {
		defer close(closed)
		for t := range work {
			t.close()
		}
	}()
	rest := hand(tickets, work)
	close(work)
	last := closed
	if len(rest) > 0 {
		last = closeEach(rest)
	}
	select {
	case <-last:
	case <-time.After(patience):
	}
}

// hand gives one ticket after the other to who closes them, and returns what is
// left when one of them takes too long.
func hand(tickets []*Ticket, work chan<- *Ticket) []*Ticket {
	slow := time.NewTimer(patience)
	defer slow.Stop()
	for i, t := range tickets {
		select {
		case work <- t:
			slow.Reset(patience)
		case <-slow.C:
			return tickets[i:]
		}
	}
	return nil
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
