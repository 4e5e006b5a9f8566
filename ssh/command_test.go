package ssh_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
)

// connected is dial where it must succeed.
func connected(t *testing.T, c ssh.Config, f fault) (*ssh.Client, *faulty) {
	t.Helper()
	client, server, err := dial(t, c, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client, server
}

func TestOutput(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client, _ := connected(t, config(), fault{})
		out, err := client.Command("echo hello").Output(t.Context())
		if err != nil || string(out) != "hello\n" {
			t.Errorf("%q, %v", out, err)
		}
		out, err = client.Command("echo hello").CombinedOutput(t.Context())
		if err != nil || len(out) != len("hello\nerrors\n") {
			t.Errorf("%q, %v", out, err)
		}
		r, err := client.Run(t.Context(), "echo hello")
		if err != nil || string(r.Stdout) != "hello\n" || string(r.Stderr) != "errors\n" || !r.Exited || !r.Exit.OK() || r.Dropped != 0 {
			t.Errorf("%+v, %v", r, err)
		}
		cmd := client.Command("exit 3")
		err = cmd.Run(t.Context())
		var failed *ssh.ExitError
		if !errors.As(err, &failed) || failed.Status != 3 || err.Error() != "ssh: faulty: run: the command exited with status 3" {
			t.Errorf("%v", err)
		}
		if e, ok := cmd.Exit(); !ok || e.Status != 3 {
			t.Errorf("%+v, %v", e, ok)
		}
		if again := cmd.Run(t.Context()); again == nil || cmd.Wait(t.Context()) != err {
			t.Errorf("a second Run: %v; a second Wait: %v", again, cmd.Wait(t.Context()))
		}
	})
}

func TestOutputIsBounded(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := config()
		c.MaxOutput = 100_000
		client, _ := connected(t, c, fault{})
		cmd := client.Command("yes 100")
		out, err := cmd.Output(t.Context())
		if err != nil || len(out) != c.MaxOutput || !cmd.Truncated() {
			t.Errorf("%d bytes, truncated %v, %v", len(out), cmd.Truncated(), err)
		}
		if r, err := client.Run(t.Context(), "yes 100"); err != nil || r.Dropped != 101*32<<10-int64(c.MaxOutput) {
			t.Errorf("dropped %d, %v", r.Dropped, err)
		}
	})
}

func TestPipes(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client, _ := connected(t, config(), fault{})
		cmd := client.Command("cat")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		text := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // more than the windows of a channel
		go func() {
			_, _ = in.Write(text)
			_ = in.Close()
		}()
		got, err := io.ReadAll(out)
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if err := cmd.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := in.Write([]byte("more")); err == nil {
			t.Error("a Write when the command is over")
		}
	})
}

// A pipe to a command that reads nothing, and from one that says nothing.
func TestPipesEndWithTheCommand(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client, _ := connected(t, config(), fault{})
		cmd := client.Command("say part")
		in, _ := cmd.StdinPipe()
		out, _ := cmd.StdoutPipe()
		ctx, cancel := context.WithTimeout(t.Context(), 3*s)
		defer cancel()
		if err := cmd.Start(ctx); err != nil {
			t.Fatal(err)
		}
		wrote := make(chan error, 1)
		go func() {
			for {
				if _, err := in.Write(make([]byte, 1<<20)); err != nil {
					wrote <- err
					return
				}
			}
		}()
		got, err := io.ReadAll(out)
		if string(got) != "part" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q, %v", got, err)
		}
		if err := <-wrote; !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
		if err := cmd.Wait(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		survives(t, client)
	})
}

// An input that fails is not the end of the input.
func TestStdinFails(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client, _ := connected(t, config(), fault{})
		broken := errors.New("the disk is broken")
		cmd := client.Command("cat")
		cmd.Stdin = io.MultiReader(strings.NewReader("part"), failing{broken})
		out, err := cmd.Output(t.Context())
		var e *ssh.Error
		if !errors.Is(err, broken) || !errors.As(err, &e) || e.Fate != ssh.MayHaveRun || string(out) != "part" {
			t.Errorf("%q, %v", out, err)
		}
		survives(t, client)
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestStdoutFails(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client, _ := connected(t, config(), fault{})
		full := errors.New("the disk is full")
		cmd := client.Command("yes 1000000000")
		cmd.Stdout = failing{full}
		if err := cmd.Run(t.Context()); !errors.Is(err, full) {
			t.Error(err)
		}
		survives(t, client)
	})
}

