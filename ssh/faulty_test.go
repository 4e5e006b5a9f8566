package ssh_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
)

// TestMain is also the program that [relay] runs.
func TestMain(m *testing.M) {
	if addr := os.Getenv("LIFELINE_RELAY"); addr != "" {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			os.Exit(1)
		}
		go func() { _, _ = io.Copy(conn, os.Stdin) }()
		_, _ = io.Copy(os.Stdout, conn)
		os.Exit(0)
	}
	leakcheck.Main(m)
}

// A fault is what the server does wrong. The zero value is a server that works,
// and understands the commands of [faulty.exec].
type fault struct {
	speaks  func(conn net.Conn)                                 // instead of SSH
	freeze  func(write int) bool                                // before its so many-th write it freezes: reads and writes nothing any more
	opens   func(s *faulty, channel xssh.NewChannel) (ok bool)  // instead of accepting
	decides func(s *faulty, kind string, n int) (silently bool) // about a request on a channel; true leaves it unanswered
	global  func(*xssh.Request)                                 // instead of refusing
	config  func(*xssh.ServerConfig)
}

// faulty is one connection to such a server.
type faulty struct {
	t     testing.TB
	fault fault
	conn  *freezer
	ssh   *xssh.ServerConn
	ready chan struct{}
}

var hostKey = func() xssh.Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	signer, err := xssh.NewSignerFromKey(key)
	if err != nil {
		panic(err)
	}
	return signer
}()

// serve serves a connection until its end.
func serve(t testing.TB, conn net.Conn, f fault) *faulty {
	t.Helper()
	s := &faulty{t: t, fault: f, conn: &freezer{Conn: conn, freezes: f.freeze, closed: make(chan struct{})}, ready: make(chan struct{})}
	t.Cleanup(func() { s.conn.Close() })
	go func() {
		defer s.conn.Close()
		if f.speaks != nil {
			f.speaks(s.conn)
			return
		}
		config := &xssh.ServerConfig{NoClientAuth: true}
		config.AddHostKey(hostKey)
		if f.config != nil {
			f.config(config)
		}
		server, channels, requests, err := xssh.NewServerConn(s.conn, config)
		if err != nil {
			return
		}
		s.ssh = server
		close(s.ready)
		go s.answer(requests)
		for channel := range channels {
			if f.opens == nil || f.opens(s, channel) {
				go s.session(channel)
			}
		}
	}()
	return s
}

func (s *faulty) answer(requests <-chan *xssh.Request) {
	for request := range requests {
		if s.fault.global != nil {
			s.fault.global(request)
			continue
		}
		_ = request.Reply(false, nil)
	}
}

// session runs the commands of one channel.
func (s *faulty) session(channel xssh.NewChannel) {
	ch, requests, err := channel.Accept()
	if err != nil {
		return
	}
	signals := make(chan string, 10)
	defer close(signals)
	n := 0
	for request := range requests {
		n++
		if s.fault.decides != nil && s.fault.decides(s, request.Type, n) {
			continue
		}
		var word struct {
			Text string
			Rest []byte `ssh:"rest"`
		}
		_ = xssh.Unmarshal(request.Payload, &word)
		switch request.Type {
		case "signal":
			select {
			case signals <- word.Text:
			default:
			}
		case "exec":
			_ = request.Reply(true, nil)
			go s.exec(ch, word.Text, signals)
		default:
			_ = request.Reply(request.Type != "env" || !strings.HasPrefix(word.Text, "BAD"), nil)
		}
	}
}

func exit(ch xssh.Channel, status int) {
	_, _ = ch.SendRequest("exit-status", false, xssh.Marshal(struct{ S uint32 }{uint32(status)}))
}

