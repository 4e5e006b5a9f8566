package ssh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	xssh "golang.org/x/crypto/ssh"
)

// session is a channel on which a command runs. What x/crypto calls a Session
// is not used: it waits without a bound.
type session struct {
	client  *Client
	channel xssh.Channel
	budgets Budgets
	began   time.Time

	exit   chan Exit     // what the server said of the end, once at most
	closed chan struct{} // closed with the channel, by the server or by the end of the connection
	broken chan error    // what a Reader or Writer of the caller's said

	streams []*stream     // what comes from the command
	silent  chan struct{} // closed when all streams have ended
}

// open opens a channel for a command within the budget. If it is confirmed only
// after that, it is closed then.
func (c *Client) open(ctx context.Context, budgets Budgets, began time.Time) (*session, error) {
	if c.abandoned.Load() >= mostAbandoned {
		return nil, c.fail(Open, NotSent, began, ErrTooManyAbandoned)
	}
	limited, cancel := within(ctx, "ChannelOpen", budgets.ChannelOpen)
	defer cancel()
	s, err := await(limited, c, func() (*session, error) {
		channel, requests, err := c.conn.OpenChannel("session", nil)
		if err != nil {
			return nil, err
		}
		s := &session{
			client: c, channel: channel, budgets: budgets, began: began,
			exit: make(chan Exit, 1), closed: make(chan struct{}), broken: make(chan error, 3), silent: make(chan struct{}),
		}
		c.crew.start(func() { s.serve(requests) })
		return s, nil
	}, func(s *session) {
		s.read(nil, nil)
		s.abandon(nil)
	})
	if err == nil {
		return s, nil
	}
	if refused := (*xssh.OpenChannelError)(nil); errors.As(err, &refused) {
		err = fmt.Errorf("%w: %w", ErrRefused, err)
	} else if limited.Err() == nil {
		err = c.because(err)
	}
	return nil, c.fail(Open, NotSent, began, err)
}

// serve takes what the server asks on the channel until it is closed: the exit
// status is such a request. It must never stop before, or x/crypto reads no more.
func (s *session) serve(requests <-chan *xssh.Request) {
	defer close(s.closed)
	for request := range requests {
		exit, ok := parseExit(request.Type, request.Payload)
		if ok {
			select {
			case s.exit <- exit:
			default: // the first counts
			}
		}
		_ = request.Reply(ok, nil)
	}
}

// parseExit reads the requests exit-status and exit-signal (RFC 4254, section
// 6.10).
func parseExit(kind string, payload []byte) (exit Exit, ok bool) {
	switch kind {
	case "exit-status":
		var status struct{ Status uint32 }
		err := xssh.Unmarshal(payload, &status)
		return Exit{Status: int(status.Status)}, err == nil
	case "exit-signal":
		var signal struct {
			Name          string
			Core          bool
			Message, Lang string
		}
		err := xssh.Unmarshal(payload, &signal)
		return Exit{Status: -1, Signal: Signal(signal.Name), Core: signal.Core, Message: signal.Message}, err == nil && signal.Name != ""
	}
	return Exit{}, false
}

// read begins to copy what the command says, to nowhere where there is no gate.
func (s *session) read(stdout, stderr *gate) {
	s.streams = []*stream{newStream(s.channel, stdout), newStream(s.channel.Stderr(), stderr)}
	first, second := s.streams[0], s.streams[1]
	s.client.crew.start(func() { first.copy(s.broken) })
	s.client.crew.start(func() {
		second.copy(s.broken)
		<-first.ended
		close(s.silent)
	})
}

// request makes a request on the channel within the budget, and an error of a
// refusal.
func (s *session) request(ctx context.Context, kind string, payload any, then func()) error {
	limited, cancel := within(ctx, "Request", s.budgets.Request)
	defer cancel()
	ok, err := await(limited, s.client, func() (bool, error) {
		ok, err := s.channel.SendRequest(kind, true, xssh.Marshal(payload))
		if err == nil && ok && then != nil {
			then()
		}
		return ok, err
	}, nil)
	switch {
	case err == nil && !ok:
		return fmt.Errorf("%w: request %s", ErrRefused, kind)
	case err != nil && limited.Err() == nil:
		return s.client.because(fmt.Errorf("%w: request %s: %w", ErrNoStatus, kind, err))
	}
	return err
}

// tell makes a request within the budget of which no answer is asked.
func (s *session) tell(ctx context.Context, kind string, payload any) error {
	limited, cancel := within(ctx, "Request", s.budgets.Request)
	defer cancel()
	_, err := await(limited, s.client, func() (bool, error) { return s.channel.SendRequest(kind, false, xssh.Marshal(payload)) }, nil)
	if err != nil && limited.Err() == nil {
		return s.client.because(err)
	}
	return err
}

// abandon gives the channel up, without waiting: kill is called, if there is
// one, then the channel is closed. Whatever still comes is read and dropped. A
// channel that the server has not closed too after a while counts until it has.
func (s *session) abandon(kill func()) {
	select {
	case <-s.closed:
		return
	default:
	}
	s.client.crew.start(func() {
		if kill != nil {
			kill()
		}
		s.client.shut(s.channel, s.closed)
	})
}

// stop gives a command up that may run: it is sent a signal, gets the budget
// Cancel to obey, and is sent SIGKILL and abandoned. It returns when the command
// has ended, with all its output, or the budget is used up.
func (s *session) stop(polite Signal) {
	polite = cmp.Or(polite, SIGTERM)
	for _, stream := range s.streams {
		if stream.to != nil {
			stream.to.cut.Store(true)
		}
	}
	late := make(chan struct{})
	s.abandon(func() {
		s.signal(polite)
		select {
		case <-late:
			s.signal(SIGKILL)
		case <-s.silent:
		}
	})
	timer := time.NewTimer(s.budgets.Cancel)
	defer timer.Stop()
	defer close(late)
	for _, end := range []<-chan struct{}{s.silent, s.closed} {
		select {
		case <-end:
		case <-timer.C:
			return
		}
	}
}

// signal sends a signal; it may wait for ever.
func (s *session) signal(name Signal) {
	_, _ = s.channel.SendRequest("signal", false, xssh.Marshal(struct{ Name string }{string(name)}))
}
