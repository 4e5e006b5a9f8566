package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline"
)

// What the library aims at, beside package net.
const (
	throughputAim = 0.98
	memoryAim     = 512 // bytes for an idle connection
)

// library measures what lifeline.Dialer costs a program beside net.Dialer, on
// loopback, where nothing else is slow.
func library(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("library", flag.ContinueOnError)
	n := flags.Int("connections", 10000, "idle connections of a program")
	span := flags.Duration("for", 20*time.Second, "how long the watcher is measured")
	if err := flags.Parse(args); err != nil {
		return err
	}
	t := newTable("library beside package net, on loopback")
	for _, size := range []int{4 << 10, 64 << 10} {
		ratio, err := throughput(ctx, size)
		if err != nil {
			return err
		}
		t.row(fmt.Sprintf("throughput of writes of %d KiB, ratio", size>>10), fmt.Sprintf("%.3f", ratio), fmt.Sprintf("≥ %.2f", throughputAim), ratio/throughputAim)
	}
	memory, share, err := idleCost(ctx, *n, *span)
	if err != nil {
		return err
	}
	t.row("memory more, for each idle connection", fmt.Sprintf("%d bytes", memory), fmt.Sprintf("≤ %d bytes", memoryAim), float64(memory)/memoryAim)
	t.row(fmt.Sprintf("watcher of %d idle connections, of a core", *n), percent(share), "≤ "+percent(watchShare), share/watchShare)
	return t.print()
}

type dial func(ctx context.Context, network, address string) (net.Conn, error)

// dialers are the two that are compared: package net's, and the library's.
func dialers() (plain, guarded dial) {
	return new(net.Dialer).DialContext, new(lifeline.Dialer).DialContext
}

// throughput returns how many bytes come through a connection of the library, in
// short turns with one of package net: 1 is no loss.
func throughput(ctx context.Context, size int) (ratio float64, err error) {
	const turns, writes = 1000, 50
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	go drain(l)
	plain, guarded := dialers()
	var conns [2]net.Conn
	for i, d := range []dial{plain, guarded} {
		if conns[i], err = d(ctx, "tcp", l.Addr().String()); err != nil {
			return 0, err
		}
		defer conns[i].Close()
	}
	var took [2][]time.Duration
	data := make([]byte, size)
	for range turns {
		first := rand.IntN(2)
		for _, i := range []int{first, 1 - first} {
			began := time.Now()
			for range writes {
				if _, err := conns[i].Write(data); err != nil {
					return 0, err
				}
			}
			took[i] = append(took[i], time.Since(began))
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
	}
	for i := range took {
		slices.Sort(took[i])
	}
	return float64(took[0][turns/2]) / float64(took[1][turns/2]), nil
}

// drain reads all that comes to a listener, until it is closed.
func drain(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(io.Discard, c)
		}()
	}
}

// idleCost returns what idle connections of the library take: memory, for each
// and beside one of package net, and processor time for all.
func idleCost(ctx context.Context, n int, span time.Duration) (memory int64, share float64, err error) {
	const each = 2000 // wait in the accept queue of one listener, which has no need of more files
	var addresses []string
	for range (n + each - 1) / each {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, 0, err
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	plain, guarded := dialers()
	bare, err := heapOf(ctx, plain, addresses, min(n, each), nil)
	if err != nil {
		return 0, 0, err
	}
	full, err := heapOf(ctx, guarded, addresses, n, func() error {
		if err := pause(ctx, 2*time.Second); err != nil {
			return err
		}
		began, before := time.Now(), usage()
		err := pause(ctx, span)
		share = float64(usage()-before) / float64(time.Since(began))
		return err
	})
	return full - bare, share, err
}

// heapOf returns the memory that each of n connections takes, and calls do while
// they are open.
func heapOf(ctx context.Context, d dial, addresses []string, n int, do func() error) (each int64, err error) {
	conns := make([]net.Conn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	before := heap()
	for i := range conns {
		if conns[i], err = d(ctx, "tcp", addresses[i%len(addresses)]); err != nil {
			return 0, err
		}
	}
	each = (heap() - before) / int64(n)
	if do != nil {
		err = do()
	}
	return each, err
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) + int64(m.StackInuse)
}
