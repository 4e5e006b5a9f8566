package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "6"); err != nil { // they wait most of the time
		panic(err)
	}
	testscript.Main(leakcheck.Checked{Tests: cleaning{m}}, map[string]func(){"lifeline": main, "opens": opens, "hears": hears})
}

// cleaning runs tests, and removes what was built for them.
type cleaning struct{ tests *testing.M }

func (c cleaning) Run() int {
	defer func() { _ = os.RemoveAll(built.folder) }()
	return c.tests.Run()
}

// built is the command as users have it.
var built struct {
	once         sync.Once
	folder, path string
	err          error
}

// quick returns the command without the race detector, with which it takes many
// times as long: for tests of what the agent paces by what it takes.
func quick(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.folder, built.err = os.MkdirTemp("", "lifeline-test"); built.err != nil {
			return
		}
		_ = os.Chmod(built.folder, 0o755) // others run it too
		built.path = filepath.Join(built.folder, "lifeline")
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", built.path, ".")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"until": until},
	})
}

// until runs a command until its output matches, and then sends it a signal:
//
//	until INT 'REGEXP' lifeline census --watch
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: until INT|TERM REGEXP COMMAND…")
	}
	signal := map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM}[args[0]]
	want := regexp.MustCompile("(?m)" + args[1])
	cmd := exec.Command(args[2], args[3:]...)
	cmd.Dir, cmd.Stderr = ts.MkAbs("."), ts.Stderr()
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	var said []byte
	for buf, sent := make([]byte, 64<<10), false; ; {
		n, err := out.Read(buf)
		said = append(said, buf[:n]...)
		if !sent && want.Match(said) {
			sent = true
			_ = cmd.Process.Signal(signal)
		}
		if err != nil {
			break
		}
	}
	_ = cmd.Wait() // which exit code does not matter here
	_, _ = ts.Stdout().Write(said)
}

// lifeline runs the command in this process.
func lifeline(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(context.Background(), args, &out, &errs)
	return out.String(), errs.String(), code
}

// document runs the command with --json and decodes what it prints.
func document(t *testing.T, into any, args ...string) {
	t.Helper()
	stdout, stderr, code := lifeline(t, append(args, "--json")...)
	if code > exitFindings {
		t.Fatalf("lifeline %v: exit code %d: %s", args, code, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), into); err != nil {
		t.Fatalf("lifeline %v --json: %v\n%s", args, err, stdout)
	}
}
