//go:build unix

package ssh_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// lockFile locks a file as another process would.
func lockFile(t *testing.T, name string) (unlock func()) {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { file.Close() }
}
