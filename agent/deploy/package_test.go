package deploy_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/internal/need"
)

// packed builds packages of these kinds, and returns their paths.
func packed(t *testing.T, kinds ...string) []string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("../../scripts/package", kinds...)
	cmd.Env = append(os.Environ(), "DIST="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("scripts/package: %v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != len(kinds) {
		t.Fatalf("%v made %q, %v", kinds, files, err)
	}
	return files
}

// TestPackage: dpkg installs the package on a copy of this machine, lifeline looks
// there, an update keeps the policy as it was changed, and a purge leaves nothing.
func TestPackage(t *testing.T) {
	t.Parallel()
	need.Root(t)
	for _, program := range []string{"dpkg", "unshare"} {
		need.Program(t, program)
	}
	kinds := []string{"deb/" + runtime.GOARCH, "rpm/" + runtime.GOARCH}
	files := packed(t, kinds...)
	deb, rpm := files[slices.IndexFunc(files, isDeb)], files[slices.IndexFunc(files, func(f string) bool { return !isDeb(f) })]
	var left, said bytes.Buffer
	cmd := exec.Command("testdata/install.sh", t.TempDir(), deb)
	cmd.Stdout, cmd.Stderr = &left, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	if left.Len() > 0 {
		t.Errorf("a purge leaves\n%s", left.String())
	}
	if n := strings.Count(said.String(), "lifeline: nothing was started"); n != 1 {
		t.Errorf("how to start it is said %d times, want once, at the first installation:\n%s", n, said.String())
	}
	lists(t, rpm)
	for i, again := range packed(t, kinds...) {
		if !same(t, files[i], again) {
			t.Errorf("the same commit gives another %s the second time", filepath.Base(again))
		}
	}
}

func isDeb(path string) bool { return strings.HasSuffix(path, ".deb") }

// lists asks rpm whether a package is whole, and what is in it.
func lists(t *testing.T, file string) {
	t.Helper()
	program := need.Program(t, "rpm")
	for _, c := range []struct{ ask, has string }{
		{"-K", "digests OK"},
		{"-qpl", "/usr/lib/systemd/system/lifeline.service\n"},
		{"-qpl", "/usr/bin/lifeline\n"},
		{"-qpc", "/etc/lifeline/policy.yaml\n"}, // kept as it was changed
		{"-qpi", "Build Host  : localhost\n"},
	} {
		if out, err := exec.Command(program, c.ask, file).CombinedOutput(); err != nil || !strings.Contains(string(out), c.has) {
			t.Errorf("rpm %s: %v, no %q in\n%s", c.ask, err, c.has, out)
		}
	}
}

func same(t *testing.T, a, b string) bool {
	t.Helper()
	x, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x, y)
}
