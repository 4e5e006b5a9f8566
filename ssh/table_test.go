package ssh_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
)

// The table of faults is the contract. These rows run in bubbles of package
// synctest, where time is exact and a goroutine that is left behind fails the
// test; the rows that need a kernel are in other files.

// want is what a call that fails must return, and when.
type want struct {
	phase ssh.Phase
	is    []error
	fate  ssh.Fate
	took  time.Duration // exactly
	out   string
}

func check(t *testing.T, err error, w want, took time.Duration, out string) {
	t.Helper()
	var e *ssh.Error
	if !errors.As(err, &e) {
		t.Fatalf("after %v: %v is no *ssh.Error", took, err)
	}
	t.Logf("%v", err)
	if e.Phase != w.phase || e.Fate != w.fate || took != w.took || out != w.out || e.Elapsed > took {
		t.Errorf("phase %s, %v, after %v with %q; want %s, %v, %v, %q", e.Phase, e.Fate, took, out, w.phase, w.fate, w.took, w.out)
	}
	for _, target := range w.is {
		if !errors.Is(err, target) {
			t.Errorf("%v is not %v", err, target)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q is more than a line", err)
	}
	if timeout := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ssh.ErrSilent); e.Timeout() != timeout {
		t.Errorf("Timeout is %v for %v", e.Timeout(), err)
	}
}

const s = time.Second

// bubble runs a test in a bubble of package synctest, and what the test leaves
// behind there has an hour to end: time stands still when a test has returned.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(time.Hour) })
		test(t)
	})
}

func TestDialFaults(t *testing.T) {
	deadline := []error{context.DeadlineExceeded}
	for name, row := range map[string]struct {
		fault  fault
		config func(*ssh.Config)
		want   want
	}{
		"no banner": {
			fault: fault{speaks: func(c net.Conn) { _, _ = c.Read(make([]byte, 100)); c.(*freezer).freeze(); _, _ = c.Read(nil) }},
			want:  want{phase: ssh.Handshake, is: deadline, took: 10 * s},
		},
		"banner tarpit": {
			fault: fault{speaks: func(c net.Conn) {
				for {
					if _, err := c.Write([]byte("abcd1234\r\n")); err != nil {
						return
					}
					time.Sleep(200 * time.Millisecond)
				}
			}},
			want: want{phase: ssh.Handshake, is: deadline, took: 10 * s},
		},
		"silence after the banner": {
			fault: fault{freeze: func(n int) bool { return n == 1 }},
			want:  want{phase: ssh.Handshake, is: deadline, took: 10 * s},
		},
		"silence in the key exchange": {
			fault: fault{freeze: func(n int) bool { return n == 2 }},
			want:  want{phase: ssh.Handshake, is: deadline, took: 10 * s},
		},
		"silence in authentication": {
			fault: fault{config: func(c *xssh.ServerConfig) {
				c.NoClientAuthCallback = func(xssh.ConnMetadata) (*xssh.Permissions, error) {
					time.Sleep(time.Minute)
					return nil, errors.New("late")
				}
			}},
			want: want{phase: ssh.Authentication, is: deadline, took: 30 * s},
		},
		"closed before the banner": {
			fault: fault{speaks: func(net.Conn) {}},
			want:  want{phase: ssh.Handshake, is: []error{ssh.ErrDisconnected}},
		},
		"something else than SSH": {
			fault: fault{speaks: func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }},
			want:  want{phase: ssh.Handshake, is: []error{ssh.ErrDisconnected}},
		},
		"host key callback that takes for ever": {
			config: func(c *ssh.Config) {
				c.HostKey = func(string, net.Addr, xssh.PublicKey) error { time.Sleep(time.Minute); return nil }
			},
			want: want{phase: ssh.Authentication, is: deadline, took: 30 * s},
		},
		"host key refused": {
			config: func(c *ssh.Config) {
				c.HostKey = func(string, net.Addr, xssh.PublicKey) error { return errChanged }
			},
			want: want{phase: ssh.Authentication, is: []error{ssh.ErrHostKey, errChanged}},
		},
		"password callback that takes for ever": {
			fault: fault{config: func(c *xssh.ServerConfig) { c.NoClientAuth = false; c.PasswordCallback = password }},
			config: func(c *ssh.Config) {
				c.Auth = []xssh.AuthMethod{xssh.PasswordCallback(func() (string, error) { time.Sleep(time.Minute); return "", nil })}
			},
			want: want{phase: ssh.Authentication, is: deadline, took: 30 * s},
		},
		"wrong password": {
			fault:  fault{config: func(c *xssh.ServerConfig) { c.NoClientAuth = false; c.PasswordCallback = password }},
			config: func(c *ssh.Config) { c.Auth = []xssh.AuthMethod{xssh.Password("wrong")} },
			want:   want{phase: ssh.Authentication, is: []error{ssh.ErrAuthentication}},
		},
		"banner callback that takes for ever": {
			fault: fault{config: func(c *xssh.ServerConfig) {
				c.BannerCallback = func(xssh.ConnMetadata) string { return "hello" }
			}},
			config: func(c *ssh.Config) { c.Banner = func(string) { time.Sleep(time.Minute) } },
			want:   want{phase: ssh.Authentication, is: deadline, took: 30 * s},
		},
		"a budget of its own": {
			fault:  fault{speaks: func(c net.Conn) { _, _ = c.Read(make([]byte, 100)); <-c.(*freezer).closed }},
			config: func(c *ssh.Config) { c.Budgets.Handshake = 3 * s },
			want:   want{phase: ssh.Handshake, is: deadline, took: 3 * s},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				c := config()
				if row.config != nil {
					row.config(&c)
				}
				if speaks := row.fault.speaks; speaks != nil && row.want.took > 0 {
					row.fault.speaks = func(c net.Conn) { speaks(c); <-c.(*freezer).closed }
				}
				began := time.Now()
				client, _, err := dial(t, c, row.fault)
				if err == nil {
					client.Close()
					t.Fatal("no error")
				}
				check(t, err, row.want, time.Since(began), "")
			})
		})
	}
}

