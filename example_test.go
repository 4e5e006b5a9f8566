package lifeline_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/lifeline-go/lifeline"
)

// Connections of an HTTP client, under a policy of its own.
func ExampleDialer() {
	dialer := lifeline.Dialer{Policy: lifeline.Policy{Silence: 10 * time.Second}}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = dialer.DialContext
	client := &http.Client{Transport: transport}
	_ = client
}

// What is dialed with the context of a scope, by whoever does it, is closed with
// the scope, which says who left it open.
func ExampleNewScope() {
	build := func(ctx context.Context) error { return nil } // which calls what others wrote
	scope := lifeline.NewScope("build 42")
	defer func() {
		for _, left := range scope.Close() {
			fmt.Println("left open:", left.Remote, "by", left.Site())
		}
	}()
	if err := build(scope.Context(context.Background())); err != nil {
		fmt.Println(err)
	}
}

// What the recommended policy gives depends on the system only where a peer does
// not read.
func ExamplePolicy_Bound() {
	b := lifeline.Policy{}.Bound()
	fmt.Println(b.Connect, b.Idle)
	// Output: 10s 20s
}

// A heartbeat of many WebSockets, here as coder/websocket has them: its Ping
// waits for the pong. With gorilla/websocket, ping writes the control message
// and waits for what the pong handler sends on a channel, or for the context;
// with x/crypto/ssh it sends a keepalive request, and dead closes the client.
func ExampleHeartbeat() {
	var beats lifeline.Heartbeat // one for the program
	serve := func(conn webSocket) {
		beat := beats.Add("10.0.0.7:443", conn.Ping, func(err error) { conn.CloseNow() })
		defer beat.Stop()
		for {
			if _, err := conn.Read(); err != nil {
				return
			}
			beat.Alive() // spares the question to those who are heard from anyway
		}
	}
	_ = serve
	fmt.Println(beats.Bound())
	// Output: 35s
}

type webSocket interface {
	Ping(ctx context.Context) error
	Read() ([]byte, error)
	CloseNow() error
}

// A client that stays connected, and does not come back at the same moment as
// all others.
func ExampleBackoff() {
	var (
		dialer lifeline.Dialer
		again  lifeline.Backoff
	)
	stay := func(ctx context.Context) error {
		for {
			conn, err := dialer.DialContext(ctx, "tcp", "10.0.0.7:443")
			if err == nil {
				_, err = conn.Read(make([]byte, 1))
				conn.Close()
				again.Reset()
			}
			if err != nil && !errors.Is(err, lifeline.ErrSilent) && !errors.Is(err, lifeline.ErrUnanswered) {
				return err
			}
			if err := again.Wait(ctx); err != nil {
				return err
			}
		}
	}
	_ = stay
}