// exec is the shell of this server.
func (s *faulty) exec(ch xssh.Channel, line string, signals <-chan string) {
	verb, rest, _ := strings.Cut(line, " ")
	number, _ := strconv.Atoi(rest)
	switch verb {
	case "exit":
		exit(ch, number)
	case "echo":
		fmt.Fprintln(ch, rest)
		fmt.Fprintln(ch.Stderr(), "errors")
		exit(ch, 0)
	case "cat":
		_, _ = io.Copy(ch, ch)
		exit(ch, 0)
	case "yes": // so many bytes, or for ever
		for block := make([]byte, 32<<10); number >= 0; number-- {
			if _, err := ch.Write(block); err != nil {
				return
			}
			if number > 1000 { // or time would never pass in a bubble
				time.Sleep(time.Millisecond)
			}
			if number == 0 {
				exit(ch, 0)
				_ = ch.Close()
				return
			}
		}
	case "drip": // a byte a second
		for {
			if _, err := ch.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	case "say": // says something, and nothing more
		fmt.Fprint(ch, rest)
		for range signals { // ignores them
		}
		return
	case "obey": // ends by the first signal
		fmt.Fprint(ch, "working")
		if name, ok := <-signals; ok {
			fmt.Fprint(ch, ", ending")
			_, _ = ch.SendRequest("exit-signal", false, xssh.Marshal(struct {
				Name     string
				Core     bool
				Msg, Lan string
			}{name, false, "told to", ""}))
		}
	case "background": // exits, and a child keeps the output open
		fmt.Fprintln(ch, "hi")
		exit(ch, number)
		return
	case "requests": // so many that nobody answers
		for range number {
			_, _ = ch.SendRequest("nonsense@example.com", false, nil)
			_, _, _ = s.ssh.SendRequest("nonsense@example.com", false, nil)
		}
		exit(ch, 0)
	case "close":
	case "die":
		fmt.Fprint(ch, "last words")
		time.Sleep(time.Second)
		_ = s.conn.Close()
	case "freeze":
		fmt.Fprint(ch, "last words")
		time.Sleep(time.Second)
		s.conn.freeze()
	}
	_ = ch.Close()
}

// freezer is a connection that can freeze as a stopped process does: its peer's
// kernel still takes what it is sent.
type freezer struct {
	net.Conn
	freezes func(write int) bool
	mu      sync.Mutex
	writes  int
	frozen  bool
	once    sync.Once
	closed  chan struct{}
}

func (f *freezer) freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frozen = true
}

// Read waits when frozen. Write drops what it is given: were it to wait,
// others would wait for its locks, and time in a bubble would stand still.
func (f *freezer) Read(p []byte) (int, error) {
	f.mu.Lock()
	frozen := f.frozen
	f.mu.Unlock()
	if frozen {
		<-f.closed
	}
	n, err := f.Conn.Read(p)
	if err != nil {
		_ = f.Close()
	}
	return n, err
}

func (f *freezer) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.freezes != nil && f.freezes(f.writes) {
		f.frozen = true
	}
	f.writes++
	if f.frozen {
		return len(p), nil
	}
	return f.Conn.Write(p)
}

func (f *freezer) Close() error {
	f.once.Do(func() { close(f.closed) })
	return f.Conn.Close()
}

// pipe returns both ends of a connection in memory that takes any amount of
// data, as kernels do for those of a test. It can be used in a bubble of
// package synctest.
func pipe() (a, b net.Conn) {
	ab, ba := newQueue(), newQueue()
	return &end{in: ba, out: ab}, &end{in: ab, out: ba}
}

type end struct{ in, out *queue }

func (e *end) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *end) Write(p []byte) (int, error) { return e.out.write(p) }
func (e *end) Close() error                { e.in.close(net.ErrClosed); e.out.close(io.EOF); return nil }

func (e *end) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 22} }
func (e *end) RemoteAddr() net.Addr             { return e.LocalAddr() }
func (e *end) SetDeadline(time.Time) error      { return nil }
func (e *end) SetReadDeadline(time.Time) error  { return nil }
func (e *end) SetWriteDeadline(time.Time) error { return nil }

type queue struct {
	mu   sync.Mutex
	cond *sync.Cond
	data []byte
	err  error
}

func newQueue() *queue {
	q := &queue{}
	q.cond = sync.NewCond(&q.mu)
	return q
}

func (q *queue) read(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.data) == 0 && q.err == nil {
		q.cond.Wait()
	}
	if q.err == net.ErrClosed || len(q.data) == 0 {
		return 0, q.err
	}
	n := copy(p, q.data)
	q.data = q.data[n:]
	return n, nil
}

func (q *queue) write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return 0, io.ErrClosedPipe
	}
	q.data = append(q.data, p...)
	q.cond.Broadcast()
	return len(p), nil
}

func (q *queue) close(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil || err == net.ErrClosed {
		q.err = err
	}
	q.cond.Broadcast()
}

// config accepts the key of these servers.
func config() ssh.Config {
	return ssh.Config{User: "somebody", HostKey: xssh.FixedHostKey(hostKey.PublicKey())}
}

// dial connects to a faulty server in memory.
func dial(t testing.TB, c ssh.Config, f fault) (*ssh.Client, *faulty, error) {
	t.Helper()
	near, far := pipe()
	server := serve(t, far, f)
	client, err := ssh.NewClient(context.Background(), near, "faulty", c)
	return client, server, err
}
