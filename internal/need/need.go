// Package need skips a test by name when something that it needs is missing.
// It is the only place that may skip: where CI is set, nothing may be missing,
// so there a skip is a failure.
package need

import (
	"os"
	"os/exec"
	"testing"
)

// Root needs user 0, for namespaces and other users' processes.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root")
	}
}

// Program needs an executable on the PATH and returns where it is.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, "the program "+name)
	}
	return path
}

// Feature needs something of the kernel; err is why it is not to be had, nil
// when it is.
func Feature(t testing.TB, name string, err error) {
	t.Helper()
	if err != nil {
		missing(t, name+" ("+err.Error()+")")
	}
}

func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("needs %s, and in CI nothing may be missing", what)
	}
	t.Skipf("needs %s", what)
}
