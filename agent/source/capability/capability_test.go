package capability

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// The kernel tells the same as a mask of CapEff in /proc.
func TestHeld(t *testing.T) {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "CapEff:\t")
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(line, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	for c := uint(0); c <= unix.CAP_LAST_CAP; c++ {
		if got, want := Held(c), mask>>c&1 == 1; got != want {
			t.Errorf("capability %d: held %v, want %v", c, got, want)
		}
		needs := "the capability"
		if Held(c) {
			needs = Policy
		}
		if got := Missing("the capability", c); got != needs {
			t.Errorf("capability %d: missing %q, want %q", c, got, needs)
		}
	}
}
