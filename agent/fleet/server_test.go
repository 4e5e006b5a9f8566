package fleet

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/lifelinetest"
	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// server is all hosts of a test in one: which of them is meant is the name of
// the user. Its commands are "exit N", "say TEXT", "sleep TIME", "flood" (output
// without an end), "die" (the connection ends) and "freeze" (as SIGSTOP does).
type server struct {
	ln     net.Listener
	memory *lifelinetest.Network // nil: loopback
	conns  sync.WaitGroup

	mu       sync.Mutex
	ran      map[string][]string // by host
	running  int
	mostAt   int // how many ran at a time
	connects atomic.Int32
	open     []net.Conn
}

// serve has them on loopback.
func serve(t *testing.T) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, ln, nil)
}

// serveInMemory has them on a network in memory, for a bubble.
func serveInMemory(t *testing.T) *server {
	t.Helper()
	network := &lifelinetest.Network{}
	ln, err := network.Listen("hosts:22")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, ln, network)
}

// bubble runs a test in a bubble of package synctest: its bounds are exact,
// however slow the machine is.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(time.Hour) }) // for what ends by itself
		test(t)
	})
}

func serveOn(t *testing.T, ln net.Listener, memory *lifelinetest.Network) *server {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := xssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	config := &xssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(signer)
	s := &server{ln: ln, memory: memory, ran: map[string][]string{}}
	s.conns.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			s.connects.Add(1)
			s.mu.Lock()
			s.open = append(s.open, conn)
			s.mu.Unlock()
			s.conns.Go(func() { s.serve(&freezer{Conn: conn, closed: make(chan struct{})}, config) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		s.conns.Wait()
	})
	return s
}

func (s *server) serve(f *freezer, config *xssh.ServerConfig) {
	defer f.Close()
	conn, channels, requests, err := xssh.NewServerConn(f, config)
	if err != nil {
		return
	}
	s.conns.Go(func() {
		for r := range requests {
			_ = r.Reply(false, nil)
		}
	})
	for channel := range channels {
		ch, requests, err := channel.Accept()
		if err != nil {
			return
		}
		s.conns.Go(func() {
			for r := range requests {
				_ = r.Reply(true, nil)
				if r.Type == "exec" {
					var line struct{ Text string }
					_ = xssh.Unmarshal(r.Payload, &line)
					s.conns.Go(func() { s.exec(f, conn.User(), ch, line.Text) })
				}
			}
		})
	}
}

func (s *server) exec(f *freezer, host string, ch xssh.Channel, line string) {
	s.mu.Lock()
	s.ran[host] = append(s.ran[host], line)
	s.running++
	s.mostAt = max(s.mostAt, s.running)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.running--
		s.mu.Unlock()
	}()
	status := uint32(0)
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "exit":
		status = uint32(rest[0] - '0')
	case "say":
		_, _ = io.WriteString(ch, rest+"\n")
		_, _ = io.WriteString(ch.Stderr(), "err "+rest+"\n")
	case "sleep":
		d, _ := time.ParseDuration(rest)
		select {
		case <-time.After(d):
		case <-f.closed:
		}
	case "flood":
		for buf := make([]byte, 32<<10); ; {
			if _, err := ch.Write(buf); err != nil {
				return
			}
		}
	case "die":
		time.Sleep(100 * time.Millisecond) // after the word that it began
		f.Close()
	case "freeze":
		f.frozen.Store(true)
		return
	}
	_, _ = ch.SendRequest("exit-status", false, xssh.Marshal(struct{ Status uint32 }{status}))
	_ = ch.Close()
}

// freezer is a connection that can stop as a stopped process does: its kernel
// still acknowledges.
type freezer struct {
	net.Conn
	frozen atomic.Bool
	once   sync.Once
	closed chan struct{}
}

func (f *freezer) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	if err != nil {
		f.Close()
	} else if f.frozen.Load() {
		_, _ = io.Copy(io.Discard, f.Conn) // until the client is gone
		f.Close()
		return 0, io.EOF
	}
	return n, err
}

func (f *freezer) Write(p []byte) (int, error) {
	if f.frozen.Load() {
		<-f.closed
		return 0, net.ErrClosed
	}
	return f.Conn.Write(p)
}

func (f *freezer) Close() error {
	f.once.Do(func() { close(f.closed) })
	return f.Conn.Close()
}

// drop ends all connections.
func (s *server) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.open {
		conn.Close()
	}
}

// dial connects to a host of the server.
func (s *server) dial(ctx context.Context, host string) (*Conn, error) {
	return s.dialTo(ctx, s.ln.Addr().String(), host)
}

func (s *server) dialTo(ctx context.Context, addr, host string) (*Conn, error) {
	config := ssh.Config{User: host, HostKey: xssh.InsecureIgnoreHostKey(), Liveness: ssh.Liveness{Silence: 2 * time.Second}}
	var client *ssh.Client
	var err error
	if s.memory == nil {
		client, err = ssh.Dial(ctx, addr, config)
	} else {
		var conn net.Conn
		if conn, err = s.memory.DialContext(ctx, "tcp", addr); err != nil {
			return nil, &ssh.Error{Phase: ssh.Connect, Host: addr, Err: err}
		}
		client, err = ssh.NewClient(ctx, conn, addr, config)
	}
	if err != nil {
		return nil, err
	}
	return &Conn{Client: client}, nil
}