var errChanged = errors.New("changed")

func password(_ xssh.ConnMetadata, given []byte) (*xssh.Permissions, error) {
	if string(given) == "right" {
		return nil, nil
	}
	return nil, errors.New("no")
}

func TestDialContext(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		near, far := pipe()
		serve(t, far, fault{freeze: func(n int) bool { return n == 1 }})
		reason := errors.New("the user went home")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(2*s, func() { cancel(reason) })
		began := time.Now()
		_, err := ssh.NewClient(ctx, near, "faulty", config())
		check(t, err, want{phase: ssh.Handshake, is: []error{reason}, took: 2 * s}, time.Since(began), "")
	})
}

func TestCommandFaults(t *testing.T) {
	deadline := []error{context.DeadlineExceeded}
	cancel := 200 * time.Millisecond
	ignore := func(kind string) fault {
		return fault{decides: func(_ *faulty, k string, _ int) bool { return k == kind }}
	}
	for name, row := range map[string]struct {
		fault   fault
		line    string
		budgets ssh.Budgets
		command func(*ssh.Command)
		timeout time.Duration // of the context
		want    want
		dead    bool // the connection does not survive
	}{
		"channel open never confirmed": {
			fault: fault{opens: func(_ *faulty, c xssh.NewChannel) bool { return c.ChannelType() == "never" }},
			want:  want{phase: ssh.Open, is: deadline, took: 10 * s},
		},
		"channel open confirmed late": {
			fault: fault{opens: func(*faulty, xssh.NewChannel) bool { time.Sleep(15 * s); return true }},
			want:  want{phase: ssh.Open, is: deadline, took: 10 * s},
		},
		"channel open refused": {
			fault: fault{opens: func(_ *faulty, c xssh.NewChannel) bool {
				_ = c.Reject(xssh.ConnectionFailed, "open failed")
				return false
			}},
			want: want{phase: ssh.Open, is: []error{ssh.ErrRefused}},
		},
		"exec never answered":              {fault: ignore("exec"), want: want{phase: ssh.Request, is: deadline, fate: ssh.MayHaveRun, took: 10*s + cancel}},
		"exec never answered, context":     {fault: ignore("exec"), timeout: 2 * s, want: want{phase: ssh.Request, is: deadline, fate: ssh.MayHaveRun, took: 2*s + cancel}},
		"pty never answered":               {fault: ignore("pty-req"), command: func(c *ssh.Command) { c.Pty = &ssh.Pty{} }, want: want{phase: ssh.Request, is: deadline, took: 10 * s}},
		"environment never answered":       {fault: ignore("env"), command: func(c *ssh.Command) { c.Env = []string{"A=b"} }, want: want{phase: ssh.Request, is: deadline, took: 10 * s}},
		"environment refused":              {command: func(c *ssh.Command) { c.Env = []string{"BAD=b"} }, want: want{phase: ssh.Request, is: []error{ssh.ErrRefused}}},
		"exits with 3":                     {line: "exit 3", want: want{phase: ssh.Run, fate: ssh.Exited}},
		"child in the background":          {line: "background 0", want: want{phase: ssh.Run, is: []error{ssh.ErrWaitAfterExit}, fate: ssh.Exited, took: 5 * s, out: "hi\n"}},
		"child in the background, failed":  {line: "background 2", want: want{phase: ssh.Run, is: []error{ssh.ErrWaitAfterExit}, fate: ssh.Exited, took: 5 * s, out: "hi\n"}},
		"no exit status":                   {line: "close", want: want{phase: ssh.Run, is: []error{ssh.ErrNoStatus}, fate: ssh.MayHaveRun, took: 200 * time.Millisecond}},
		"no first output":                  {line: "say", budgets: ssh.Budgets{FirstOutput: 3 * s}, want: want{phase: ssh.Run, is: deadline, fate: ssh.MayHaveRun, took: 3*s + cancel}},
		"output stops":                     {line: "say part", budgets: ssh.Budgets{FirstOutput: 3 * s, IdleOutput: 4 * s}, want: want{phase: ssh.Run, is: deadline, fate: ssh.MayHaveRun, took: 4*s + cancel, out: "part"}},
		"runs for ever, total":             {line: "say part", budgets: ssh.Budgets{Total: 7 * s}, want: want{phase: ssh.Run, is: deadline, fate: ssh.MayHaveRun, took: 7*s + cancel, out: "part"}},
		"runs for ever, recommended total": {line: "say part", want: want{phase: ssh.Run, is: deadline, fate: ssh.MayHaveRun, took: time.Hour + cancel, out: "part"}},
		"runs for ever, context":           {line: "say part", timeout: 3 * s, want: want{phase: ssh.Run, is: deadline, fate: ssh.MayHaveRun, took: 3*s + cancel, out: "part"}},
		"obeys the signal":                 {line: "obey", timeout: 3 * s, want: want{phase: ssh.Run, is: deadline, fate: ssh.Exited, took: 3 * s, out: "working, ending"}},
		"drips, total":                     {line: "drip", budgets: ssh.Budgets{IdleOutput: 2 * s, Total: 4500 * time.Millisecond}, want: want{phase: ssh.Run, is: deadline, fate: ssh.MayHaveRun, took: 4500*time.Millisecond + cancel, out: "xxxxx"}},
		"frozen while it runs":             {line: "freeze", want: want{phase: ssh.Run, is: []error{ssh.ErrSilent}, fate: ssh.MayHaveRun, took: 20 * s, out: "last words"}, dead: true},
		"frozen with a shorter context":    {line: "freeze", timeout: 4 * s, want: want{phase: ssh.Run, is: deadline, fate: ssh.MayHaveRun, took: 4*s + cancel, out: "last words"}, dead: true},
		"killed while it runs":             {line: "die", want: want{phase: ssh.Run, is: []error{ssh.ErrDisconnected}, fate: ssh.MayHaveRun, took: s, out: "last words"}, dead: true},
		"context over before":              {line: "exit 0", timeout: -1, want: want{phase: ssh.Open, is: deadline}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				client, _, err := dial(t, config(), row.fault)
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				ctx := t.Context()
				if row.timeout != 0 {
					limited, cancel := context.WithTimeout(ctx, row.timeout)
					defer cancel()
					ctx = limited
				}
				cmd := client.Command(row.line)
				if row.line == "" {
					cmd.Line = "exit 0"
				}
				cmd.Budgets = row.budgets
				if row.command != nil {
					row.command(cmd)
				}
				began := time.Now()
				out, err := cmd.Output(ctx)
				check(t, err, row.want, time.Since(began), string(out))
				if !row.dead {
					survives(t, client)
				}
			})
		})
	}
}

