package daemon

import (
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// A policy leaves findings out at once, and the next one brings them back with
// the life they had; what it says of itself is published.
func TestPolicy(t *testing.T) {
	d := New(Options{})
	d.sources = nil
	stop := running(t, d)
	about := func(code, peer string) verdict.Finding {
		return verdict.Finding{Code: code, Promise: verdict.Silence, Severity: verdict.Fail, Title: peer, Subject: verdict.Values{{Key: "peer", V: peer}}}
	}
	d.take(func(k *known) {
		k.found(time.Now(), fromPeers, []verdict.Finding{about("S001", "10.9.0.7"), about("S001", "10.8.0.7")}, nil)
	})
	first := until(t, d, func(s *state.State) bool { return len(s.Findings) == 2 })
	p, err := policy.Parse([]byte("ignore: {peers: [10.9.0.0/16]}"))
	if err != nil {
		t.Fatal(err)
	}
	d.SetPolicy(p, state.Policy{Path: "/p", Error: "line 1: no"})
	s := until(t, d, func(s *state.State) bool { return len(s.Findings) == 1 })
	if s.Findings[0].Title != "10.8.0.7" || s.Agent.Policy.Path != "/p" || s.Agent.Policy.Error != "line 1: no" || s.Agent.Policy.Acts == nil {
		t.Errorf("%+v %+v", s.Findings[0].Title, s.Agent.Policy)
	}
	d.SetPolicy(&policy.Policy{}, state.Policy{})
	s = until(t, d, func(s *state.State) bool { return len(s.Findings) == 2 })
	for i := range s.Findings {
		if s.Findings[i].ID != first.Findings[i].ID || !s.Findings[i].First.Equal(first.Findings[i].First) {
			t.Errorf("%s began anew", s.Findings[i].ID)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestIgnoredCauseHidesNothing(t *testing.T) {
	p := &policy.Policy{Codes: []string{"S001"}}
	all := kept(p, []state.Finding{
		{ID: "root", Finding: verdict.Finding{Code: "S001"}, Hides: 1},
		{ID: "left", Finding: verdict.Finding{Code: "S002"}, Cause: "root"},
	})
	if len(all) != 1 || all[0].ID != "left" || all[0].Cause != "" {
		t.Errorf("%+v", all)
	}
}