// slow takes its time for each Write.
type slow struct {
	each    time.Duration
	written atomic.Int64
}

func (s *slow) Write(p []byte) (int, error) {
	time.Sleep(s.each)
	s.written.Add(int64(len(p)))
	return len(p), nil
}

// Who reads slowly is not silent: neither is the server given up, nor does the
// time count as the command's.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client, _ := connected(t, config(), fault{})
		cmd := client.Command("yes 9")
		cmd.Budgets = ssh.Budgets{IdleOutput: 2 * s, WaitAfterExit: s}
		to := &slow{each: time.Minute}
		cmd.Stdout = to
		began := time.Now()
		err := cmd.Run(t.Context())
		if took := time.Since(began); err != nil || to.written.Load() != 10*32<<10 || took != 10*time.Minute {
			t.Errorf("%d bytes after %v: %v", to.written.Load(), took, err)
		}
		survives(t, client)
	})
}

// A Writer that does not return does not keep Wait from it.
func TestWriterThatNeverReturns(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client, _ := connected(t, config(), fault{})
		cmd := client.Command("yes 1000000000")
		cmd.Stdout = &slow{each: 10 * time.Minute}
		ctx, cancel := context.WithTimeout(t.Context(), 3*s)
		defer cancel()
		began := time.Now()
		err := cmd.Run(ctx)
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > 3*s+s/2 {
			t.Errorf("%v after %v", err, took)
		}
		survives(t, client)
	})
}

// The end of Wait's context is that of the command.
func TestWaitContext(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client, _ := connected(t, config(), fault{})
		cmd := client.Command("obey")
		if err := cmd.Wait(t.Context()); err == nil {
			t.Error("Wait before Start")
		}
		if err := cmd.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*s)
		defer cancel()
		var exit *ssh.ExitError
		if err := cmd.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &exit) {
			t.Error(err)
		}
		if e, ok := cmd.Exit(); !ok || e.Signal != ssh.SIGTERM {
			t.Errorf("%+v, %v", e, ok)
		}
	})
}

func TestSignal(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client, _ := connected(t, config(), fault{})
		cmd := client.Command("obey")
		cmd.Pty, cmd.Env = &ssh.Pty{Modes: xssh.TerminalModes{xssh.ECHO: 0}}, []string{"A=b=c"}
		if err := cmd.Signal(t.Context(), ssh.SIGINT); err == nil {
			t.Error("a signal before Start")
		}
		if err := cmd.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(cmd.Resize(t.Context(), 50, 132), cmd.Signal(t.Context(), ssh.SIGINT)); err != nil {
			t.Fatal(err)
		}
		var exit *ssh.ExitError
		if err := cmd.Wait(t.Context()); !errors.As(err, &exit) || exit.Signal != ssh.SIGINT || exit.Status != -1 || exit.Message != "told to" {
			t.Errorf("%v", err)
		}
	})
}

// Two commands with different timeouts on one connection never touch each other.
func TestTimeoutsAreApart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client, _ := connected(t, config(), fault{})
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				limit := time.Duration(i+1) * s
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				began := time.Now()
				out, err := client.Command("drip").Output(ctx)
				took := time.Since(began)
				if !errors.Is(err, context.DeadlineExceeded) || took != limit+200*time.Millisecond || len(out) < i || len(out) > i+2 {
					t.Errorf("%v: %d bytes, %v after %v", limit, len(out), err, took)
				}
			})
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 700 * time.Millisecond)
				if out, err := client.Command("echo hello").Output(t.Context()); err != nil || string(out) != "hello\n" {
					t.Errorf("%q, %v", out, err)
				}
			})
		}
		wg.Wait()
		survives(t, client)
	})
}

// Requests that nobody expects do not jam the connection.
func TestManyRequests(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client, server := connected(t, config(), fault{})
		if err := client.Command("requests 100").Run(t.Context()); err != nil {
			t.Error(err)
		}
		for range 50 {
			if _, _, err := server.ssh.OpenChannel("x11", nil); err == nil {
				t.Error("a channel that nobody asked for was accepted")
			}
		}
		survives(t, client)
	})
}

