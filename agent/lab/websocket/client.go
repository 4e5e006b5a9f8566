package websocket

import (
	"context"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

// Client is a WebSocket to a Server.
type Client struct{ conn *websocket.Conn }

// dialer is that of package net with nothing set: keepalive after 15 s, every
// 15 s, 9 times. (http.DefaultTransport has one that begins after 30 s.)
var dialer net.Dialer

var options = &websocket.DialOptions{
	HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}},
}

// Dial connects to the server at url, such as ws://10.77.1.1:30080/.
func Dial(ctx context.Context, url string) (*Client, error) {
	conn, _, err := websocket.Dial(ctx, url, options)
	if err != nil {
		return nil, err
	}
	return &Client{conn}, nil
}

// Wait reads what the server says until that fails, which it returns, or until
// ctx ends.
func (c *Client) Wait(ctx context.Context) error {
	defer c.conn.CloseNow()
	return read(ctx, c.conn)
}
