// Package need skips a test by name when something that it needs is missing.
// It is the only place that may skip: where CI is set, nothing may be missing,
// so there a skip is a failure.
package need

import (
	"os"
	"os/exec"
)

// T is the test that needs something: a testing.TB. It has no more methods than
// are used here so that a package that programs import as well, agent/lab, can
// ask without linking package testing and its flags into them.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Root needs user 0, for namespaces and other users' processes.
func Root(t T) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root")
	}
}

// Program needs an executable on the PATH and returns where it is.
func Program(t T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, "the program "+name)
	}
	return path
}

// Feature needs something of the kernel; err is why it is not to be had, nil
// when it is.
func Feature(t T, name string, err error) {
	t.Helper()
	if err != nil {
		missing(t, name+" ("+err.Error()+")")
	}
}

func missing(t T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("needs %s, and in CI nothing may be missing", what)
	}
	t.Skipf("needs %s", what)
}