// Channels that a server never confirms or closes are counted, and a hundred
// are enough.
func TestTooManyAbandoned(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := config()
		c.Budgets.ChannelOpen = s
		client, _ := connected(t, c, fault{opens: func(*faulty, xssh.NewChannel) bool { return false }})
		for range 100 {
			if err := client.Command("exit 0").Run(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		}
		var e *ssh.Error
		if err := client.Command("exit 0").Run(t.Context()); !errors.Is(err, ssh.ErrTooManyAbandoned) || !errors.As(err, &e) || e.Fate != ssh.NotSent {
			t.Error(err)
		}
	})
}

// The keys are exchanged again while a command runs: the host key that was
// accepted is, and a server that freezes in the middle is noticed.
func TestRekey(t *testing.T) {
	t.Parallel()
	for _, frozen := range []bool{false, true} {
		t.Run(fmt.Sprintf("frozen %v", frozen), func(t *testing.T) {
			t.Parallel()
			run := bubble
			if frozen {
				// In a bubble the time stands while a goroutine waits for a lock, as
				// x/crypto's writers do for the one that waits for the new keys.
				run = func(t *testing.T, test func(*testing.T)) { t.Helper(); test(t) }
			}
			run(t, func(t *testing.T) {
				asked := 0
				c := config()
				c.Liveness.Silence = 2 * s
				c.Protocol.RekeyThreshold = 64 << 10
				accepts := c.HostKey
				c.HostKey = func(host string, remote net.Addr, key xssh.PublicKey) error {
					asked++
					return accepts(host, remote, key)
				}
				f := fault{}
				if frozen {
					f.freeze = func(n int) bool { return n == 40 }
				}
				client, _ := connected(t, c, f)
				began := time.Now()
				cmd := client.Command("cat")
				cmd.Stdin = bytes.NewReader(make([]byte, 4<<20))
				_, err := cmd.Output(t.Context())
				if !frozen && err != nil || asked != 1 {
					t.Errorf("asked %d times for the host key, %v", asked, err)
				}
				if took := time.Since(began); frozen && (!errors.Is(err, ssh.ErrSilent) || took < s || took > 20*s) {
					t.Errorf("%v after %v", err, took)
				}
			})
		})
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client, _ := connected(t, config(), fault{})
		ended := make(chan error, 10)
		for range cap(ended) {
			go func() { ended <- client.Command("say part").Run(context.Background()) }()
		}
		time.Sleep(s)
		began := time.Now()
		_ = client.Close()
		for range cap(ended) {
			if err := <-ended; !errors.Is(err, ssh.ErrClosed) {
				t.Error(err)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("after %v", took)
		}
		if err := client.Close(); err != nil || !errors.Is(client.Err(), ssh.ErrClosed) {
			t.Errorf("%v, %v", err, client.Err())
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, c := range []ssh.Config{{User: "somebody"}, {HostKey: xssh.InsecureIgnoreHostKey()}} {
		near, far := pipe()
		if _, err := ssh.NewClient(t.Context(), near, "h", c); err == nil || !strings.Contains(err.Error(), "Config.") {
			t.Error(err)
		}
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the connection was not closed: %v", err)
		}
		if _, err := ssh.Dial(t.Context(), "127.0.0.1:1", c); err == nil || !strings.Contains(err.Error(), "Config.") {
			t.Error(err)
		}
	}
}

func TestBound(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client, _ := connected(t, config(), fault{})
		if got, want := client.Bound(), (ssh.Bound{Silence: 20 * s, Dial: 50 * s, Start: 20 * s, Command: time.Hour + s/5}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		c := config()
		c.Budgets.Total = lifeline.Never
		client, _ = connected(t, c, fault{})
		if got := client.Bound().Command; got != lifeline.Never {
			t.Error(got)
		}
	})
}

func TestQuote(t *testing.T) {
	if got := ssh.Quote(`it's; $(rm -rf /)`); got != `'it'\''s; $(rm -rf /)'` {
		t.Error(got)
	}
}
