//go:build linux

package http

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/examples/internal/stage"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/lifelinetest"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// serve serves until the test ends.
func serve(t *testing.T, server *http.Server, run func() error) {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- run() }()
	t.Cleanup(func() {
		server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

func TestClient(t *testing.T) {
	t.Parallel()
	s := stage.New(t)
	release := make(chan struct{})
	defer close(release)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		_, _ = io.WriteString(w, "hello")
	})}
	ln := s.ListenFar(stage.Far + ":80")
	serve(t, server, func() error { return server.Serve(ln) })
	client := Client(s.Dial)
	defer client.CloseIdleConnections()

	post := func(path string) error { // which package http does not repeat
		resp, err := client.Post("http://"+stage.Far+path, "text/plain", nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.ReadAll(resp.Body)
		return err
	}
	if err := post("/"); err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	go func() { waits <- post("/wait") }()
	time.Sleep(500 * time.Millisecond) // until it waits for the answer
	died := s.Die()
	err := stage.Within(t, died, func() error { return <-waits })
	stage.Silent(t, err, stage.Far+":80")
}

func TestServer(t *testing.T) {
	t.Parallel()
	s := stage.New(t)
	events, left := make(chan string), make(chan time.Time, 1)
	watch := Watch(events)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		watch.ServeHTTP(w, r)
		left <- time.Now()
	})}
	ln := s.Listen(stage.Near + ":80")
	serve(t, server, func() error { return server.Serve(ln) })

	client := Client(s.DialFar)
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+stage.Near, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events <- "hello"
	got := make([]byte, len("data: hello"))
	if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != "data: hello" {
		t.Fatalf("got %q, %v", got, err)
	}
	died := s.Die()
	_ = stage.Within(t, died, func() error { <-left; return nil })
}

// A task makes a client of its own and leaves it. Its scope closes what the client
// keeps, and says who asked for it.
func TestScope(t *testing.T) {
	lifelinetest.NoLeaks(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") }))
	defer server.Close()
	task := func(ctx context.Context) error {
		client := Client(new(lifeline.Dialer).DialContext)
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(request)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.ReadAll(resp.Body)
		return err
	}
	for range 3 {
		scope := lifeline.NewScope("task")
		if err := task(scope.Context(t.Context())); err != nil {
			t.Error(err)
		}
		left := scope.Close()
		if len(left) != 1 || left[0].Remote != server.Listener.Addr().String() || !strings.HasSuffix(left[0].Site().Function, ".TestScope") {
			t.Errorf("left were %+v", left)
		}
	}
}
