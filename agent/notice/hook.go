//go:build linux

package notice

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/state"
)

const (
	// DefaultSocket is where the agent listens for who gives notice.
	DefaultSocket = "/run/lifeline/agent.sock"

	hookTime    = 5 * time.Second // for a question to come, and for an answer to be read
	mostHooks   = 8               // at a time
	acceptAgain = time.Second     // after one that could not be accepted
	mostLine    = 4 << 10
)

// question is what who gives notice sends, and reply what it gets when all is
// done: each is a line of JSON.
type question struct {
	Why string `json:"why"`
}

type reply struct {
	Act   *state.Act `json:"act,omitempty"`
	Error string     `json:"error,omitempty"`
}

// Hook hears from programs of this machine that it is about to go, [Give], on a
// unix socket that nobody may use but root and who runs the agent.
type Hook struct {
	Path string // of the socket

	// Going does what must be done, and returns what came of it.
	Going func(ctx context.Context, why string) (state.Act, error)
}

// Listen makes the socket. One that a dead agent left is replaced; that of a
// living one is an error.
func (h *Hook) Listen(ctx context.Context) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(h.Path), 0o700); err != nil {
		return nil, fmt.Errorf("socket for notices: %w", err)
	}
	l, err := listen(ctx, h.Path)
	if errors.Is(err, unix.EADDRINUSE) {
		var d net.Dialer
		c, dead := d.DialContext(ctx, "unix", h.Path)
		if dead == nil {
			c.Close()
			return nil, fmt.Errorf("socket for notices: another agent listens at %s: stop that one, or name another file", h.Path)
		}
		if info, gone := os.Lstat(h.Path); gone == nil && info.Mode().Type() != os.ModeSocket { // which refuses too
			return nil, fmt.Errorf("socket for notices: %s is there, and is no socket: name another file", h.Path)
		}
		if errors.Is(dead, unix.ECONNREFUSED) && os.Remove(h.Path) == nil {
			l, err = listen(ctx, h.Path)
		}
	}
	if err == nil {
		err = os.Chmod(h.Path, 0o600) // who is faster is asked who it is
		if err != nil {
			l.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("socket for notices: %w", err)
	}
	return l, nil
}

func listen(ctx context.Context, path string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "unix", path)
}

// Serve answers on l until ctx ends, closes it, and returns nil then. Who waits for
// an answer gets it first.
func (h *Hook) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	places := make(chan struct{}, mostHooks)
	var open sync.WaitGroup
	defer open.Wait()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("socket for notices: %w", err)
		}
		if err != nil { // of who asked, or there are too many files open: the next may be answered
			select {
			case <-time.After(acceptAgain):
			case <-ctx.Done():
			}
			continue
		}
		select {
		case places <- struct{}{}:
			open.Go(func() {
				defer func() { <-places }()
				defer c.Close()
				h.answer(context.WithoutCancel(ctx), c) // Going has a bound
			})
		default:
			c.Close()
		}
	}
}

func (h *Hook) answer(ctx context.Context, c net.Conn) {
	r := reply{}
	var q question
	_ = c.SetReadDeadline(time.Now().Add(hookTime)) // of a socket that is open
	err := mine(c)
	if err == nil {
		err = readLine(c, &q)
	}
	if err == nil {
		var a state.Act
		if a, err = h.Going(ctx, q.Why); err == nil {
			r.Act = &a
		}
	}
	if err != nil {
		r.Error = err.Error()
	}
	_ = c.SetWriteDeadline(time.Now().Add(hookTime))
	_ = json.NewEncoder(c).Encode(r) // who asked may have gone
}

// mine returns an error unless the other end is of root or of who runs this.
func mine(c net.Conn) error {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var who *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { who, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	if who.Uid != 0 && int(who.Uid) != os.Geteuid() {
		return errNotRoot
	}
	return nil
}

func readLine(c net.Conn, into any) error {
	line, err := bufio.NewReader(io.LimitReader(c, mostLine)).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("no line came: %w", err)
	}
	return json.Unmarshal(line, into)
}

var errNotRoot = errors.New("only root may give notice")

// ErrNobody means that no agent listens.
var ErrNobody = errors.New("no agent listens there")

// Give tells the agent that listens at path that the machine is about to go, and
// why, and returns what came of it when all is done, or when ctx ends. It matches
// [ErrNobody] where there is no agent.
func Give(ctx context.Context, path, why string) (state.Act, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return state.Act{}, fmt.Errorf("%s: %w", path, ErrNobody)
	}
	if errors.Is(err, unix.EACCES) {
		return state.Act{}, errNotRoot
	}
	if err != nil {
		return state.Act{}, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	// Who may not give notice is told so without having been heard.
	if err := json.NewEncoder(c).Encode(question{why}); err != nil && !errors.Is(err, unix.EPIPE) {
		return state.Act{}, err
	}
	var r reply
	switch err := readLine(c, &r); {
	case err != nil && ctx.Err() != nil:
		return state.Act{}, context.Cause(ctx)
	case err != nil:
		return state.Act{}, fmt.Errorf("the agent gave no answer: %w", err)
	case r.Error != "":
		return state.Act{}, errors.New(r.Error)
	case r.Act == nil:
		return state.Act{}, errors.New("the agent gave no answer")
	}
	return *r.Act, nil
}
