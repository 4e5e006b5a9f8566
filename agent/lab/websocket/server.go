// Package websocket is the two ends of the story as their users write them: a
// server that keeps a WebSocket to each client, and clients that wait for what
// it says. Neither sets a deadline or a socket option, so both wait for as long
// as the kernel does.
package websocket

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// Server is a handler that keeps a WebSocket to each client until reading from
// it fails.
type Server struct {
	Heartbeat time.Duration   // how often it writes to each client; 0: never
	Ended     func(err error) // is told, on any goroutine, what ended a connection
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	ctx, cancel := context.WithCancel(context.Background()) // that of r is for HTTP
	defer cancel()
	if s.Heartbeat > 0 {
		go beat(ctx, c, s.Heartbeat)
	}
	s.Ended(read(ctx, c))
}

// beat writes to the client every so often, at a time of each client's own, so
// that not all are written to at once. A write to a dead client succeeds: the
// kernel takes it.
func beat(ctx context.Context, c *websocket.Conn, every time.Duration) {
	for wait := rand.N(every); ; wait = every {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if c.Write(ctx, websocket.MessageText, []byte("heartbeat")) != nil {
			return // reading fails too
		}
	}
}

// read reads messages until that fails.
func read(ctx context.Context, c *websocket.Conn) error {
	for {
		if _, _, err := c.Read(ctx); err != nil {
			return err
		}
	}
}
