package history_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/history"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		child(path)
	}
	leakcheck.Main(m)
}

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, path string, o history.Options) *history.Store {
	t.Helper()
	s, err := history.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func add(t *testing.T, s *history.Store, r history.Record) {
	t.Helper()
	if err := s.Add(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

func group(peer string, count int) state.Group {
	return state.Group{Series: state.Series{Program: "ws-server", Unit: "ws.service", Peer: peer, Port: ":8080"}, Count: count}
}

// counts is groups in short: peer=count.
func counts(groups []state.Group) string {
	var text []string
	for _, g := range groups {
		text = append(text, fmt.Sprintf("%s=%d", g.Peer, g.Count))
	}
	return strings.Join(text, " ")
}

// story opens a history of an hour in which the 4,224 vanish at 12:30, and one in
// which the agent does not run.
func story(t *testing.T, path string) *history.Store {
	t.Helper()
	data, err := storyFile()
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return open(t, path, history.Options{})
}

// storyFile is that history as a file, written once for all tests.
var storyFile = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "lifeline-story")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // what is left there harms nobody
	s, err := history.Open(filepath.Join(dir, "history.db"), history.Options{})
	if err != nil {
		return nil, err
	}
	for _, r := range storyRecords() {
		if err := s.Add(context.Background(), r); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(dir, "history.db"))
})

func storyRecords() (records []history.Record) {
	rate := 2.5
	dead := state.Finding{ID: "S001 10.77.1.2", First: noon.Add(30 * time.Minute), Count: 4224,
		Finding: verdict.Finding{Code: "S001", Promise: verdict.Silence, Severity: verdict.Fail, Title: "10.77.1.2 is silent"}}
	for i := range 360 {
		at := noon.Add(time.Duration(i) * 10 * time.Second)
		r := history.Record{Time: at, Groups: []state.Group{group("10.77.1.2", 4224), group("10.77.1.9", 3+i%2)},
			Totals: state.Totals{Sockets: 5000 + i, Families: map[string]int{"ipv4": 4900}, TCP: map[string]int{"ESTABLISHED": 4300}, Opened: &rate, Looked: at.Add(-time.Second), Took: 0.125}}
		if i >= 180 {
			r.Groups = append(r.Groups[1:], group("10.77.1.3", i-100))
			f := dead
			f.Last = at
			r.Findings = append(r.Findings, f)
		}
		records = append(records, r)
	}
	return append(records, history.Record{Time: noon.Add(2 * time.Hour), Groups: []state.Group{group("10.77.1.3", 4000)}})
}

