package opener

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// rootCgroup opens the cgroup v2 that all others are below: where it is mounted,
// and where it is not, by a mount that no path leads to. A process in a cgroup
// namespace of its own gets the topmost that this has.
func rootCgroup() (*os.File, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(table)) {
		// 41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
		left, right, _ := strings.Cut(line, " - ")
		f := strings.Fields(left)
		if len(f) < 5 || f[3] != "/" || !strings.HasPrefix(right, "cgroup2 ") {
			continue
		}
		if dir, err := os.Open(strings.ReplaceAll(f[4], `\040`, " ")); err == nil {
			return dir, nil
		}
	}
	dir, err := mountCgroup()
	if err != nil {
		return nil, fmt.Errorf("no cgroup v2 is mounted, and mounting one failed: %w", err)
	}
	return dir, nil
}

func mountCgroup() (*os.File, error) {
	fs, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	dir, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	return os.NewFile(uintptr(dir), "cgroup2"), nil
}
