package knownhosts

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// tryLock locks a file against others who do, until it is closed. It does not
// wait. The byte that is locked is far behind the end: on Windows a lock keeps
// others from reading.
func tryLock(file *os.File) (bool, error) {
	behind := windows.Overlapped{OffsetHigh: 1 << 30}
	err := windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &behind)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}
