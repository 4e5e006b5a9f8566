// Package lifeline keeps four promises about every network connection of a
// program:
//
//   - its name resolves,
//   - its calls return,
//   - its silence is noticed,
//   - its socket is closed.
//
// Silence, for TCP: a peer that dies without a word (its
// power fails, a node on the way is taken away, a firewall forgets) leaves a
// connection that looks alive: writes succeed, reads wait. Package net notices
// after 150 s, and after 15 minutes when something was written. Here both take
// [Policy].Silence at most, 20 s unless said otherwise:
//
//	var dialer lifeline.Dialer // the zero value is the recommended one
//	client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
//
//	ln, err := lifeline.Listen("tcp", ":8080")
//	if err != nil {
//		return err
//	}
//	return server.Serve(ln)
//
// Then every Read and Write that waits for the dead returns an [*Error]:
//
//	switch {
//	case errors.Is(err, lifeline.ErrSilent): // dead, or cut off: connect again, elsewhere if you can
//	case errors.Is(err, lifeline.ErrReset):  // the peer is there and knows nothing of the connection
//	case errors.Is(err, lifeline.ErrCut):    // an administrator of this machine ended it
//	case errors.Is(err, lifeline.ErrMute):   // its host may live, and the program there does not answer (Heartbeat)
//	}
//
// A peer that is merely slow stays: one that does not read for an hour, but whose
// kernel acknowledges, is alive. TCP_USER_TIMEOUT, the usual remedy, ends its
// connection (and makes one lost keepalive probe fatal), so it is not used. Idle
// connections are watched by keepalive. Those with something unacknowledged,
// and those that a Read waits for, are looked at by one goroutine of the process:
// seldom as long as the peer answers, and four times a second when its silence
// nears the limit. It ends when there are none.
//
// How long a failure can go unnoticed on this system is [Policy.Bound]; for any
// socket with any options, package [github.com/lifeline-go/lifeline/bound] says
// it. An application that stopped answering while its kernel lives is not
// noticed by its connection: for that a request needs a timeout of its own, and
// a connection that waits for messages a [Heartbeat]. Clients that connect again
// should do so by a [Backoff].
//
// Names: a [Dialer] looks its names up by [names.Default], which answers as the
// operating system would, within 3 s, in programs without cgo too; it does not
// wait for nameservers that are dead. Package
// [github.com/lifeline-go/lifeline/names] has it for everything else.
//
// Leaks: everything that a [Dialer], [Listen] or [Wrap] opened is in package
// [github.com/lifeline-go/lifeline/ledger] until it is closed, with the line that
// opened it. A [Scope] closes what is left open in it, whoever opened it:
//
//	scope := lifeline.NewScope("build 42")
//	defer scope.Close()
//	err := run(scope.Context(ctx))
//
// Package [github.com/lifeline-go/lifeline/lifelinetest] fails tests that leave
// something open.
//
// The lifeline command, which looks at a whole machine from outside, is the
// module github.com/lifeline-go/lifeline/agent.
package lifeline
