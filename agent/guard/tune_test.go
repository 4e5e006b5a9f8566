//go:build linux

package guard

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/internal/need"
)

// cgroup makes an empty cgroup.
func cgroup(t *testing.T) string {
	t.Helper()
	need.Root(t)
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); strings.Contains(line, " - cgroup2 ") {
			path := filepath.Join(fields[4], fmt.Sprintf("lifeline-guard-%d", os.Getpid()))
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Remove(path) })
			return path
		}
	}
	need.Feature(t, "cgroup v2", os.ErrNotExist)
	return ""
}

// A tune that could not be written down, or was cut short, is made up for, all of
// it.
func TestTuneAgain(t *testing.T) {
	t.Parallel()
	of, err := node.ParseNamespaces("self")
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.Mkdir(log, 0o700); err != nil { // no file can be there
		t.Fatal(err)
	}
	g := New(Options{Agent: newWatcher(), Audit: log, Of: of})
	defer g.Close()
	kept := &tended{Tune: policy.Tune{Cgroup: cgroup(t)}}
	defer g.release(t.Context(), kept)
	g.tend(t.Context(), kept)
	if kept.held != nil || kept.next.Before(time.Now()) {
		t.Fatalf("%+v", kept)
	}
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	kept.next = time.Time{}
	if g.tend(t.Context(), kept); kept.held == nil {
		need.Feature(t, "BPF programs of cgroups", os.ErrNotExist)
	}
	if !kept.tuned {
		t.Errorf("%+v", kept)
	}
	kept.tuned = false // as if the look at those that are there had failed
	if g.tend(t.Context(), kept); !kept.tuned || kept.held == nil {
		t.Errorf("what was there is not looked at again: %+v", kept)
	}
}