// survives checks that the connection lives on, by its keepalive, for a minute.
func survives(t *testing.T, client *ssh.Client) {
	t.Helper()
	time.Sleep(time.Minute)
	if err := client.Err(); err != nil {
		t.Errorf("the connection has ended: %v", err)
	}
	if quiet := time.Since(client.LastHeard()); quiet > 5*s {
		t.Errorf("nothing heard for %v of a server that lives", quiet)
	}
}

// A server that freezes before any of its writes, and so in every phase.
func TestFrozenAnywhere(t *testing.T) {
	t.Parallel()
	var last ssh.Phase
	for n, frozen := 0, true; frozen; n++ {
		bubble(t, func(t *testing.T) {
			frozen = false
			began := time.Now()
			var phase ssh.Phase
			client, _, err := dial(t, config(), fault{freeze: func(write int) bool { return write == n }})
			if err == nil {
				defer client.Close()
				_, err = client.Command("echo hello").Output(t.Context())
			}
			took := time.Since(began)
			var e *ssh.Error
			if errors.As(err, &e) {
				frozen, phase = true, e.Phase
			} else if err != nil {
				t.Errorf("write %d: %v", n, err)
			}
			limit := map[ssh.Phase]time.Duration{ssh.Handshake: 10 * s, ssh.Authentication: 30 * s, ssh.Open: 10 * s, ssh.Request: 10*s + 200*time.Millisecond, ssh.Run: 20 * s}[phase]
			t.Logf("write %d: %v", n, err)
			if took > limit {
				t.Errorf("write %d: %v after %v, of at most %v", n, phase, took, limit)
			}
			if phase != "" {
				last = phase
			}
		})
	}
	if last != ssh.Run {
		t.Errorf("froze last in %s; the sweep did not reach a running command", last)
	}
}

