package lifeline_test

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline"
)

// plain returns two ends of a connection of package net over loopback, one
// end of which reads all that comes.
func plain(t testing.TB, ln net.Listener) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

// sink accepts connections and reads all that comes.
func sink(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	return ln
}

// What the library keeps for a connection that does nothing.
func TestMemory(t *testing.T) {
	const many, most = 500, 512
	ln := sink(t)
	each := int64(math.MaxInt64)
	for range 3 { // the least: what else is allocated meanwhile counts too
		each = min(each, wrapped(t, ln, many))
	}
	t.Logf("%d bytes for each connection", each)
	if each > most {
		t.Errorf("%d bytes for each connection, of %d at most", each, most)
	}
}

// wrapped returns the bytes that so many connections take more for being
// wrapped, each.
func wrapped(t *testing.T, ln net.Listener, many int) int64 {
	t.Helper()
	conns := make([]net.Conn, many)
	for i := range conns {
		conns[i] = plain(t, ln)
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i, conn := range conns {
		conns[i] = lifeline.Wrap(conn)
	}
	each := (int64(heap()) - int64(before)) / int64(many)
	runtime.KeepAlive(conns)
	return each
}

// How many bytes come through in the same time, in short turns with a connection
// of package net, as a ratio of the medians: 1 is no loss.
func BenchmarkThroughput(b *testing.B) {
	const turn = 100
	for _, size := range []int{64, 4 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			ln, data := sink(b), make([]byte, size)
			bare, guarded := net.Conn(plain(b, ln)), lifeline.Wrap(plain(b, ln))
			defer guarded.Close()
			took := make(map[net.Conn][]time.Duration)
			write := func(conn net.Conn) {
				began := time.Now()
				for range turn {
					if _, err := conn.Write(data); err != nil {
						b.Fatal(err)
					}
				}
				took[conn] = append(took[conn], time.Since(began))
			}
			turns := []net.Conn{bare, guarded}
			for b.Loop() {
				rand.Shuffle(2, func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
				write(turns[0])
				write(turns[1])
			}
			median := func(all []time.Duration) float64 {
				slices.Sort(all)
				return float64(all[len(all)/2])
			}
			b.ReportMetric(median(took[bare])/median(took[guarded]), "of-net")
		})
	}
}
