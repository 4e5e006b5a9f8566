package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/lifeline-go/lifeline/agent/state"
)

// An agent looks up the names that its policy watches: the doctor's table is in
// its state, what it means are findings, and SIGHUP changes the names at once.
// It says which programs would fail.
func TestAgentNames(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	nameserver(t, o.far, alive, func(q question) reply {
		switch {
		case q.name == "api.corp.example" && q.edns: // Go asks so, and the C library does not
			return code(formatError)
		case q.name == "api.corp.example", q.name == "db.corp.example":
			return addresses("10.1.2.3")
		}
		return code(noSuchName)
	})
	file := filepath.Join(o.dir, "policy.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("watch:\n  names: [api.corp.example, bücher.corp.example]\n")
	w := watching(t, o.box, o.command("agent", "--listen", "127.0.0.1:0", "--json", "--history", "none", "--netns", "self", "--policy", file))
	names := func(s *state.State) (all []string) {
		if s.Names == nil {
			return nil
		}
		for _, n := range s.Names.Names {
			all = append(all, n.Name)
		}
		return all
	}
	lost := func(f state.Finding) bool { return f.Code == "N006" && strings.Contains(f.Title, "api.corp.example") }
	s := w.until("the names of the policy, and that Go's resolver loses one", func(s *state.State) bool { // when all ways had the time that they need
		return slices.Equal(names(s), []string{"api.corp.example", "bücher.corp.example"}) && len(s.Names.Programs) > 0 && slices.ContainsFunc(s.Findings, lost)
	})
	answer := func(way string) string {
		for _, w := range s.Names.Names[0].Ways {
			if w.Way == way && w.Family == "both" {
				return w.Answer + " " + strings.Join(w.Addresses, ",")
			}
		}
		return "no such way"
	}
	if answer("getaddrinfo") != "addresses 10.1.2.3" || answer("go") == "addresses 10.1.2.3" {
		t.Errorf("getaddrinfo says %q, Go's resolver %q: %+v", answer("getaddrinfo"), answer("go"), s.Names.Names[0])
	}
	for _, r := range s.Names.Programs {
		if r.Count != len(r.Examples) || r.Resolver == "system" && r.Fails == nil { // unknown, where the machine is so busy that they cannot be read in time
			t.Errorf("the programs are %+v", s.Names.Programs)
		}
	}
	write("watch:\n  names: [db.corp.example]\n")
	_ = w.cmd.Process.Signal(syscall.SIGHUP)
	w.until("the other names", func(s *state.State) bool {
		return slices.Equal(names(s), []string{"db.corp.example"}) && s.Names.Names[0].Ways[1].OK
	})
	write("watch:\n  names: [no..name]\n")
	_ = w.cmd.Process.Signal(syscall.SIGHUP)
	w.until("that the policy is bad", func(s *state.State) bool { return strings.Contains(s.Agent.Policy.Error, "no..name") })
	w.end()
}
