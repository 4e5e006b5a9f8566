package gobin

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// What Programs finds is what Scan finds, the second time from memory; what
// changed, came or went in between is seen.
func TestPrograms(t *testing.T) {
	dir := t.TempDir()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	sh, err := exec.LookPath("ls")
	if err != nil {
		t.Fatal(err)
	}
	system, err := os.ReadFile(sh)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put("own", self)
	put("system", system)
	put("script", []byte("#!/bin/sh\n"))
	var p Programs
	paths := func(found fact.Executables) (all []string) {
		for i := range found.Binaries {
			all = append(all, filepath.Base(found.Binaries[i].Path)+" "+found.Binaries[i].Go)
		}
		return all
	}
	check := func(read int) {
		t.Helper()
		want, _ := Scan(t.Context(), []string{dir})
		before := p.known
		got, blind := p.Scan(t.Context(), []string{dir})
		if len(blind) > 0 || !slices.Equal(paths(got), paths(want)) || got.Scripts != want.Scripts {
			t.Errorf("found %v, and Scan %v; %v", paths(got), paths(want), blind)
		}
		fresh := 0
		for key := range p.known {
			if _, was := before[key]; !was {
				fresh++
			}
		}
		if fresh != read {
			t.Errorf("%d files were read, want %d", fresh, read)
		}
	}
	check(2)
	check(0)
	put("own", system)
	check(1)
	if err := os.Remove(filepath.Join(dir, "system")); err != nil {
		t.Fatal(err)
	}
	check(0)
	if len(p.known) != 1 {
		t.Errorf("%d files are remembered, and there is one", len(p.known))
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if got, _ := p.Scan(ended, []string{dir}); !got.Cut || len(p.known) != 1 {
		t.Errorf("a scan that was ended: cut %t, and remembers %d files", got.Cut, len(p.known))
	}
}

func BenchmarkProgramsAgain(b *testing.B) {
	var p Programs
	places := filepath.SplitList(os.Getenv("PATH"))
	p.Scan(b.Context(), places)
	for b.Loop() {
		p.Scan(b.Context(), places)
	}
}
