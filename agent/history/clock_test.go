package history_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/history"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// A clock that jumps back and forth loses nothing, and what was written later counts.
func TestClockJumps(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "history.db"), history.Options{})
	for i, after := range []time.Duration{0, 10 * time.Minute, 20 * time.Minute, 5 * time.Minute, 15 * time.Minute, 24 * 365 * time.Hour, 16 * time.Minute} {
		add(t, s, history.Record{Time: noon.Add(after), Groups: []state.Group{group("10.0.0.1", i)}})
	}
	for after, want := range map[time.Duration]string{0: "10.0.0.1=0", 6 * time.Minute: "10.0.0.1=3", 15 * time.Minute: "10.0.0.1=4", 17 * time.Minute: "10.0.0.1=6", 30 * time.Minute: "10.0.0.1=2"} {
		if past, err := s.At(t.Context(), noon.Add(after)); err != nil || counts(past.Groups) != want {
			t.Errorf("after %v: %v, %v; want %s", after, past.Groups, err, want)
		}
	}
}

// A clock that was ahead for a while and is set right goes a second time through
// what it told wrongly: the second time counts, as far as it came.
func TestClockSetBack(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "history.db"), history.Options{})
	n := 0
	stretch := func(from, to time.Duration) {
		for after := from; after <= to; after += 10 * time.Second {
			n++
			add(t, s, history.Record{Time: noon.Add(after), Groups: []state.Group{group("10.0.0.1", n)}})
		}
	}
	stretch(0, 2*time.Minute)               // 1 to 13
	stretch(40*time.Minute, 45*time.Minute) // 14 to 44: the clock is half an hour ahead
	stretch(10*time.Minute, 43*time.Minute) // 45 to 243
	for after, want := range map[time.Duration]string{
		time.Minute: "10.0.0.1=7", 5 * time.Minute: "10.0.0.1=13", 10 * time.Minute: "10.0.0.1=45", 39 * time.Minute: "10.0.0.1=219",
		41 * time.Minute: "10.0.0.1=231", 43 * time.Minute: "10.0.0.1=243", 45 * time.Minute: "10.0.0.1=44"} {
		if past, err := s.At(t.Context(), noon.Add(after)); err != nil || counts(past.Groups) != want {
			t.Errorf("after %v: %v, %v; want %s", after, counts(past.Groups), err, want)
		}
	}
	line, err := s.Range(t.Context(), state.Filter{}, noon.Add(40*time.Minute), noon.Add(46*time.Minute), time.Minute)
	if err != nil || *line.Points[1].Count != 236 || *line.Points[5].Count != 44 {
		t.Errorf("%+v, %v", line.Points, err)
	}
}

// A clock that is a year ahead for some minutes makes nothing old.
func TestClockAheadForgetsNothing(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "history.db"), history.Options{})
	i := 0
	stretch := func(from time.Time, records int) {
		for range records {
			add(t, s, history.Record{Time: from.Add(time.Duration(i) * 10 * time.Second), Groups: []state.Group{group("10.0.0.1", i)}})
			i++
		}
	}
	stretch(noon, 20)
	stretch(noon.AddDate(1, 0, 0), 60) // ten minutes
	stretch(noon, 20)
	if past, err := s.At(t.Context(), noon.Add(100*time.Second)); err != nil || counts(past.Groups) != "10.0.0.1=10" {
		t.Errorf("%v, %v", past.Groups, err)
	}
}

// A finding is found at the times at which it was seen, whatever the clock did
// meanwhile, and is written on when the clock goes back.
func TestClockAndFindings(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "history.db"), history.Options{})
	f := state.Finding{ID: "S001 10.77.1.2", First: noon, Count: 4224, Finding: verdict.Finding{Code: "S001", Promise: verdict.Silence, Severity: verdict.Fail, Title: "10.77.1.2 is silent"}}
	seen := func(at time.Time) {
		f.Last = at
		add(t, s, history.Record{Time: at, Findings: []state.Finding{f}})
	}
	open := func(at time.Time) int {
		list, err := s.Findings(t.Context(), at, at.Add(10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	seen(noon)
	seen(noon.AddDate(1, 0, 0))
	seen(noon.Add(10 * time.Second)) // the clock was wrong
	if open(noon.AddDate(0, 6, 0)) != 0 || open(noon.Add(20*time.Second)) != 1 {
		t.Error("it is open in times to come")
	}
	seen(noon.Add(-time.Hour)) // and was wrong before
	if open(noon.Add(-30*time.Minute)) != 1 || open(noon.Add(-2*time.Hour)) != 0 {
		t.Error("it is not open when it was seen")
	}
	end := noon.Add(-59 * time.Minute)
	f.Resolved = &end
	seen(end)
	if open(end) != 1 || open(noon.Add(5*time.Minute)) != 0 {
		t.Error("it has no end")
	}
}
