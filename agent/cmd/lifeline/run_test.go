package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The keeper of a program begins, and is begun, before what takes milliseconds to be
// initialised.
func TestKeeperBeginsEarly(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(quick(t), "run-keeper")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	text, _ := cmd.CombinedOutput() // it has nobody to keep for, and fails
	before, _, ok := strings.Cut(string(text), "init github.com/lifeline-go/lifeline/agent/cmd/lifeline/early ")
	if !ok || !strings.HasSuffix(string(text), "lifeline run-keeper: this is started by lifeline run only\n") {
		t.Fatalf("not what a keeper says:\n%s", text)
	}
	for _, late := range []string{"net ", "net/http ", "github.com/prometheus/", "github.com/spf13/", "modernc.org/sqlite", "charm.land/", "go.opentelemetry.io/"} {
		if strings.Contains(before, "init "+late) {
			t.Errorf("%s is initialised before: package early must import less", late)
		}
	}
}
