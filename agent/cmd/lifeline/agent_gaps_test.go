package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/agent/state"
)

// Each gap is told once, whatever its numbers; a source that is late is told
// when it begins and when it ends.
func TestGaps(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	var g gaps
	needs := "CAP_SYS_PTRACE"
	look := func(blind, late string) string {
		t.Helper()
		out.Reset()
		s := &state.State{Sources: []state.Source{{Name: "census", Late: strings.HasPrefix(late, "under way"), Error: late}}}
		if blind != "" {
			s.Blind = []state.Blind{{Source: "owners", Error: blind, Needs: &needs}}
		}
		g.tell(log, s)
		return out.String()
	}
	if said := look("of 7 of 90 processes", ""); !strings.Contains(said, "cannot be seen") || !strings.Contains(said, "needs=CAP_SYS_PTRACE") {
		t.Errorf("of the first look it says %q", said)
	}
	for _, step := range []struct{ blind, late, says string }{
		{"of 8 of 91 processes", "", ""},
		{"", "under way for 31s", "source is late"},
		{"", "under way for 32s", ""},
		{"of 8 of 91 processes", "no such file", "source failed"},
		{"", "", "source looks again"},
		{"of the kernel", "", "cannot be seen"},
	} {
		if said := look(step.blind, step.late); (said == "") != (step.says == "") || !strings.Contains(said, step.says) || strings.Count(said, "\n") > 1 {
			t.Errorf("%+v: it says %q", step, said)
		}
	}
}

// An agent without any right says in its log what it cannot see, and which
// capability would show it.
func TestAgentUnprivileged(t *testing.T) {
	t.Parallel()
	w := watching(t, nil, nobodyCommand(t, "agent", "--listen", "127.0.0.1:0", "--passive", "--json", "--history", "none"))
	for said := (event{}); said.Needs == ""; {
		said = w.next("cannot be seen")
	}
	s := w.until("what it cannot see", func(s *state.State) bool { return len(s.Blind) > 0 && sourceOf(s, "census").Last != nil })
	keys := make(map[string]bool)
	for i := range s.Blind {
		if key := s.Blind[i].Key() + s.Blind[i].Error; keys[key] {
			t.Errorf("the same gap twice: %+v", s.Blind)
		} else {
			keys[key] = true
		}
	}
	w.end()
}
