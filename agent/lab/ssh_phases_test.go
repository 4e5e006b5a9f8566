//go:build linux

package lab

import (
	"context"
	"crypto/rand"
	"errors"

	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// counted is a connection that calls lose before a write, of which it counts
// those before.
type counted struct {
	net.Conn
	until atomic.Int32
	lose  func()
	lost  atomic.Int64 // when, in Unix nanoseconds; 0 = not yet
}

func (c *counted) Write(p []byte) (int, error) {
	if c.until.Add(-1) == -1 {
		c.lose()
		c.lost.Store(time.Now().UnixNano())
	}
	return c.Conn.Write(p)
}

// The server is stopped before each thing that the client says, from its first
// to its last, and so before, in and after every phase.
func TestSSHStoppedAnywhere(t *testing.T) {
	t.Parallel()
	for program, build := range map[string]func(*testing.T) *fleet{"OpenSSH": newFleet, "dropbear": newDropbear} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			f := build(t)
			f.config.Liveness.Silence = 2 * time.Second
			f.config.Budgets = ssh.Budgets{Handshake: 2 * time.Second, Authentication: 2 * time.Second, ChannelOpen: 2 * time.Second, Request: 2 * time.Second}
			seen := make(map[ssh.Phase]int)
			for n, late, lost := 0, 0, true; lost && n < 40; n++ {
				var err error
				if lost, err = stoppedBefore(t, f, n, seen); err != nil { // a busy machine
					if late++; late == 10 {
						t.Fatalf("write %d: %v, and the server lives", n, err)
					}
					n, lost = n-1, true
				}
			}
			t.Logf("stopped in %v", seen)
			for _, phase := range []ssh.Phase{ssh.Handshake, ssh.Authentication, ssh.Open, ssh.Request} {
				if seen[phase] == 0 {
					t.Errorf("never stopped in phase %s", phase)
				}
			}
		})
	}
}

// stoppedBefore stops the server before the client's write n, and reports
// whether there was one in a whole command. The error is one of a server that
// lives.
func stoppedBefore(t *testing.T, f *fleet, n int, seen map[ssh.Phase]int) (bool, error) {
	t.Helper()
	conn := &counted{lose: func() { f.far.Signal(unix.SIGSTOP) }}
	conn.until.Store(int32(n))
	defer f.far.Signal(unix.SIGCONT)
	if err := f.near.Do(func() (err error) {
		conn.Conn, err = (&net.Dialer{Timeout: dialTimeout}).Dial("tcp", server)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	client, err := ssh.NewClient(t.Context(), conn, server, f.config)
	if err == nil {
		_, err = client.Command("echo hello").Output(t.Context())
		_ = client.Close()
	}
	at := conn.lost.Load()
	var e *ssh.Error
	switch {
	case at == 0:
		return false, err
	case err == nil: // the last write only closes the channel
		return true, nil
	case !errors.As(err, &e):
		t.Fatalf("write %d: %v is no *ssh.Error", n, err)
	}
	took := time.Since(time.Unix(0, at))
	seen[e.Phase]++
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ssh.ErrSilent) || took > 2*time.Second+slack {
		t.Errorf("write %d: %v after %v", n, err, took)
	}
	return true, nil
}

// once calls f at the second key of an exchange that is asked for, which is
// that of the first exchange of new keys.
type once struct {
	keys atomic.Int32
	f    func()
}

func (o *once) Read(p []byte) (int, error) {
	if len(p) == 32 && o.keys.Add(1) == 2 { // the length of a key of curve25519
		o.f()
	}
	return rand.Read(p)
}

// The server is lost between the two messages of an exchange of new keys, while
// a command is told much: its writer waits for the keys.
func TestSSHLostInRekeying(t *testing.T) {
	t.Parallel()
	eachLoss(t, func(t *testing.T, f *fleet, lose func()) {
		lost := make(chan time.Time, 1)
		f.config.Protocol = xssh.Config{
			Rand:         &once{f: func() { lose(); lost <- time.Now() }},
			KeyExchanges: []string{xssh.KeyExchangeCurve25519}, Ciphers: []string{xssh.CipherAES128CTR, xssh.CipherAES128GCM}, RekeyThreshold: 1 << 20,
		}
		client := f.connect(t)
		cmd := client.Command("cat >/dev/null")
		cmd.Stdin = zeros{}
		if err := cmd.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait(context.Background()) }()
		select {
		case since := <-lost:
			returned(t, <-ended, since, client.Bound().Silence, ssh.ErrSilent, ssh.Run)
		case err := <-ended:
			t.Fatalf("no new keys were exchanged: %v", err)
		}
	})
}
