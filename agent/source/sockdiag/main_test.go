package sockdiag

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(holdVariable); kind != "" {
		hold(kind)
		return
	}
	leakcheck.Main(m)
}

// quiet runs fn on a thread of its own in a network namespace of its own, where
// nothing but fn makes sockets. The thread, and the namespace with it, goes
// away afterwards. What fn returns fails the test.
func quiet(t testing.TB, fn func(inode uint32) error) {
	t.Helper()
	need.Root(t)
	need.Program(t, "ip")
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return os.NewSyscallError("unshare", err)
			}
			if err := run("ip", "link", "set", "lo", "up"); err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
				return err
			}
			return fn(uint32(st.Ino))
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// run runs a program in the namespace of the calling thread.
func run(name string, args ...string) error {
	_, err := output(name, args...)
	return err
}

func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
