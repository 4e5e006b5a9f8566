package ssh

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// tryLock locks a file against others who do, until it is closed, and does not
// wait for them.
func tryLock(file *os.File) (bool, error) {
	// A byte far beyond the end: locks on Windows are mandatory, and others may read.
	at := windows.Overlapped{OffsetHigh: 1 << 30}
	err := windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}