// While nothing is asked of it, a frozen server is noticed at the bound.
func TestFrozenIdle(t *testing.T) {
	t.Parallel()
	for _, l := range []ssh.Liveness{{}, {Silence: 3 * s}, {Silence: 9 * s, Interval: 8 * s}} {
		bubble(t, func(t *testing.T) {
			c := config()
			c.Liveness = l
			client, server, err := dial(t, c, fault{})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			survives(t, client)
			server.conn.freeze()
			froze := time.Now()
			<-client.Done()
			limit := client.Bound().Silence
			if took := time.Since(froze); took > limit || took < limit/2 {
				t.Errorf("noticed after %v, the bound is %v", took, limit)
			}
			if err := client.Err(); !errors.Is(err, ssh.ErrSilent) || !errors.Is(err, lifeline.ErrSilent) {
				t.Error(err)
			}
			began := time.Now()
			_, err = client.Command("exit 0").Output(t.Context())
			check(t, err, want{phase: ssh.Open, is: []error{ssh.ErrSilent}}, time.Since(began), "")
		})
	}
}

// Answers that come late, again and again, are life, and are not taken for the
// answers to later questions.
func TestLateAnswers(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var asked atomic.Int32
		client, _, err := dial(t, config(), fault{global: func(r *xssh.Request) {
			asked.Add(1)
			time.Sleep(14 * s)
			_ = r.Reply(false, nil)
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		time.Sleep(10 * time.Minute)
		if err := client.Err(); err != nil {
			t.Error(err)
		}
		if most, asked := int32(10*time.Minute/(19*s))+1, asked.Load(); asked > most || asked < most-2 {
			t.Errorf("asked %d times, want about %d: one at a time", asked, most)
		}
	})
}

// Any byte is life: a server that never answers a keepalive but says something.
func TestAnyByteIsLife(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client, _, err := dial(t, config(), fault{global: func(*xssh.Request) {}})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute+s/2)
		defer cancel()
		out, err := client.Command("drip").Output(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || len(out) != 61 {
			t.Errorf("%d bytes, %v", len(out), err)
		}
		<-client.Done()
	})
}
