package history_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/history"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// eventful writes an hour: the 4,224 vanish within three records, others come in
// their place, the agent does not run for a while in which a peer goes, and all the
// time connections of another one come and go. Each record is 3 s after its census.
func eventful(t *testing.T) *history.Store {
	s := open(t, filepath.Join(t.TempDir(), "history.db"), history.Options{})
	finding := func(code, about string, first time.Duration, resolved time.Duration) state.Finding {
		f := state.Finding{ID: code + " " + about, First: noon.Add(first), Last: noon.Add(first), Count: 7,
			Finding: verdict.Finding{Code: code, Severity: verdict.Fail, Title: about}}
		if end := noon.Add(resolved); resolved > 0 {
			f.Resolved = &end
		}
		return f
	}
	for i := range 360 {
		at := noon.Add(time.Duration(i) * 10 * time.Second)
		groups := []state.Group{group("10.77.2.1", 20+i%2)}
		dead := map[int]int{180: 4000, 181: 17}
		switch left, dying := dead[i]; {
		case i < 180:
			groups = append(groups, group("10.77.1.2", 4224))
		case dying:
			groups = append(groups, group("10.77.1.2", left))
		default:
			other := group("10.77.1.3", 900)
			other.Program = "proxy"
			groups = append(groups, group("10.77.1.3", 3000), other)
		}
		if i < 250 {
			groups = append(groups, group("10.77.9.9", 500))
		}
		if i >= 240 && i < 270 { // the agent does not run
			continue
		}
		add(t, s, history.Record{Time: at.Add(3 * time.Second), Groups: groups, Totals: state.Totals{Looked: at}, Findings: []state.Finding{
			finding("S001", "peer=10.77.1.2 netns=1", 10*time.Minute, 31*time.Minute),
			finding("N001", "server=10.0.0.53", 30*time.Minute+5*time.Second, 0),
			finding("L004", "process=agent", 50*time.Minute, 0),
			finding("S002", "peer=10.77.2.1", -time.Hour, 0),
		}})
	}
	return s
}

// tale is a story in short.
func tale(s *state.Story) string {
	var text []string
	minute := func(t time.Time) string { return fmt.Sprint(t.Sub(noon)) }
	for _, e := range s.Events {
		var parts []string
		for _, c := range e.Shifts {
			parts = append(parts, fmt.Sprintf("%s %d→%d by %s", c.Peer, c.From, c.To, strings.Join(c.Programs, "+")))
			if c.Gap {
				parts = append(parts, "in a gap")
			}
		}
		for _, f := range e.Findings {
			parts = append(parts, f.Code)
		}
		begin, end := e.Span()
		if e.Begin.Sub(begin) != 3*time.Second || e.End.Sub(end) != 3*time.Second {
			parts = append(parts, "other records")
		}
		text = append(text, minute(begin)+"-"+minute(end)+": "+strings.Join(parts, ", "))
	}
	for _, f := range s.Findings {
		text = append(text, f.Code)
	}
	return strings.Join(text, "\n")
}

func TestStory(t *testing.T) {
	s := eventful(t)
	for _, test := range []struct {
		filter        state.Filter
		from, to      time.Duration
		most          int
		want          string
		before, after int
	}{
		{state.Filter{}, -time.Hour, 2 * time.Hour, 3, `29m50s-30m20s: 10.77.1.2 4224→0 by ws-server, 10.77.1.3 0→3900 by ws-server+proxy, S001, N001
39m50s-45m0s: 10.77.9.9 500→0 by ws-server, in a gap
L004`, 4744, 3921},
		{state.Filter{Series: state.Series{Peer: "10.77.1.0/24"}}, 0, time.Hour, 1, "29m50s-30m20s: 10.77.1.2 4224→0 by ws-server, S001, N001", 4224, 3900},
		{state.Filter{Series: state.Series{Program: "proxy"}}, 0, time.Hour, 0, "30m10s-30m20s: 10.77.1.3 0→900 by proxy, N001", 0, 900},
		{state.Filter{}, 30*time.Minute + 5*time.Second, 30*time.Minute + 15*time.Second, 1, "30m0s-30m10s: 10.77.1.2 4000→17 by ws-server, S001, N001", 4520, 538},
		{state.Filter{}, 42 * time.Minute, 44 * time.Minute, 5, "", 4421, 4421},
		{state.Filter{Series: state.Series{Peer: "10.77.1.0/24"}}, 40 * time.Minute, time.Hour, 5, "", 3900, 3900},
		{state.Filter{Series: state.Series{Peer: "10.77.1.0/28"}}, 30*time.Minute + 30*time.Second, time.Hour, 5, "S001", 3900, 3900},
		{state.Filter{}, 0, time.Hour, 100, `29m50s-30m20s: 10.77.1.2 4224→0 by ws-server, 10.77.1.3 0→3900 by ws-server+proxy, S001, N001
39m50s-45m0s: 10.77.9.9 500→0 by ws-server, in a gap
L004`, 4744, 3921},
		{state.Filter{Series: state.Series{Program: "agent"}}, 0, time.Hour, 5, "L004", 0, 0},
		{state.Filter{Series: state.Series{Peer: "10.77.9.8"}}, 0, time.Hour, 5, "", 0, 0},
	} {
		got, err := s.Story(t.Context(), test.filter, noon.Add(test.from), noon.Add(test.to), test.most)
		if err != nil {
			t.Fatal(err)
		}
		if tale(&got) != test.want || got.Before != test.before || got.After != test.after {
			t.Errorf("%+v from %v to %v: %d, then %d\n%s\nwant %d, then %d\n%s", test.filter, test.from, test.to, got.Before, got.After, tale(&got), test.before, test.after, test.want)
		}
	}
	empty := open(t, filepath.Join(t.TempDir(), "history.db"), history.Options{})
	if _, err := empty.Story(t.Context(), state.Filter{}, noon, noon.Add(time.Hour), 0); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("an empty history: %v", err)
	}
	if _, err := s.Story(t.Context(), state.Filter{}, noon.Add(-2*time.Hour), noon.Add(-time.Hour), 0); err == nil || !strings.Contains(err.Error(), "no history before") {
		t.Errorf("before it begins: %v", err)
	}
}
