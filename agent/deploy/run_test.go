package deploy_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/internal/need"
)

// TestRun: what make run does leaves an agent running, says what it saw first, takes
// the place of the one before, says so when its port is taken, and is ended by what
// make stop does. It runs in a folder of its own, beside that of somebody who works here.
func TestRun(t *testing.T) {
	t.Parallel()
	need.Root(t)
	dir := t.TempDir()
	if out, err := exec.Command("cp", "-r", "../../scripts", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(built(t), filepath.Join(dir, "bin/lifeline")); err != nil {
		t.Fatal(err)
	}
	agent := func(args ...string) (said string, code int) {
		cmd := exec.Command(filepath.Join(dir, "scripts/agent"), args...)
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	t.Cleanup(func() { agent("stop") })
	at := need.Address(t)
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	if said, code := agent("start", at); code == 0 || said != "make run: another program listens on "+at+": make run LISTEN=127.0.0.1:7118\n" {
		t.Errorf("on a port that is taken: exit code %d, %s", code, said)
	}
	l.Close()
	for _, again := range []bool{false, true} {
		said, code := agent("start", at)
		if code != 0 || !strings.Contains(said, "Its page: http://"+at+"/") || strings.Contains(said, "The agent that ran has ended") != again {
			t.Fatalf("exit code %d: %s", code, said)
		}
		for _, promise := range []string{"names ", "calls ", "silence ", "leaks "} {
			if !strings.Contains("\n"+said, "\n"+promise) {
				t.Errorf("it says nothing of %s: %s", promise, said)
			}
		}
	}
	if said, code := agent("stop"); code != 0 || !strings.Contains(said, "has ended") {
		t.Errorf("exit code %d: %s", code, said)
	}
	if l, err = net.Listen("tcp", at); err != nil {
		t.Errorf("it has not ended: %v", err)
	} else {
		l.Close()
	}
}
