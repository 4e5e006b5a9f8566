package ssh

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A wire is the net.Conn under an SSH connection: it knows when a byte was last
// received, and kill is the one way to end all that waits for it. Nothing of it
// takes a lock that is held while somebody waits.
type wire struct {
	net.Conn
	buf     []byte // of Read
	unread  []byte // of buf
	epoch   time.Time
	heard   atomic.Int64  // when the last byte came, as time since epoch
	dead    chan struct{} // closed by kill
	cause   error         // read only after dead
	once    sync.Once
	closing atomic.Bool
	closed  chan struct{} // closed when Conn.Close has returned
}

func newWire(conn net.Conn) *wire {
	return &wire{Conn: conn, epoch: time.Now(), dead: make(chan struct{}), closed: make(chan struct{})}
}

// What Read asks for at once: little of a connection that says little, and of
// one by which files come many packets, which cost less together.
const (
	leastRead = 8 << 10
	mostRead  = 256 << 10
)

// Read counts what comes, and makes an error known before x/crypto can react
// to it.
func (w *wire) Read(p []byte) (int, error) {
	if len(w.unread) == 0 {
		if w.buf == nil {
			w.buf = make([]byte, leastRead)
		}
		n, err := w.Conn.Read(w.buf)
		w.unread = w.buf[:n]
		if n > 0 {
			w.heard.Store(int64(time.Since(w.epoch)))
		}
		if err != nil {
			w.failed(err)
			return w.take(p), err
		}
	}
	n := w.take(p)
	if len(w.unread) == 0 && cap(w.unread) == 0 && len(w.buf) < mostRead { // all of it was full
		w.buf = make([]byte, 2*len(w.buf))
	}
	return n, nil
}

// take returns how much of what was read fits into p.
func (w *wire) take(p []byte) int {
	n := copy(p, w.unread)
	w.unread = w.unread[n:]
	return n
}

func (w *wire) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if err != nil {
		w.failed(err)
	}
	return n, err
}

// failed ends the wire for what its net.Conn said, unless x/crypto has closed
// it: then it has a better reason, which it will tell.
func (w *wire) failed(err error) {
	if w.closing.Load() {
		return
	}
	if !errors.Is(err, ErrSilent) {
		if err == io.EOF {
			err = ErrDisconnected
		} else {
			err = fmt.Errorf("%w: %w", ErrDisconnected, err)
		}
	}
	w.kill(err)
}

// Close is for x/crypto, which closes what it has given up. The cause is not
// known here, so nobody is told.
func (w *wire) Close() error {
	if !w.closing.Swap(true) {
		go func() { // of a net.Conn of somebody else, Close may take its time
			defer close(w.closed)
			_ = w.Conn.Close()
		}()
	}
	return nil
}

// kill ends the connection: for the first cause, once, and without waiting.
func (w *wire) kill(cause error) {
	w.once.Do(func() {
		w.cause = cause
		if abortive, ok := w.Conn.(interface{ SetLinger(int) error }); ok && errors.Is(cause, ErrSilent) {
			_ = abortive.SetLinger(0) // should the server come back, it learns at once
		}
		close(w.dead)
		_ = w.Close()
	})
}

// paused is what a timer must be late by to say that the process was stopped.
const paused = 2 * time.Second

// lastHeard returns since when nothing came.
func (w *wire) lastHeard() time.Time { return w.epoch.Add(time.Duration(w.heard.Load())) }

// watch gives the server up when nothing came from it for the silence that is
// allowed. Before that it calls ask, which must not wait.
//
// A process that was stopped has not listened: when a timer comes later than
// an interval, and than any load would make it, the silence begins anew.
func (w *wire) watch(l Liveness, ask func()) {
	since := time.Now() // when we know to have listened from
	timer := time.NewTimer(l.Interval)
	defer timer.Stop()
	due := since.Add(l.Interval)
	for {
		select {
		case <-w.dead:
			return
		case <-timer.C:
		}
		now := time.Now()
		if now.Sub(due) > max(l.Interval, paused) {
			since = now
		}
		if heard := w.lastHeard(); heard.After(since) {
			since = heard
		}
		quiet := now.Sub(since)
		if quiet >= l.Silence {
			w.kill(&SilenceError{now.Sub(w.lastHeard())})
			return
		}
		due = since.Add(l.Interval)
		if quiet >= l.Interval {
			ask()
			due = now.Add(min(l.Interval, l.Silence-quiet))
		}
		timer.Reset(due.Sub(now))
	}
}
