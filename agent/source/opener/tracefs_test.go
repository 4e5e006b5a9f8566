package opener

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/internal/need"
)

// inTracefs calls open where tracefs is mounted: in a mount namespace of a thread
// that ends with it, where the machine has none.
func inTracefs(t *testing.T, open func() error) {
	t.Helper()
	const where = "/sys/kernel/tracing"
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends
		done <- func() error {
			if _, err := os.Stat(where + "/events"); err == nil {
				return open()
			}
			if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
				return os.NewSyscallError("unshare", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return os.NewSyscallError("mount", err)
			}
			if err := unix.Mount("tracefs", where, "tracefs", 0, ""); err != nil {
				return os.NewSyscallError("mount", err)
			}
			return open()
		}()
	}()
	need.Feature(t, "tracepoints of system calls", <-done)
}
