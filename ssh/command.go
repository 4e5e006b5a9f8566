package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	xssh "golang.org/x/crypto/ssh"
)

// Signal is the name of a signal without SIG, as in RFC 4254, section 6.10.
type Signal = xssh.Signal

// Signals that are often sent; x/crypto has the others.
const (
	SIGHUP  = xssh.SIGHUP
	SIGINT  = xssh.SIGINT
	SIGKILL = xssh.SIGKILL
	SIGTERM = xssh.SIGTERM
	SIGUSR1 = xssh.SIGUSR1
)

// Pty is a terminal for a command. Then its errors come with its output.
type Pty struct {
	Term          string // empty means xterm
	Rows, Columns int    // zero means 24 and 80
	Modes         xssh.TerminalModes
}

// Command is a command on a server, in the shape of [os/exec.Cmd]. It runs once.
// Its fields must not be changed once it has started.
type Command struct {
	// Line is what the shell of the remote user is given to run. It is sent as it
	// is: who puts words of others into it must quote them, see [Quote].
	Line string

	// Env is sent before the command, as NAME=value. A server that refuses one (sshd
	// takes what AcceptEnv names) makes the command fail before it is sent.
	Env []string
	// SendEnv is sent before the command too, as NAME=value, and a server may leave
	// it out without a word: so does OpenSSH with its SendEnv and SetEnv.
	SendEnv []string

	// Stdin is what the command reads; nil is an empty file. Wait does not wait
	// for a Reader that does not return.
	Stdin io.Reader

	// Stdout and Stderr are what is written to while the command runs; nil drops
	// it. If they are the same, one goroutine at a time calls Write. When Wait has
	// returned they are not written to any more, unless a Write has not returned
	// either.
	Stdout, Stderr io.Writer

	// Pty is the command's terminal; nil is none.
	Pty *Pty

	// Budgets are those of the client where they are not given here.
	Budgets Budgets

	// CancelSignal is what a command is sent that is given up, before SIGKILL.
	// Empty means SIGTERM.
	CancelSignal Signal

	client  *Client
	begun   atomic.Bool
	pipes   []*io.PipeWriter
	stdin   *io.PipeReader          // of StdinPipe
	session atomic.Pointer[session] // when it has started
	opened  *session                // the same, already when it was opened; read only when Start has returned
	cancel  context.CancelCauseFunc
	done    chan struct{} // closed when the command is over
	err     error         // read only after done
	exit    atomic.Pointer[Exit]

	mu      sync.Mutex
	buffers []*Buffer // of Output and the like
}

// Command returns a command to run on this connection.
func (c *Client) Command(line string) *Command {
	return &Command{Line: line, client: c, done: make(chan struct{})}
}

// Run starts the command and waits for its end. The error is nil when it exited
// with status 0, and an [*Error] otherwise; when it exited with another status
// or by a signal, that holds an [*ExitError].
func (cmd *Command) Run(ctx context.Context) error {
	if err := cmd.Start(ctx); err != nil {
		return err
	}
	return cmd.Wait(ctx)
}

// Output runs the command and returns what it wrote to its standard output,
// also when it failed. Config.MaxOutput of it is kept; see [Command.Truncated].
func (cmd *Command) Output(ctx context.Context) ([]byte, error) {
	if cmd.Stdout != nil {
		return nil, errors.New("ssh: Command.Stdout is set already: use Run")
	}
	out := cmd.buffer()
	cmd.Stdout = out
	err := cmd.Run(ctx)
	return out.Bytes(), err
}

// CombinedOutput is [Command.Output] for both streams together.
func (cmd *Command) CombinedOutput(ctx context.Context) ([]byte, error) {
	if cmd.Stdout != nil || cmd.Stderr != nil {
		return nil, errors.New("ssh: Command.Stdout or Stderr is set already: use Run")
	}
	out := cmd.buffer()
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run(ctx)
	return out.Bytes(), err
}

func (cmd *Command) buffer() *Buffer {
	b := &Buffer{}
	if cmd.client != nil {
		b.Limit = cmd.client.maxOutput
	}
	cmd.mu.Lock()
	defer cmd.mu.Unlock()
	cmd.buffers = append(cmd.buffers, b)
	return b
}

