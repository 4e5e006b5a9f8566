package show

import (
	"bytes"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

func agentState() *state.State {
	s := &state.State{}
	for p := verdict.Names; p <= verdict.Leaks; p++ {
		s.Promises = append(s.Promises, state.Promise{Promise: p, Status: state.Kept, Summary: "3 of them looked at"})
	}
	return s
}

// What answers in place of an agent draws nothing on the terminal.
func TestStatusDrawsNothing(t *testing.T) {
	const evil = "\x1b]0;owned\x07\u202e"
	needs := evil
	s := &state.State{Promises: []state.Promise{{Status: evil, Summary: evil}}, Blind: []state.Blind{{Source: evil, Error: evil, Needs: &needs}},
		Findings: []state.Finding{{Finding: verdict.Finding{Code: evil, Title: evil, Why: evil, Fix: []string{evil}, Evidence: verdict.Values{{Key: evil, V: evil}}}}}}
	var b bytes.Buffer
	Status(&b, s, Style{})
	if strings.ContainsAny(b.String(), "\x1b\x07\u202e") || !strings.Contains(b.String(), `\x1b]0;owned`) {
		t.Errorf("%q", b.String())
	}
}

func TestStatus(t *testing.T) {
	needs := "CAP_NET_ADMIN"
	for _, c := range []struct {
		change func(*state.State)
		ends   string
		has    string
		alone  string
	}{
		{func(*state.State) {}, "\nAll four promises are kept.\n", "silence  kept    3 of them looked at\n", "All four promises are kept"},
		{func(s *state.State) { s.Promises[0].Status = state.Unknown }, "\nNothing found, 1 promise could not be looked at.\n", "names    unknown ", "Nothing found, 1 promise could not be looked at"},
		{func(s *state.State) { s.Blind = []state.Blind{{Source: "pokes", Error: "no", Needs: &needs}} },
			"\nAll four promises are kept, as far as could be seen: 1 blind spot above.\n", "pokes: no; needs CAP_NET_ADMIN",
			"All four promises are kept, as far as could be seen: 1 blind spot"},
		{func(s *state.State) {
			s.Promises[2].Status = state.Broken
			s.Findings = []state.Finding{
				{Finding: verdict.Finding{Code: "S001", Severity: verdict.Fail, Title: "10.77.1.2 is silent", Why: "It is dead.", Fix: []string{"lifeline cut"}}, ID: "one"},
				{Finding: verdict.Finding{Code: "S002", Title: "hidden"}, Cause: "one"},
			}
		}, "\n1 finding open.\n", "do:   lifeline cut", "1 finding open: 10.77.1.2 is silent"},
	} {
		s := agentState()
		c.change(s)
		var b bytes.Buffer
		Status(&b, s, Style{})
		if alone := Summary(s); alone != c.alone {
			t.Errorf("in one line it is %q, not %q", alone, c.alone)
		}
		if got := b.String(); !strings.HasSuffix(got, c.ends) || !strings.Contains(got, c.has) || strings.Contains(got, "hidden") {
			t.Errorf("want %q and %q at the end, got\n%s", c.has, c.ends, got)
		}
	}
}
