package ssh

import (
	"errors"
	"io"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
)

// stream is one of the outputs of a command on its way to the caller.
type stream struct {
	from    io.Reader
	to      *gate // nil drops all
	epoch   time.Time
	waiting atomic.Int64 // since when it waits for the server, as time since epoch; -1 while the caller has not taken what is there
	resumed atomic.Int64 // when the caller had last taken what was there, after a while
	bytes   atomic.Int64 // so many have come
	ended   chan struct{}
}

func newStream(from io.Reader, to *gate) *stream {
	return &stream{from: from, to: to, epoch: time.Now(), ended: make(chan struct{})}
}

// shortWrite is what a Write of the caller's may take without being a stall.
const shortWrite = 10 * time.Millisecond

// writePatience is what the end of a command waits for a Write of the caller's.
const writePatience = 100 * time.Millisecond

var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// copy runs until the channel has no more. It always reads to the end, so that
// nothing is kept in memory for a channel that was given up.
func (s *stream) copy(broken chan<- error) {
	defer close(s.ended)
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	for {
		s.waiting.Store(int64(time.Since(s.epoch)))
		n, err := s.from.Read(buf[:])
		if n > 0 {
			s.bytes.Add(int64(n))
			s.waiting.Store(-1)
			began := time.Since(s.epoch)
			if failed := s.to.write(buf[:n]); failed != nil {
				s.to.shut.Store(true)
				broken <- failed // there is room for one of each
			}
			if ended := time.Since(s.epoch); ended-began > shortWrite {
				s.resumed.Store(int64(ended))
			}
		}
		if err != nil {
			s.waiting.Store(int64(time.Since(s.epoch)))
			if s.to != nil {
				s.to.ended()
			}
			return
		}
	}
}

// stalled reports whether the caller has not taken what is there.
func (s *stream) stalled() bool { return s.waiting.Load() == -1 }

// since returns since when nothing has come.
func (s *stream) since() time.Time { return s.epoch.Add(time.Duration(max(s.waiting.Load(), 0))) }

// gate is what writes to a Writer of the caller's, one at a time, and not any
// more when Wait has returned.
type gate struct {
	to    io.Writer
	slot  chan struct{} // holds one who writes
	shut  atomic.Bool
	cut   atomic.Bool  // the command was given up, so the end of its output is not that of the file
	users atomic.Int32 // streams that have not ended
}

func newGate(to io.Writer) *gate {
	if to == nil {
		return nil
	}
	g := &gate{to: to, slot: make(chan struct{}, 1)}
	g.users.Store(1)
	return g
}

// gates returns the gates of both outputs, which are one where their Writers
// are: then it is written to by one goroutine at a time, as in os/exec.
func gates(stdout, stderr io.Writer) (out, err *gate) {
	out = newGate(stdout)
	if out != nil && stderr != nil && reflect.TypeOf(stdout).Comparable() && stdout == stderr {
		out.users.Store(2)
		return out, out
	}
	return out, newGate(stderr)
}

func (g *gate) write(p []byte) error {
	if g == nil || g.shut.Load() {
		return nil
	}
	g.slot <- struct{}{}
	defer func() { <-g.slot }()
	if g.shut.Load() {
		return nil
	}
	n, err := g.to.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

// ended ends a pipe when the last of its streams has. Who reads the output of a
// command that was given up is told so by close.
func (g *gate) ended() {
	if pipe, ok := g.to.(*io.PipeWriter); ok && g.users.Add(-1) == 0 && !g.cut.Load() {
		_ = pipe.Close()
	}
}

// close lets nothing through any more. It waits for a Write that is under way,
// but not for one that does not return.
func (g *gate) close(cause error) {
	if g == nil {
		return
	}
	g.shut.Store(true)
	if pipe, ok := g.to.(*io.PipeWriter); ok {
		_ = pipe.CloseWithError(cause) // nil is the end of the file
	}
	timer := time.NewTimer(writePatience)
	defer timer.Stop()
	select {
	case g.slot <- struct{}{}:
		<-g.slot
	case <-timer.C:
	}
}

// feed copies the caller's input to the command and ends it. An input that
// fails is not ended, or the command would take a part for the whole.
func (s *session) feed(from io.Reader) {
	input := &remembering{Reader: from}
	_, _ = io.Copy(struct{ io.Writer }{s.channel}, input) // an error of the channel is seen elsewhere
	if input.err != nil {
		s.broken <- input.err
		return
	}
	_ = s.channel.CloseWrite()
}

// remembering is a Reader that knows its error.
type remembering struct {
	io.Reader
	err error
}

func (r *remembering) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// Buffer keeps the beginning of what is written to it, and counts the rest, so
// that no command can fill the memory. It may be read while it is written.
type Buffer struct {
	Limit int // bytes that are kept; zero means 16 MiB

	mu      sync.Mutex
	kept    []byte
	dropped int64
}

// Write keeps what there is room for. It never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	limit := b.Limit
	if limit <= 0 {
		limit = defaultMaxOutput
	}
	room := min(len(p), limit-len(b.kept))
	b.kept = append(b.kept, p[:room]...)
	b.dropped += int64(len(p) - room)
	return len(p), nil
}

// Bytes returns a copy of what was kept.
func (b *Buffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]byte(nil), b.kept...)
}

// Dropped returns how many bytes were not kept: the output is truncated if it
// is not zero.
func (b *Buffer) Dropped() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}
