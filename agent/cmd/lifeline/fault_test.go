package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/internal/need"
)

// untracked runs the command on a host as if its kernel tracked no connections:
// what would tell of that is hidden from it, in a mount namespace of its own.
func untracked(t *testing.T, h *lab.Host, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	need.Program(t, "unshare")
	need.Program(t, "mount")
	const hide = `mount --make-rprivate /proc && mount --make-rprivate /sys &&
		{ [ ! -d /proc/sys/net/netfilter ] || mount -t tmpfs none /proc/sys/net/netfilter; } && mount -t tmpfs none /sys/module && exec "$@"`
	cmd := h.Command("unshare", append([]string{"--mount", "--propagation", "unchanged", "sh", "-c", hide, "sh", program(t)}, args...)...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// Where connections are not tracked, what is forwarded is not known, and both
// commands say so. The connections of the machine's own programs still are.
func TestWithoutConntrack(t *testing.T) {
	near, _, _ := wired(t, 7)
	for _, yes := range []string{"--yes=false", "--yes"} {
		stdout, stderr, code := untracked(t, near, "evac", yes)
		want := "lifeline evac: conntrack: the kernel does not track connections (nf_conntrack is not loaded): unsupported operation; " +
			"without it, run lifeline cut --peer with the address of this node on the machines at both ends\n"
		if code != exitBlind || stdout != "" || stderr != want {
			t.Errorf("evac %s: exit code %d:\n%s%s", yes, code, stdout, stderr)
		}
	}
	stdout, stderr, code := untracked(t, near, "silence", "--netns", "self", "--what-if", "10.77.1.2")
	told := strings.Join(strings.Fields(stderr), " ") // it is wrapped
	if code != exitWell || !strings.Contains(stdout, "If 10.77.1.2 dies now without a word, 7 connections fall silent.") ||
		!strings.Contains(stdout, "Flows that this machine forwards are not known.") ||
		!strings.Contains(told, "the kernel tracks no connections, so it does not know those that it forwards; needs the kernel modules nf_conntrack and nf_conntrack_netlink") {
		t.Errorf("what if: exit code %d:\n%s%s", code, stdout, stderr)
	}
	stdout, stderr, _ = untracked(t, near, "silence", "--netns", "self", "--what-if", "10.77.1.2", "--json")
	var d struct {
		Count   int
		Transit []any
		Blind   []struct{ Source, Needs string }
	}
	if err := json.Unmarshal([]byte(stdout), &d); err != nil {
		t.Fatalf("%v: %s%s", err, stdout, stderr)
	}
	if d.Count != 7 || d.Transit != nil || len(d.Blind) == 0 || d.Blind[len(d.Blind)-1].Source != "conntrack" {
		t.Errorf("as JSON: %+v", d)
	}
}
