package main

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) {
	testscript.Main(leakcheck.Checked{Tests: m}, map[string]func(){"lifeline": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", RequireExplicitExec: true})
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
