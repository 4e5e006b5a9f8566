package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/ledger"
)

// What the ledger may cost for each connection, from dial to close.
const (
	ledgerTime   = time.Microsecond
	ledgerMemory = 400 // bytes
)

// measureLedger measures what it costs a program that the library lists its
// connections, by itself and as a part of a dial and its close.
func measureLedger(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("ledger", flag.ContinueOnError)
	many := flags.Int("entries", 100_000, "that are open at a time")
	turns := flags.Int("turns", 4000, "connections that are opened and closed in each way")
	if err := flags.Parse(args); err != nil {
		return err
	}
	t := newTable("ledger: what it costs to list connections; what is more is the median of the differences within a turn, and in brackets where the true one lies in 95 of 100 cases")
	each, bytes, err := enterCost()
	if err != nil {
		return err
	}
	t.row("ledger alone, enter and leave, the stack included", fmt.Sprint(each), "≤ "+fmt.Sprint(ledgerTime), float64(each)/float64(ledgerTime))
	t.row("  its memory while open", fmt.Sprintf("%d bytes", bytes), fmt.Sprintf("≤ %d bytes", ledgerMemory), float64(bytes)/ledgerMemory)
	t.row("  runtime.Callers alone, which others would use", fmt.Sprint(fastest(wholeStack)), "-", 0)
	for _, network := range []string{"unix", "tcp"} {
		if err := dialAndClose(ctx, t, network, *turns); err != nil {
			return err
		}
	}
	if err := manyEntries(t, *many); err != nil {
		return err
	}
	return t.print()
}

// fastest returns the time of one call, as it is when nothing disturbs: the least
// of many short turns.
func fastest(f func()) time.Duration {
	const calls = 200
	best := time.Duration(1<<63 - 1)
	for range 500 {
		began := time.Now()
		for range calls {
			f()
		}
		best = min(best, time.Since(began)/calls)
	}
	return best
}

func wholeStack() {
	var pcs [32]uintptr
	runtime.Callers(1, pcs[:])
}

// owner is a connection without a socket, in the ledger as those of the library
// are.
type owner struct {
	inner  io.Closer
	ticket *ledger.Ticket
}

func own(scope *ledger.Scope) (*owner, error) {
	inner := io.NopCloser(nil)
	ticket, err := ledger.Enter(context.Background(), scope, "dial", inner)
	if err != nil {
		return nil, err
	}
	o := &owner{inner, ticket}
	runtime.AddCleanup(o, (*ledger.Ticket).Drop, ticket)
	return o, nil
}

// enterCost returns what an entry costs from beginning to end, with the cleanup
// by which the library notices that it was dropped.
func enterCost() (each time.Duration, bytes int64, err error) {
	const open = 20_000
	scope := lifeline.NewScope("bench")
	each = fastest(func() {
		o, failed := own(scope)
		if failed != nil {
			err = failed
			return
		}
		o.ticket.Leave()
	})
	if err != nil {
		return 0, 0, err
	}
	all := make([]*owner, open)
	before := heap()
	for i := range all {
		if all[i], err = own(scope); err != nil {
			return 0, 0, err
		}
	}
	bytes = (heap() - before) / open
	scope.Close()
	runtime.KeepAlive(all)
	return each, bytes, nil
}

// A listedConn is a connection of package net in the ledger, and nothing else.
type listedConn struct {
	net.Conn
	ticket *ledger.Ticket
}

func (c *listedConn) Close() error {
	c.ticket.Leave()
	return c.Conn.Close()
}

// dialWays are the dialers that are compared, each of which does more than the one
// before.
func dialWays() []dial {
	plain, guarded := dialers()
	bounded := func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		return plain(ctx, network, address)
	}
	listed := func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := bounded(ctx, network, address)
		if err != nil {
			return nil, err
		}
		ticket, err := ledger.Enter(ctx, nil, "dial", c)
		l := &listedConn{c, ticket}
		runtime.AddCleanup(l, (*ledger.Ticket).Drop, ticket)
		return l, err
	}
	return []dial{plain, bounded, listed, guarded}
}

// dialAndClose measures connections from dial to close, in turns: by package
// net's dialer, within a timeout as the library has it, in the ledger too, and by
// the library's, which does more for TCP: it sets two options of the socket, and
// tells the watcher of a close. Only differences within a turn are compared: a
// dial scatters by more than the ledger costs.
func dialAndClose(ctx context.Context, t *table, network string, turns int) error {
	address := "127.0.0.1:0"
	if network == "unix" {
		dir, err := os.MkdirTemp("", "lifeline-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		address = filepath.Join(dir, "socket")
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1)) // until the other end is closed
			_ = c.Close()
		}
	}()
	ways := dialWays()
	took := make([][]time.Duration, len(ways))
	for range turns {
		for _, i := range rand.Perm(len(ways)) {
			began := time.Now()
			c, err := ways[i](ctx, network, ln.Addr().String())
			if err != nil {
				return err
			}
			if err := c.Close(); err != nil {
				return err
			}
			took[i] = append(took[i], time.Since(began))
		}
	}
	t.row(network+" dial and close, net.Dialer", fmt.Sprint(median(slices.Clone(took[0]))), "-", 0)
	more := func(way, than int) middle {
		var all []float64
		for _, d := range differences(took[way], took[than]) {
			all = append(all, float64(d))
		}
		return middleOf(all)
	}
	t.row("  within a timeout of 10 s", nanoseconds(more(1, 0))+" more", "-", 0)
	own := more(2, 1)
	t.row("  that, and in the ledger", nanoseconds(own)+" more", "≤ "+fmt.Sprint(ledgerTime), own.at/float64(ledgerTime))
	t.row("  lifeline.Dialer, all of it", nanoseconds(more(3, 0))+" more", "-", 0)
	return nil
}

// manyEntries measures what it takes to list, to write and to close many.
func manyEntries(t *table, many int) error {
	scope := lifeline.NewScope("many")
	all := make([]*owner, many)
	for i := range all {
		var err error
		if all[i], err = own(scope); err != nil {
			return err
		}
	}
	began := time.Now()
	if n := len(scope.Open()); n != many {
		return fmt.Errorf("%d of %d entries are listed", n, many)
	}
	t.took(fmt.Sprintf("list %d entries", many), time.Since(began), 0)
	began = time.Now()
	var text strings.Builder
	if err := ledger.Write(&text); err != nil {
		return err
	}
	t.took(fmt.Sprintf("the page of %d entries", many), time.Since(began), 0)
	began = time.Now()
	if n := len(scope.Close()); n != many {
		return errors.New("not all entries were closed")
	}
	t.took(fmt.Sprintf("close a scope of %d entries", many), time.Since(began), 0)
	runtime.KeepAlive(all)
	return nil
}
