//go:build linux

package websocket

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/examples/internal/stage"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// A server greets every client, and then answers pings unless it hangs. It
// refuses the second attempt, with a hint.
type server struct {
	hangs atomic.Bool
	asked atomic.Int32
	http  http.Server
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.asked.Add(1) == 2 {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s.http.RegisterOnShutdown(cancel)
	if conn.Write(ctx, websocket.MessageText, []byte("hello")) != nil {
		return
	}
	if s.hangs.Load() {
		<-ctx.Done()
		return
	}
	_, _, _ = conn.Read(ctx)
}

// play connects a client to a server on the far machine. It returns what the
// client receives and loses.
func play(t *testing.T, srv *server) (s *stage.Stage, received chan string, lost chan error) {
	t.Helper()
	s = stage.New(t)
	srv.http.Handler = srv
	ln, served := s.ListenFar(stage.Far+":80"), make(chan error, 1)
	go func() { served <- srv.http.Serve(ln) }()
	transport := &http.Transport{DialContext: s.Dial}
	received, lost = make(chan string, 10), make(chan error, 10)
	client := &Client{
		URL:       "ws://" + stage.Far,
		HTTP:      &http.Client{Transport: transport},
		Heartbeat: &lifeline.Heartbeat{Every: time.Second, Within: 20 * time.Second},
		Received:  func(message []byte) { received <- string(message) },
		Lost:      func(err error) { lost <- err },
	}
	if srv.hangs.Load() {
		client.Heartbeat.Within = time.Second
	}
	ctx, cancel := context.WithCancel(context.Background())
	stayed := make(chan error, 1)
	go func() { stayed <- client.Stay(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stayed; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		transport.CloseIdleConnections()
		_ = srv.http.Shutdown(context.Background())
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	if got := <-received; got != "hello" {
		t.Fatalf("received %q", got)
	}
	return s, received, lost
}

// The server's machine dies and comes back, and so does the client, after a
// server that is not ready has told it when.
func TestServerDies(t *testing.T) {
	t.Parallel()
	s, received, lost := play(t, &server{})
	time.Sleep(2500 * time.Millisecond) // some pings
	died := s.Die()
	stage.Silent(t, stage.Within(t, died, func() error { return <-lost }), stage.Far+":80")
	s.Return()
	began := time.Now()
	for {
		select {
		case err := <-lost:
			t.Logf("not yet: %v", err)
			continue
		case got := <-received:
			if took := time.Since(began); got != "hello" || took < time.Second {
				t.Errorf("received %q after %v", got, took)
			}
		case <-time.After(time.Minute):
			t.Error("the client does not come back")
		}
		return
	}
}

// The server's machine lives, and the program hangs.
func TestServerHangs(t *testing.T) {
	t.Parallel()
	srv := &server{}
	srv.hangs.Store(true)
	_, _, lost := play(t, srv)
	began := time.Now()
	err := <-lost
	var known *lifeline.Error
	if took := time.Since(began); took > 10*time.Second || !errors.Is(err, lifeline.ErrMute) || !errors.As(err, &known) || known.Peer != "ws://"+stage.Far {
		t.Errorf("after %v: %v", took, err)
	}
	t.Log(err)
}
