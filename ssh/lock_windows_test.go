package ssh_test

import (
	"os"
	"testing"

	"golang.org/x/sys/windows"
)

// lockFile locks a file as another process would.
func lockFile(t *testing.T, name string) (unlock func()) {
	t.Helper()
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, &windows.Overlapped{OffsetHigh: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	return func() { file.Close() }
}
