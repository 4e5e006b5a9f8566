//go:build linux

package redis

import (
	"context"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/examples/internal/stage"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
	"github.com/lifeline-go/lifeline/lifelinetest"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

const address = stage.Far + ":6379"

// serve starts a Redis server on the far machine, and returns a client.
func serve(t *testing.T) (*stage.Stage, *redis.Client) {
	t.Helper()
	s := stage.New(t)
	s.Serve(syscall.SIGTERM, address, s.Dir(), need.Program(t, "redis-server"),
		"--bind", stage.Far, "--port", "6379", "--protected-mode", "no", "--save", "", "--appendonly", "no")
	client := Client(redis.Options{Addr: address, MaxRetries: -1}, s.Dial)
	t.Cleanup(func() { client.Close() })
	if err := client.Set(t.Context(), "key", "value", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if value, err := client.Get(t.Context(), "key").Result(); err != nil || value != "value" {
		t.Fatalf("got %q, %v", value, err)
	}
	return s, client
}

func TestWaiting(t *testing.T) {
	t.Parallel()
	s, client := serve(t)
	waits := make(chan error, 1)
	go func() { waits <- client.BLPop(t.Context(), 0, "queue").Err() }()
	time.Sleep(500 * time.Millisecond)
	died := s.Die()
	stage.Silent(t, stage.Within(t, died, func() error { return <-waits }), address)
	s.Return()
	for deadline := time.Now().Add(time.Minute); client.Ping(t.Context()).Err() != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the client does not recover")
		}
	}
}

func TestSubscribed(t *testing.T) {
	t.Parallel()
	s, client := serve(t)
	sub := client.Subscribe(t.Context(), "announcements of the day")
	defer sub.Close()
	if _, err := sub.Receive(t.Context()); err != nil { // the confirmation
		t.Fatal(err)
	}
	died := s.Die()
	err := stage.Within(t, died, func() error { _, err := sub.Receive(t.Context()); return err })
	stage.Silent(t, err, address)
}

// A client for one task, never closed: the scope of its dialer closes what it
// keeps.
func TestScope(t *testing.T) {
	lifelinetest.NoLeaks(t)
	s, _ := serve(t)
	scope := lifeline.NewScope("task")
	client := Client(redis.Options{Addr: address, MaxRetries: -1}, func(ctx context.Context, network, address string) (net.Conn, error) {
		return s.Dial(scope.Context(ctx), network, address) // as lifeline.Dialer{Scope: scope} does
	})
	if err := client.Get(t.Context(), "key").Err(); err != nil {
		t.Error(err)
	}
	if left := scope.Close(); len(left) != 1 || left[0].Remote != address || left[0].Scope != "task" {
		t.Errorf("left were %+v", left)
	}
	if err := client.Get(t.Context(), "key").Err(); err == nil || !strings.Contains(err.Error(), "its scope is closed") {
		t.Errorf("asked after the end of the scope: %v", err)
	}
}
