package ssh_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
)

// jumping is a server by way of which others can be reached, in memory, as
// their own faults have it.
func jumping(behind fault) (fault, chan *faulty) {
	reached := make(chan *faulty, 10)
	return fault{opens: func(s *faulty, channel xssh.NewChannel) bool {
		if channel.ChannelType() != "direct-tcpip" {
			return true
		}
		ch, requests, err := channel.Accept()
		if err != nil {
			return false
		}
		go xssh.DiscardRequests(requests)
		near, far := pipe()
		reached <- serve(s.t, far, behind)
		go func() { _, _ = io.Copy(near, ch) }()
		go func() { _, _ = io.Copy(ch, near); _ = ch.Close() }()
		return false
	}}, reached
}

func TestJump(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		f, _ := jumping(fault{})
		outer, _ := connected(t, config(), f)
		inner, err := outer.Jump(t.Context(), "behind", config())
		if err != nil {
			t.Fatal(err)
		}
		out, err := inner.Command("echo hello").Output(t.Context())
		if err != nil || string(out) != "hello\n" || inner.Host() != "behind" {
			t.Errorf("%q, %v", out, err)
		}
		if r, err := inner.Run(t.Context(), "yes 200"); err != nil || len(r.Stdout) != 201*32<<10 {
			t.Errorf("%d bytes, %v", len(r.Stdout), err)
		}
		survives(t, inner)
		_ = inner.Close()
		survives(t, outer)
	})
}

// Either server may freeze, and in the handshake; the error says which.
func TestJumpFaults(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		freeze string
		fault  fault
		want   want
		outer  bool // lives on
	}{
		"the jump host freezes":               {freeze: "outer", want: want{phase: ssh.Run, is: []error{ssh.ErrSilent}, fate: ssh.MayHaveRun, took: 20 * s, out: "part"}},
		"the server freezes":                  {freeze: "inner", want: want{phase: ssh.Run, is: []error{ssh.ErrSilent}, fate: ssh.MayHaveRun, took: 20 * s, out: "part"}, outer: true},
		"the server freezes in the handshake": {fault: fault{freeze: func(n int) bool { return n == 1 }}, want: want{phase: ssh.Handshake, is: []error{context.DeadlineExceeded}, took: 10 * s}, outer: true},
		"the jump host dies":                  {freeze: "kill", want: want{phase: ssh.Run, is: []error{ssh.ErrDisconnected}, fate: ssh.MayHaveRun, out: "part"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				f, reached := jumping(row.fault)
				outer, jump := connected(t, config(), f)
				began := time.Now()
				inner, err := outer.Jump(t.Context(), "behind", config())
				if row.freeze == "" {
					check(t, err, row.want, time.Since(began), "")
					survives(t, outer)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer inner.Close()
				cmd := inner.Command("say part")
				var out ssh.Buffer
				cmd.Stdout = &out
				if err := cmd.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
				began = time.Now()
				switch row.freeze {
				case "outer":
					jump.conn.freeze()
				case "inner":
					(<-reached).conn.freeze()
				case "kill":
					_ = jump.conn.Close()
				}
				err = cmd.Wait(t.Context())
				took := time.Since(began)
				var e *ssh.Error
				if errors.As(err, &e) {
					e.Elapsed = 0 // of the whole command
				}
				if row.want.took > 0 && took > row.want.took-time.Second { // it had last spoken a moment before
					took = row.want.took
				}
				check(t, err, row.want, took, string(out.Bytes()))
				if row.outer {
					survives(t, outer)
				} else if !strings.Contains(err.Error(), "faulty") && row.freeze == "kill" {
					t.Errorf("%v does not say that it was the jump host", err)
				}
			})
		})
	}
}

func TestJumpIsBounded(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		outer, _ := connected(t, config(), fault{opens: func(*faulty, xssh.NewChannel) bool { return false }})
		began := time.Now()
		_, err := outer.Jump(t.Context(), "behind", config())
		check(t, err, want{phase: ssh.Connect, is: []error{context.DeadlineExceeded}, took: 10 * s}, time.Since(began), "")
		survives(t, outer)
	})
	bubble(t, func(t *testing.T) {
		outer, _ := connected(t, config(), fault{opens: func(_ *faulty, c xssh.NewChannel) bool {
			_ = c.Reject(xssh.Prohibited, "no forwarding")
			return false
		}})
		began := time.Now()
		_, err := outer.Jump(t.Context(), "behind", config())
		check(t, err, want{phase: ssh.Connect, is: []error{ssh.ErrRefused}}, time.Since(began), "")
		if _, err := outer.Jump(t.Context(), "behind:ssh", config()); err == nil || !strings.Contains(err.Error(), "port") {
			t.Error(err)
		}
	})
}

// Through a real jump host, to a real server.
func TestOpenSSHJump(t *testing.T) {
	t.Parallel()
	jump, behind := startSSHD(t), startSSHD(t)
	outer := jump.dial(t)
	inner, err := outer.Jump(t.Context(), behind.addr, behind.config)
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	if out, err := inner.Command("echo hello").Output(t.Context()); err != nil || string(out) != "hello\n" {
		t.Errorf("%q, %v", out, err)
	}
	_ = outer.Close()
	if err := inner.Command("true").Run(t.Context()); !errors.Is(err, ssh.ErrClosed) {
		t.Error(err)
	}
}

// Who owns the jump host ends it with its own connection, however that ends.
func TestOwn(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		f, _ := jumping(fault{})
		outer, _ := connected(t, config(), f)
		named := config()
		named.Name = "web1"
		inner, err := outer.Jump(t.Context(), "behind", named)
		if err != nil {
			t.Fatal(err)
		}
		inner.Own(outer)
		survives(t, inner)
		if inner.Host() != "web1" {
			t.Error(inner.Host())
		}
		_ = inner.Close()
		if err := outer.Err(); !errors.Is(err, ssh.ErrClosed) {
			t.Errorf("the jump host: %v", err)
		}
	})
}