func TestAt(t *testing.T) {
	s := story(t, filepath.Join(t.TempDir(), "history.db"))
	for _, test := range []struct {
		after, sample time.Duration
		want          string
		gap           bool
	}{
		{0, 0, "10.77.1.2=4224 10.77.1.9=3", false},
		{15 * time.Second, 10 * time.Second, "10.77.1.2=4224 10.77.1.9=4", false},
		{30 * time.Minute, 30 * time.Minute, "10.77.1.3=80 10.77.1.9=3", false},
		{90 * time.Minute, time.Hour - 10*time.Second, "10.77.1.3=259 10.77.1.9=4", true},
		{2 * time.Hour, 2 * time.Hour, "10.77.1.3=4000", false},
		{2*time.Hour + 50*time.Second, 2 * time.Hour, "10.77.1.3=4000", false},
		{5 * time.Hour, 2 * time.Hour, "10.77.1.3=4000", true},
	} {
		past, err := s.At(t.Context(), noon.Add(test.after))
		if err != nil {
			t.Fatal(err)
		}
		if got := counts(past.Groups); got != test.want || !past.Time.Equal(noon.Add(test.sample)) || past.Gap != test.gap {
			t.Errorf("after %v: %s of %v, gap %v; want %s, gap %v", test.after, got, past.Time, past.Gap, test.want, test.gap)
		}
	}
	past, err := s.At(t.Context(), noon.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if o := past.Totals; o.Sockets != 5006 || o.TCP["ESTABLISHED"] != 4300 || o.Families["ipv4"] != 4900 || *o.Opened != 2.5 || o.Resets != nil || o.Took != 0.125 || !o.Looked.Equal(noon.Add(59*time.Second)) {
		t.Errorf("the totals came back as %+v", o)
	}
	_, err = s.At(t.Context(), noon.Add(-time.Second))
	if err == nil || !strings.HasPrefix(err.Error(), "no history before 2026-11-20 ") {
		t.Errorf("before the first record: %v", err)
	}
}

func TestDiff(t *testing.T) {
	s := story(t, filepath.Join(t.TempDir(), "history.db"))
	d, err := s.Diff(t.Context(), noon.Add(10*time.Minute), noon.Add(45*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Came) != 1 || d.Came[0].Peer != "10.77.1.3" || d.Came[0].To != 170 || len(d.Went) != 1 || d.Went[0].From != 4224 || d.Same != 1 || d.Before != 4227 || d.After != 173 {
		t.Errorf("got %+v", d)
	}
	if len(d.Findings) != 1 || d.Findings[0].Code != "S001" || d.Findings[0].Severity != "fail" || d.Findings[0].Count != 4224 || !strings.Contains(string(d.Findings[0].Finding), `"title":"10.77.1.2 is silent"`) {
		t.Errorf("findings %+v", d.Findings)
	}
	if d, err = s.Diff(t.Context(), noon.Add(40*time.Minute), noon.Add(2*time.Hour)); err != nil || len(d.Grew) != 1 || d.Grew[0].From != 140 || len(d.Went) != 1 {
		t.Errorf("got %+v, %v", d, err)
	}
	if list, err := s.Findings(t.Context(), noon, noon.Add(20*time.Minute)); err != nil || len(list) != 0 {
		t.Errorf("before it was found: %v, %v", list, err)
	}
}

func TestRange(t *testing.T) {
	s := story(t, filepath.Join(t.TempDir(), "history.db"))
	line, err := s.Range(t.Context(), state.Filter{Series: state.Series{Peer: "10.77.1.2"}}, noon.Add(-10*time.Minute), noon.Add(90*time.Minute), 10*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range line.Points {
		if p.Count == nil {
			got = append(got, "?")
		} else {
			got = append(got, fmt.Sprintf("%v-%v", *p.Least, *p.Most))
		}
	}
	if want := "? 4224-4224 4224-4224 4224-4224 0-0 0-0 0-0 ? ? ?"; strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	line, err = s.Range(t.Context(), state.Filter{Total: "sockets"}, noon, noon.Add(time.Hour), time.Nanosecond)
	if err != nil || len(line.Points) != 360 || *line.Points[359].Count != 5359 || line.Step != 10 {
		t.Errorf("%d points of %v s, %v", len(line.Points), line.Step, err)
	}
	if all, err := s.Range(t.Context(), state.Filter{}, noon, noon.AddDate(1, 0, 0), time.Second); err != nil || len(all.Points) > history.MostPoints {
		t.Errorf("a year is %d points, %v", len(all.Points), err)
	}
}

// What was written is there for the next agent and for who only reads.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	if err := story(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, path, history.Options{})
	add(t, s, history.Record{Time: noon.Add(3 * time.Hour), Groups: []state.Group{group("10.77.1.3", 1)}})
	if _, err := history.Open(path, history.Options{}); err == nil || !strings.Contains(err.Error(), "another agent writes it") {
		t.Errorf("a second writer: %v", err)
	}
	r, err := history.Read(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // it was read only
	span, err := r.Span(t.Context())
	if err != nil || span.Records != 362 || !span.First.Equal(noon) || !span.Last.Equal(noon.Add(3*time.Hour)) {
		t.Errorf("the span is %+v, %v", span, err)
	}
	if past, err := r.At(t.Context(), noon.Add(time.Minute)); err != nil || counts(past.Groups) != "10.77.1.2=4224 10.77.1.9=3" {
		t.Errorf("%v, %v", past.Groups, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// Unknown is not zero, also in names that make no sense.
func TestOddRecords(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "history.db"), history.Options{})
	add(t, s, history.Record{Time: noon})
	add(t, s, history.Record{Time: noon.Add(time.Second), Groups: []state.Group{group("", 0), group(strings.Repeat("x", 5000), 2), group("a", 1), group("a", 2), group("bad", -1)}})
	past, err := s.At(t.Context(), noon.Add(time.Second))
	if want := "a=3 " + strings.Repeat("x", 128) + "=2 =0"; err != nil || counts(past.Groups) != want {
		t.Errorf("%q, %v", counts(past.Groups), err)
	}
}

// Records of one census have its groups, also across segments, and cost what the
// totals cost; the next census counts again.
func TestRecordsOfOneCensus(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "history.db"), history.Options{})
	for i := range 400 { // more than a segment has
		r := history.Record{Time: noon.Add(time.Duration(i) * 10 * time.Second), Totals: state.Totals{Sockets: i, Looked: noon}}
		if i == 0 {
			r.Groups = []state.Group{group("10.77.1.2", 4224), group("10.77.1.9", 3)}
		}
		if i == 399 {
			r.Totals.Looked, r.Groups = r.Time, []state.Group{group("10.77.1.9", 4)}
		}
		add(t, s, r)
	}
	for i, want := range map[int]string{0: "10.77.1.2=4224 10.77.1.9=3", 359: "10.77.1.2=4224 10.77.1.9=3", 360: "10.77.1.2=4224 10.77.1.9=3", 398: "10.77.1.2=4224 10.77.1.9=3", 399: "10.77.1.9=4"} {
		past, err := s.At(t.Context(), noon.Add(time.Duration(i)*10*time.Second))
		if err != nil || counts(past.Groups) != want || past.Totals.Sockets != i {
			t.Errorf("record %d: %s, %d sockets, %v", i, counts(past.Groups), past.Totals.Sockets, err)
		}
	}
}