// Truncated reports whether [Command.Output] or [Command.CombinedOutput] left
// something out.
func (cmd *Command) Truncated() bool {
	cmd.mu.Lock()
	defer cmd.mu.Unlock()
	for _, b := range cmd.buffers {
		if b.Dropped() > 0 {
			return true
		}
	}
	return false
}

// StdinPipe returns what the command will read. Close it to end the input. Its
// Write returns when the command is over.
func (cmd *Command) StdinPipe() (io.WriteCloser, error) {
	if cmd.Stdin != nil {
		return nil, errors.New("ssh: Command.Stdin is set already")
	}
	r, w := io.Pipe()
	cmd.Stdin, cmd.stdin = r, r
	return w, nil
}

// StdoutPipe returns what the command writes to its standard output. Read it to
// its end before calling Wait, as in os/exec.
func (cmd *Command) StdoutPipe() (io.Reader, error) { return cmd.pipe(&cmd.Stdout) }

// StderrPipe is [Command.StdoutPipe] for the standard error.
func (cmd *Command) StderrPipe() (io.Reader, error) { return cmd.pipe(&cmd.Stderr) }

func (cmd *Command) pipe(to *io.Writer) (io.Reader, error) {
	if *to != nil {
		return nil, errors.New("ssh: Command.Stdout or Stderr is set already")
	}
	r, w := io.Pipe()
	*to = w
	cmd.pipes = append(cmd.pipes, w)
	return r, nil
}

// Start starts the command: it returns when the server has said that it did.
// The context is that of the whole command: when it ends, the command is sent
// CancelSignal, and SIGKILL when Budgets.Cancel is over, and is abandoned. After
// an error Wait need not be called.
func (cmd *Command) Start(ctx context.Context) error {
	if cmd.client == nil {
		return errors.New("ssh: the command belongs to no client: make it with Client.Command")
	}
	if cmd.begun.Swap(true) {
		return errors.New("ssh: the command was started before")
	}
	began := time.Now()
	budgets := cmd.Budgets.or(cmd.client.budgets)
	ctx, cancelTotal := within(ctx, "Total", budgets.Total)
	ctx, cmd.cancel = context.WithCancelCause(ctx)
	over := func(err error) {
		cancelTotal()
		cmd.cancel(nil)
		cmd.finish(err)
	}
	s, err := cmd.client.open(ctx, budgets, began)
	if err != nil {
		over(err)
		return err
	}
	cmd.opened = s
	stdout, stderr := gates(cmd.Stdout, cmd.Stderr)
	if fate, err := cmd.send(ctx, s, stdout, stderr); err != nil {
		failed := cmd.client.fail(Request, fate, began, err)
		stdout.close(failed)
		stderr.close(failed)
		over(failed)
		return failed
	}
	cmd.session.Store(s)
	if cmd.Stdin != nil {
		go s.feed(cmd.Stdin) // which may never return
	}
	cmd.client.crew.start(func() {
		r := &running{session: s, started: time.Now(), polite: cmd.CancelSignal}
		err := r.supervise(ctx)
		cmd.exit.Store(r.exited)
		stdout.close(err)
		stderr.close(err)
		over(err)
	})
	return nil
}

// send makes the requests that start the command, and returns what became of
// it. When one fails the channel is given up.
func (cmd *Command) send(ctx context.Context, s *session, stdout, stderr *gate) (Fate, error) {
	if err := cmd.prepare(ctx, s); err != nil {
		s.read(nil, nil)
		s.abandon(nil)
		return NotSent, err
	}
	s.read(stdout, stderr)
	err := s.request(ctx, "exec", struct{ Line string }{cmd.Line}, func() {
		if cmd.Stdin == nil {
			_ = s.channel.CloseWrite()
		}
	})
	switch {
	case err == nil:
		return MayHaveRun, nil
	case errors.Is(err, ErrRefused):
		s.abandon(nil)
		return NotSent, err
	default:
		s.stop(cmd.CancelSignal)
		return MayHaveRun, err
	}
}

