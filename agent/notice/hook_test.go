//go:build linux

package notice

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/internal/need"
)

// serve runs a Hook until the test ends.
func serve(t *testing.T, h *Hook) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l, err := h.Listen(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(h.Path); err == nil {
			t.Error("the socket is still there")
		}
	})
}

func TestGive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "agent.sock")
	if _, err := Give(t.Context(), path, "spot"); !errors.Is(err, ErrNobody) {
		t.Errorf("%v", err)
	}
	began, goOn := make(chan string, 1), make(chan struct{})
	h := &Hook{Path: path, Going: func(_ context.Context, why string) (state.Act, error) {
		if why == "" {
			return state.Act{}, errors.New("the policy allows no evac")
		}
		began <- why
		<-goOn
		return state.Act{ID: "x", Act: "evac", Done: 4224}, nil
	}}
	serve(t, h)
	if _, err := (&Hook{Path: path}).Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("%v", err)
	}
	if _, err := Give(t.Context(), path, ""); err == nil || err.Error() != "the policy allows no evac" {
		t.Errorf("%v", err)
	}
	given := make(chan state.Act, 1)
	go func() {
		a, err := Give(context.Background(), path, "spot")
		if err != nil {
			t.Error(err)
		}
		given <- a
	}()
	if why := next(t, began); why != "spot" {
		t.Errorf("why: %q", why)
	}
	if len(given) != 0 {
		t.Error("it does not wait")
	}
	close(goOn)
	if a := next(t, given); a.Done != 4224 {
		t.Errorf("%+v", a)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// What a killed agent left is replaced.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if _, err := Give(t.Context(), path, "spot"); !errors.Is(err, ErrNobody) {
		t.Errorf("%v", err)
	}
	serve(t, &Hook{Path: path, Going: func(context.Context, string) (state.Act, error) { return state.Act{ID: "x"}, nil }})
	if _, err := Give(t.Context(), path, "spot"); err != nil {
		t.Errorf("%v", err)
	}
}

// What is there and no socket is not taken for one that a dead agent left.
func TestNoSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (&Hook{Path: path}).Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "is no socket: name another file") {
		t.Errorf("%v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "x" {
		t.Errorf("%q, %v", text, err)
	}
}

// flaky is a listener whose first connection cannot be accepted.
type flaky struct {
	net.Listener
	failed atomic.Bool
}

func (f *flaky) Accept() (net.Conn, error) {
	if !f.failed.Swap(true) {
		return nil, unix.EMFILE
	}
	return f.Listener.Accept()
}

// A moment without room for another file does not make it deaf.
func TestHearsAgain(t *testing.T) {
	h := &Hook{Path: filepath.Join(t.TempDir(), "agent.sock"), Going: func(context.Context, string) (state.Act, error) { return state.Act{ID: "x"}, nil }}
	ctx, cancel := context.WithCancel(context.Background())
	l, err := h.Listen(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ctx, &flaky{Listener: l}) }()
	if _, err := Give(t.Context(), h.Path, "spot"); err != nil {
		t.Errorf("%v", err)
	}
	cancel()
	if err := next(t, ended); err != nil {
		t.Errorf("%v", err)
	}
}

// Others than root get nothing done, even where they reach the socket; nor does who
// sends what is no notice.
func TestOthersGiveNoNotice(t *testing.T) {
	need.Root(t)
	dir, err := os.MkdirTemp("", "notice") // that of the test is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "agent.sock")
	serve(t, &Hook{Path: path, Going: func(context.Context, string) (state.Act, error) {
		t.Error("it is done")
		return state.Act{}, nil
	}})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o600, 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		said := make(chan error, 1)
		go func() {
			runtime.LockOSThread() // the thread ends with its user
			const nobody = 65534
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
				said <- errno
				return
			}
			_, err := Give(context.Background(), path, "spot")
			said <- err
		}()
		if err := next(t, said); err == nil || err.Error() != "only root may give notice" {
			t.Errorf("%v", err)
		}
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(strings.Repeat("x", 2*mostLine) + "\n")); err != nil && !errors.Is(err, unix.EPIPE) { // it may have had enough
		t.Fatal(err)
	}
	answer := make([]byte, 1024)
	if n, _ := c.Read(answer); !strings.Contains(string(answer[:n]), `"error"`) {
		t.Errorf("%s", answer[:n])
	}
}
