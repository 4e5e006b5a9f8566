//go:build linux

package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/internal/need"
)

// lose makes a host drop part of what it receives.
func lose(t *testing.T, h *Host, percent int) {
	t.Helper()
	need.Program(t, "nft")
	h.Run("nft", "add", "table", "ip", "loss")
	h.Run("nft", "add", "chain", "ip", "loss", "in", "{ type filter hook input priority 0 ; }")
	h.Run("nft", "add", "rule", "ip", "loss", "in", "numgen", "random", "mod", "100", "<", fmt.Sprint(percent), "drop")
}

// Living connections over a path that loses packets, both ways: how many are
// given up in half a minute. What is to be expected of idle ones is in the
// documentation of Policy, for a minute; those that write are asked as often.
func TestLibraryLoss(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		policy        lifeline.Policy
		percent, most int // of each sort; far beyond what is to be expected
	}{
		{shortest, 5, 3}, {shortest, 20, many}, {shortest, 40, many},
		{lifeline.Policy{}, 5, 0}, {lifeline.Policy{}, 20, 2}, {lifeline.Policy{}, 40, 12},
	} {
		t.Run(fmt.Sprintf("%v, %d%%", test.policy.Bound().Idle, test.percent), func(t *testing.T) {
			t.Parallel()
			idle, sending := losing(t, test.policy, test.percent)
			t.Logf("given up in 30 s: %d of %d idle, %d of %d that write every second", idle, many, sending, many)
			if max(idle, sending) > test.most {
				t.Errorf("more than %d living connections were given up", test.most)
			}
		})
	}
}

const many = 30 // connections of each sort

// losing returns how many connections of each sort were given up.
func losing(t *testing.T, policy lifeline.Policy, percent int) (idle, sending int) {
	t.Helper()
	near, far := hosts(t, "10.77.1.1/24", "10.77.1.2/24")
	ln := far.Listen("tcp", "10.77.1.2:80")
	var readers sync.WaitGroup
	defer readers.Wait()
	conns := make([]net.Conn, 2*many)
	for i := range conns {
		conns[i] = policy.Wrap(near.Dial("tcp", "10.77.1.2:80"))
		defer conns[i].Close()
		peer, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		readers.Go(func() { _, _ = io.Copy(io.Discard, peer) })
	}
	lose(t, near, percent)
	lose(t, far, percent)

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var ends [2]atomic.Int32
	var wg sync.WaitGroup
	for i, conn := range conns {
		wg.Go(func() {
			if _, err := conn.Read(make([]byte, 1)); ctx.Err() == nil {
				checkSilent(t, err)
				ends[i%2].Add(1)
			}
		})
		if i%2 == 1 {
			wg.Go(func() { beat(ctx, conn) })
		}
	}
	<-ctx.Done()
	for _, conn := range conns {
		_ = conn.Close()
	}
	wg.Wait()
	return int(ends[0].Load()), int(ends[1].Load())
}

// beat writes every second.
func beat(ctx context.Context, conn net.Conn) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if _, err := conn.Write([]byte("beat")); err != nil {
				return
			}
		}
	}
}

// What a heartbeat of 10,000 connections costs, each of which is asked once in
// 25 s and answers at once.
func BenchmarkLibraryHeartbeat(b *testing.B) {
	var h lifeline.Heartbeat
	for range 10_000 {
		beat := h.Add("10.0.0.7:443", func(context.Context) error { return nil }, func(err error) { b.Error(err) })
		defer beat.Stop()
	}
	for b.Loop() {
		busy, began := used(b), time.Now()
		time.Sleep(10 * time.Second)
		b.ReportMetric(100*float64(used(b)-busy)/float64(time.Since(began)), "%core")
	}
}
