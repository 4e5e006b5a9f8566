package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"
)

// programWait is what the end of a program may take whose output something
// else, that it has started, keeps open.
const programWait = 100 * time.Millisecond

// DialProgram connects by the standard input and output of a program, as
// OpenSSH does with ProxyCommand. Budgets.Connect bounds its start. The program
// is run as it is given, without a shell; give it a Stderr to see what it has to
// say. With the connection it is killed, on Unix with all that it has started
// (a process group of its own, unless SysProcAttr is given).
func DialProgram(ctx context.Context, program *exec.Cmd, host string, config Config) (*Client, error) {
	began, config := time.Now(), config.settled()
	failed := func(err error) (*Client, error) {
		return nil, &Error{Phase: Connect, Host: config.called(host), Elapsed: time.Since(began), Err: err}
	}
	if err := config.check(); err != nil {
		return failed(err)
	}
	limited, cancel := within(ctx, "Connect", config.Budgets.Connect)
	defer cancel()
	if limited.Err() != nil {
		return failed(context.Cause(limited))
	}
	type outcome struct {
		conn *programConn
		err  error
	}
	outcomes, left := make(chan outcome), make(chan struct{})
	go func() { // a file system may keep it waiting
		conn, err := startProgram(program)
		select {
		case outcomes <- outcome{conn, err}:
		case <-left:
			if err == nil {
				_ = conn.Close()
			}
		}
	}()
	defer close(left)
	select {
	case o := <-outcomes:
		if o.err != nil {
			return failed(fmt.Errorf("starting %s: %w", program.Path, o.err))
		}
		return newClient(ctx, o.conn, host, config, began)
	case <-limited.Done():
		return failed(context.Cause(limited))
	}
}

// programConn is the input and output of a program. Both are pipes, which can be
// closed while somebody waits for them.
type programConn struct {
	program *exec.Cmd
	in      io.WriteCloser
	out     io.ReadCloser
	once    sync.Once
	err     error
}

func startProgram(program *exec.Cmd) (*programConn, error) {
	own(program)
	if program.WaitDelay == 0 {
		program.WaitDelay = programWait
	}
	in, err := program.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := program.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	if err := program.Start(); err != nil {
		return nil, err
	}
	return &programConn{program: program, in: in, out: out}, nil
}

func (c *programConn) Read(p []byte) (int, error)  { return c.out.Read(p) }
func (c *programConn) Write(p []byte) (int, error) { return c.in.Write(p) }

// Close kills the program and waits for its end.
func (c *programConn) Close() error {
	c.once.Do(func() {
		kill(c.program)
		c.err = errors.Join(c.in.Close(), c.out.Close())
		_ = c.program.Wait() // it was killed
	})
	return c.err
}

func (c *programConn) LocalAddr() net.Addr              { return programAddr(c.program.Path) }
func (c *programConn) RemoteAddr() net.Addr             { return programAddr(c.program.Path) }
func (c *programConn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c *programConn) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (c *programConn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// programAddr is the path of a program.
type programAddr string

func (programAddr) Network() string  { return "program" }
func (a programAddr) String() string { return string(a) }
