package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/agent/lab/vpn"
	"github.com/lifeline-go/lifeline/internal/need"
)

// static builds the command as make build does: a program whose names Go
// resolves, which no test binary under the race detector is.
func static(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lifeline")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	return path
}

// The whole story: who only has Go fails, and everybody whom Lifeline helps
// gets through, the plugin too.
func TestLabNames(t *testing.T) {
	t.Parallel()
	need.Root(t)
	for _, program := range append([]string{"ip", "nsenter"}, vpn.Needs...) {
		need.Program(t, program)
	}
	out, err := exec.Command(static(t), "lab", "names", "--json").Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var d struct {
		Runs []struct {
			Story, Client, With, Said string
			Count                     int
			Seconds                   float64
			OK                        bool
		}
	}
	if err := json.Unmarshal(out, &d); err != nil {
		t.Fatal(err)
	}
	alone := make(map[string]float64)
	for _, r := range d.Runs {
		if with := vpn.With(r.With); with == vpn.Alone {
			alone[r.Client] = r.Seconds
			if r.OK || r.Seconds < 9 {
				t.Errorf("%+v, want it to fail after 10 s or 20", r)
			}
		}
	}
	if len(d.Runs) < 5 || alone[vpn.Static] == 0 {
		t.Errorf("%+v", d.Runs)
	}
	for _, r := range d.Runs {
		t.Logf("%s, %s: %.2f s: %s", r.Client, r.With, r.Seconds, r.Said)
		if r.With != string(vpn.Alone) && (!r.OK || r.Story != "names" || r.Count != 1 || r.Client != vpn.Getent && !strings.Contains(r.Said, "worker-1")) {
			t.Errorf("%+v, want the node's name", r)
		}
	}
}

func TestLabNamesUsage(t *testing.T) {
	for _, args := range [][]string{{"--wait", "1ms"}, {"--kubectl", "/nowhere/kubectl"}, {"extra"}} {
		if stdout, stderr, code := lifeline(t, append([]string{"lab", "names"}, args...)...); code != exitUsage || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit code %d, %q%q", args, code, stdout, stderr)
		}
	}
}