// prepare asks for the terminal and the environment.
func (cmd *Command) prepare(ctx context.Context, s *session) error {
	if p := cmd.Pty; p != nil {
		if err := s.request(ctx, "pty-req", p.message(), nil); err != nil {
			return err
		}
	}
	for _, text := range cmd.Env {
		v, err := parseVariable(text)
		if err == nil {
			err = s.request(ctx, "env", v, nil)
		}
		if err != nil {
			return fmt.Errorf("%s of Command.Env: %w", v.Name, err)
		}
	}
	for _, text := range cmd.SendEnv {
		v, err := parseVariable(text)
		if err == nil {
			err = s.tell(ctx, "env", v)
		}
		if err != nil {
			return fmt.Errorf("%s of Command.SendEnv: %w", v.Name, err)
		}
	}
	return nil
}

// variable is an env request (RFC 4254, section 6.4).
type variable struct{ Name, Value string }

func parseVariable(text string) (variable, error) {
	name, value, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return variable{Name: strconv.Quote(name)}, errors.New("it is not NAME=value")
	}
	return variable{name, value}, nil
}

// finish must be called once, whatever became of the command.
func (cmd *Command) finish(err error) {
	cmd.err = err
	for _, w := range cmd.pipes {
		_ = w.CloseWithError(err)
	}
	if cmd.stdin != nil {
		_ = cmd.stdin.CloseWithError(io.ErrClosedPipe)
	}
	close(cmd.done)
}

// Wait waits for the end of a command that was started, and for its output.
// When its context ends, the command is given up as when that of Start does. It
// may be called many times.
func (cmd *Command) Wait(ctx context.Context) error {
	if cmd.client == nil || !cmd.begun.Load() {
		return errors.New("ssh: the command was not started")
	}
	select {
	case <-cmd.done:
		return cmd.err
	default:
	}
	if cmd.session.Load() == nil {
		return errors.New("ssh: the command is still being started: call Wait when Start has returned")
	}
	select {
	case <-cmd.done:
		return cmd.err
	case <-ctx.Done():
		cmd.cancel(context.Cause(ctx))
		<-cmd.done // within Budgets.Cancel
		return cmd.err
	}
}

// Done is closed when the command is over and Wait will not wait.
func (cmd *Command) Done() <-chan struct{} { return cmd.done }

// Exit returns how the command ended, if the server has said it and the command
// is over.
func (cmd *Command) Exit() (Exit, bool) {
	if e := cmd.exit.Load(); e != nil {
		return *e, true
	}
	return Exit{}, false
}

// Signal sends the command a signal, such as SIGINT. Servers may ignore it, and
// say nothing of it.
func (cmd *Command) Signal(ctx context.Context, name Signal) error {
	return cmd.tell(ctx, "signal", struct{ Name string }{string(name)})
}

// Resize tells the command that its terminal has another size.
func (cmd *Command) Resize(ctx context.Context, rows, columns int) error {
	return cmd.tell(ctx, "window-change", struct{ Columns, Rows, Width, Height uint32 }{uint32(columns), uint32(rows), 0, 0})
}

// tell makes a request of which no answer is asked.
func (cmd *Command) tell(ctx context.Context, kind string, payload any) error {
	s := cmd.session.Load()
	if s == nil {
		return errors.New("ssh: the command was not started")
	}
	began := time.Now()
	if err := s.tell(ctx, kind, payload); err != nil {
		return s.client.fail(Run, MayHaveRun, began, err)
	}
	return nil
}

// message is a pty-req (RFC 4254, section 6.2).
func (p *Pty) message() any {
	term, rows, columns := p.Term, p.Rows, p.Columns
	if term == "" {
		term = "xterm"
	}
	if rows <= 0 {
		rows = 24
	}
	if columns <= 0 {
		columns = 80
	}
	var modes []byte
	for name, value := range p.Modes {
		modes = append(modes, name, byte(value>>24), byte(value>>16), byte(value>>8), byte(value))
	}
	return struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}{term, uint32(columns), uint32(rows), 0, 0, string(append(modes, 0))}
}

// Quote makes one word of a POSIX shell of any text, so that nothing in it is
// run or expanded.
func Quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
