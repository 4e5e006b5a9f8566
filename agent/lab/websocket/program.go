package websocket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The events of an end.
const (
	Ready = "ready" // the server listens
	Open  = "open"  // all connections of the clients are open
	Ended = "ended" // a connection's read has returned for good
	Back  = "back"  // it was opened again
)

// Event is what one of the ends, a process of its own, tells about itself: a
// line of JSON.
type Event struct {
	What  string        `json:"what"`
	At    time.Duration `json:"at"` // by Now
	Error string        `json:"error,omitempty"`
}

// Now reads the machine's monotonic clock, which all its processes share.
func Now() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail
	return time.Duration(t.Nano())
}

// TellAfter is how long events may be kept back: when thousands of reads return
// at once, telling of each would take the processor from those that have yet to
// return. An event has the time at which it happened, not that of its telling.
const TellAfter = 250 * time.Millisecond

// teller writes events, from any goroutine.
type teller struct {
	mu      sync.Mutex
	w       io.Writer
	pending []Event
}

func (t *teller) tell(what string, err error) {
	e := Event{What: what, At: Now()}
	if err != nil {
		e.Error = cause(err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.pending) == 0 {
		time.AfterFunc(TellAfter, t.flush)
	}
	t.pending = append(t.pending, e)
}

func (t *teller) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	for i := range t.pending {
		_ = encoder.Encode(&t.pending[i]) // such a struct has nothing that could fail
	}
	t.pending = t.pending[:0]
	_, _ = lines.WriteTo(t.w) // whoever started this end may be gone, and with it the reason to tell
}

// cause says what the kernel said, without who passed it on.
func cause(err error) string {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno.Error()
	}
	if errors.Is(err, io.EOF) {
		return "end of file"
	}
	return err.Error()
}

// RunServer is the program on the pod: it serves at addr, writes to each client
// as often as heartbeat says, 0 being never, and tells its events to w until ctx
// ends. Connections that are open then end with the process.
func RunServer(ctx context.Context, addr string, heartbeat time.Duration, w io.Writer) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	t := &teller{w: w}
	defer t.flush()
	server := &http.Server{Handler: &Server{Heartbeat: heartbeat, Ended: func(err error) { t.tell(Ended, err) }}}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	t.tell(Ready, nil)
	if err := server.Serve(ln); ctx.Err() == nil {
		return err
	}
	return nil
}

// RunClients is a program on the load balancer: it opens so many connections to
// url, evenly spread over a time, and tells its events to w until all have ended
// or ctx ends. Where again is not "", each that ends is opened again there, at once
// and once.
func RunClients(ctx context.Context, url, again string, connections int, spread time.Duration, w io.Writer) error {
	t := &teller{w: w}
	defer t.flush()
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // before the wait
	begin := time.Now()
	for i := range connections {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(begin.Add(spread * time.Duration(i) / time.Duration(connections)))):
		}
		c, err := Dial(ctx, url)
		if err != nil {
			return fmt.Errorf("connection %d of %d: %w", i+1, connections, err)
		}
		wg.Go(func() {
			t.tell(Ended, c.Wait(ctx))
			if again == "" || ctx.Err() != nil {
				return
			}
			if c, err := Dial(ctx, again); err == nil {
				t.tell(Back, nil)
				t.tell(Ended, c.Wait(ctx))
			} else {
				t.tell(Ended, err)
			}
		})
	}
	t.tell(Open, nil)
	wg.Wait()
	return nil
}
