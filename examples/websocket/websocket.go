// Package websocket is the recipe for WebSocket clients that stay connected,
// with coder/websocket: a silent server is noticed by the connection, a hung one
// by a heartbeat, and a client that has lost its server comes back spread in
// time.
package websocket

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"

	"github.com/lifeline-go/lifeline"
)

// Client is a WebSocket that stays connected.
type Client struct {
	URL       string
	HTTP      *http.Client         // its transport has the DialContext of a lifeline.Dialer
	Heartbeat *lifeline.Heartbeat  // one for all clients of a program
	Received  func(message []byte) // a message
	Lost      func(err error)      // a connection, or an attempt to make one; in err is a *lifeline.Error if the server went silent
}

// Stay connects, and connects again, until the context is done.
func (c *Client) Stay(ctx context.Context) error {
	var again lifeline.Backoff
	for {
		hint, err := c.once(ctx, &again)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.Lost(err)
		if err := again.WaitAfter(ctx, hint); err != nil {
			return err
		}
	}
}

// once is the life of one connection. It returns when the server said to come
// back, zero when it did not.
func (c *Client) once(ctx context.Context, again *lifeline.Backoff) (hint time.Duration, err error) {
	conn, resp, err := websocket.Dial(ctx, c.URL, &websocket.DialOptions{HTTPClient: c.HTTP})
	if err != nil {
		return retryAfter(resp), err
	}
	defer conn.CloseNow()

	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	beat := c.Heartbeat.Add(c.URL, conn.Ping, end) // Ping waits for the pong
	defer beat.Stop()
	for {
		_, message, err := conn.Read(ctx) // ends with the context
		if err != nil {
			if cause := context.Cause(ctx); errors.Is(cause, lifeline.ErrMute) {
				err = cause
			}
			return 0, err
		}
		again.Reset() // not when connected: a server that accepts and drops has not proved good
		beat.Alive()
		c.Received(message)
	}
}

// retryAfter reads a hint in seconds.
func retryAfter(resp *http.Response) time.Duration {
	if resp == nil {
		return 0
	}
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil {
		return 0
	}
	return time.Duration(min(max(seconds, 0), 3600)) * time.Second
}
