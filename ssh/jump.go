package ssh

import (
	"context"
	"fmt"
	"time"
)

// Jump connects to a host by way of this client's server, as ssh -J does. The
// name is resolved there. It returns within the context and the config's
// budgets: Connect is that of the way, which is a channel of this connection.
//
// When this connection ends, so does that of the result, for the same cause;
// closing the result leaves this connection open. Each asks its own server for
// signs of life. Longer chains are made by Jump of the result.
func (c *Client) Jump(ctx context.Context, host string, config Config) (*Client, error) {
	began, config := time.Now(), config.settled()
	if err := config.check(); err != nil {
		return nil, &Error{Phase: Connect, Host: host, Err: err}
	}
	failed := func(err error) (*Client, error) {
		return nil, &Error{Phase: Connect, Host: host, Elapsed: time.Since(began), Err: fmt.Errorf("by way of %s: %w", c.host, err)}
	}
	limited, cancel := within(ctx, "Connect", config.Budgets.Connect)
	defer cancel()
	conn, err := c.dial(limited, "tcp", address(host))
	if err != nil {
		return failed(err)
	}
	inner, err := newClient(ctx, conn, host, config, began)
	if err != nil {
		return nil, err
	}
	c.crew.start(func() {
		select {
		case <-c.wire.dead:
			inner.wire.kill(c.passed())
		case <-inner.wire.dead:
		}
	})
	return inner, nil
}

// passed is why what goes by way of this connection ends with it.
func (c *Client) passed() error { return fmt.Errorf("the way by %s: %w", c.host, c.wire.cause) }
