package main

import (
	"os"
	"testing"

	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// TestCommitted holds that the committed document is what the rules say.
func TestCommitted(t *testing.T) {
	seen, err := examples("../testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range verdict.Rules {
		if seen[r.Code] == "" {
			t.Errorf("no scenario shows %s", r.Code)
		}
	}
	committed, err := os.ReadFile("../../../docs/findings.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(committed) != page(verdict.Rules, seen) {
		t.Error("docs/findings.md is not what the rules say: run go generate in agent/verdict")
	}
}
