//go:build linux

// Package stage is what the tests of the recipes play on: two machines with a
// wire between them, of which one runs a server and dies without a word.
package stage

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/internal/need"
)

const (
	// Near and Far are the addresses of the two machines.
	Near, Far = "10.77.1.1", "10.77.1.2"

	patience = time.Minute     // for a server to be ready, and for a test to be wrong
	slack    = 4 * time.Second // that an overloaded machine may take to tell; go-redis dials in vain before it does, for 2 s
)

// Policy is the shortest that there is, so that the tests are short too.
var Policy = lifeline.Policy{Connect: 2 * time.Second, Silence: 6 * time.Second}

// Stage is the two machines. The program under test is on the near one.
type Stage struct {
	t         testing.TB
	near, far *lab.Host
}

// New builds the two machines, until the test ends.
func New(t testing.TB) *Stage {
	t.Helper()
	l := lab.New(t)
	s := &Stage{t, l.Host("near"), l.Host("far")}
	l.Wire(s.near, Near+"/24", s.far, Far+"/24")
	for _, h := range []*lab.Host{s.near, s.far} { // what a router on the way would spare them
		h.Sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms", "600000")
	}
	return s
}

// Die takes the far machine off the wire without a word, and returns when.
func (s *Stage) Die() time.Time {
	s.t.Helper()
	s.far.Unplug()
	return time.Now()
}

// Return puts the far machine back on the wire.
func (s *Stage) Return() {
	s.t.Helper()
	s.far.Plug()
}

// Dial connects from the near machine under the policy: it stands for
// lifeline.Dialer.DialContext of a program that runs there.
func (s *Stage) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	dialer := lifeline.Dialer{Policy: Policy}
	err = s.near.Do(func() error {
		conn, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// DialFar connects from the far machine as any other program would.
func (s *Stage) DialFar(_ context.Context, network, address string) (net.Conn, error) {
	return s.far.Dial(network, address), nil
}

// Listen listens on the near machine under the policy.
func (s *Stage) Listen(address string) (ln net.Listener) {
	s.t.Helper()
	config := lifeline.ListenConfig{Policy: Policy}
	err := s.near.Do(func() (err error) {
		ln, err = config.Listen(context.Background(), "tcp", address)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { ln.Close() })
	return ln
}

// ListenFar listens on the far machine as any other program would.
func (s *Stage) ListenFar(address string) net.Listener {
	s.t.Helper()
	return s.far.Listen("tcp", address)
}

// Dir returns a new directory that belongs to nobody, who runs the servers:
// some of them refuse to run as root.
func (s *Stage) Dir() string {
	s.t.Helper()
	dir, err := os.MkdirTemp("", "lifeline-examples-")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { os.RemoveAll(dir) })
	if out, err := exec.Command("chown", "nobody", dir).CombinedOutput(); err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// Run runs a program on the far machine to its end, as nobody.
func (s *Stage) Run(dir, name string, args ...string) {
	s.t.Helper()
	if out, err := s.command(dir, name, args).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// Serve starts a server on the far machine, as nobody, and waits until it
// listens. When the test ends the server is stopped by the signal.
func (s *Stage) Serve(stop os.Signal, address, dir, name string, args ...string) {
	s.t.Helper()
	var said bytes.Buffer
	cmd := s.command(dir, name, args)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(stop)
		select {
		case <-ended:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			s.t.Errorf("%s did not stop: %s", name, said.String())
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := s.far.Do(func() error {
			conn, err := net.DialTimeout("tcp", address, time.Second)
			if err == nil {
				conn.Close()
			}
			return err
		})
		if err == nil {
			return
		}
		select {
		case err := <-ended:
			ended <- err
			s.t.Fatalf("%s: %v: %s", name, err, said.String())
		default:
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s does not listen on %s: %v", name, address, err)
		}
	}
}

func (s *Stage) command(dir, name string, args []string) *exec.Cmd {
	s.t.Helper()
	need.Program(s.t, "setpriv")
	cmd := s.far.Command("setpriv", append([]string{"--reuid=nobody", "--regid=nogroup", "--clear-groups", "--", name}, args...)...)
	cmd.Dir = dir
	return cmd
}

// Program returns where a program is that Debian keeps off the PATH, given a
// pattern for its place there. Where there is more than one, it is the last.
func Program(t testing.TB, name, pattern string) string {
	t.Helper()
	if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
		return found[len(found)-1]
	}
	return need.Program(t, name)
}

// Within calls f, which waits for the dead, and checks that it returns by the
// bound of the policy, and logs when.
func Within(t testing.TB, died time.Time, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	bound := Policy.Bound().Longest()
	select {
	case err := <-done:
		took := time.Since(died)
		t.Logf("after %.1f s of %v: %v", took.Seconds(), bound, err)
		if took > bound+slack {
			t.Errorf("returned after %v, the bound is %v", took, bound)
		}
		return err
	case <-time.After(time.Until(died) + patience):
		t.Fatalf("not noticed in %v", time.Since(died))
		return nil
	}
}

// Silent checks that an error tells of the silent far machine.
func Silent(t testing.TB, err error, peer string) {
	t.Helper()
	var known *lifeline.Error
	switch {
	case !errors.As(err, &known):
		t.Errorf("there is no *lifeline.Error in %v (%T)", err, err)
	case !errors.Is(err, lifeline.ErrSilent) || known.Promise != lifeline.Silence || known.Peer != peer || known.Quiet < time.Second:
		t.Errorf("%+v says too little", known)
	}
}
