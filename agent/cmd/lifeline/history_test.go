package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/history"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

var past = time.Date(2026, 11, 20, 14, 0, 0, 0, time.Local)

// pastDay writes a history in which the 4,224 vanish at 14:05, and returns its path.
func pastDay(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "history.db")
	s, err := history.Open(path, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // every Add is looked at
	for i := range 60 {
		r := history.Record{Time: past.Add(time.Duration(i) * 10 * time.Second), Groups: []state.Group{
			{Series: state.Series{Program: "ws-server", Unit: "ws.service", Peer: "10.77.1.2", Port: ":8080"}, Count: 4224},
			{Series: state.Series{Program: "agent", Peer: "10.77.1.9", Port: ">443"}, Count: 3}}}
		if i >= 30 {
			r.Groups[0].Peer, r.Groups[0].Count = "10.77.1.3", 12
			r.Findings = []state.Finding{{ID: "S001 10.77.1.2", First: past.Add(5 * time.Minute), Last: r.Time, Count: 4224,
				Finding: verdict.Finding{Code: "S001", Promise: verdict.Silence, Severity: verdict.Fail, Title: "10.77.1.2 is silent"}}}
		}
		if err := s.Add(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestCensusOfThePast(t *testing.T) {
	path := pastDay(t)
	stdout, stderr, code := lifeline(t, "census", "--at", "2026-11-20 14:04", "--history", path)
	if want := "COUNT  PEER       PROGRAMS\n4,224  10.77.1.2  ws-server\n3      10.77.1.9  agent\n4,227  total at 2026-11-20 14:04:00\n"; code != 0 || stdout != want || stderr != "" {
		t.Errorf("code %d, %q, %s", code, stderr, stdout)
	}
	stdout, _, _ = lifeline(t, "census", "--at", "2026-11-20 14:06", "--history", path, "--by", "program,port", "--process", "ws-server", "--peer", "10.77.0.0/16")
	if want := "COUNT  PROGRAM    PORT   PROGRAMS\n12     ws-server  :8080  ws-server\n12     total at 2026-11-20 14:06:00\n"; stdout != want {
		t.Errorf("got %s", stdout)
	}
	_, stderr, code = lifeline(t, "census", "--at", "2026-11-20 20:00", "--history", path)
	if code != 0 || !strings.HasPrefix(strings.Join(strings.Fields(stderr), " "), "At 2026-11-20 20:00:00 nothing was written: the agent did not run, or could not write, from 2026-11-20 14:09:50 since") {
		t.Errorf("code %d, %s", code, stderr)
	}
	var d struct {
		Schema string
		At     state.Moment
		Groups []struct {
			Peer  string
			Count int
		}
		Total int
	}
	document(t, &d, "census", "--at", past.Add(time.Minute).Format(time.RFC3339), "--history", path, "--top", "1")
	if d.Schema != "lifeline/v1" || len(d.Groups) != 1 || d.Groups[0].Count != 4224 || d.Total != 4227 || d.At.Gap {
		t.Errorf("got %+v", d)
	}
}

func TestDiffOfThePast(t *testing.T) {
	path := pastDay(t)
	stdout, stderr, code := lifeline(t, "diff", "--from", "2026-11-20 14:00", "--to", "2026-11-20 14:09", "--history", path)
	want := "From 2026-11-20 14:00:00 to 2026-11-20 14:09:00: 4,227 connections, then 15; 1 peers as before.\n" +
		"came  10.77.1.3  0 → 12     ws-server\nwent  10.77.1.2  4,224 → 0  ws-server\n" +
		"S001 fail  10.77.1.2 is silent (since 2026-11-20 14:05:00, still open)\n"
	if code != 0 || stdout != want || stderr != "" {
		t.Errorf("code %d, %q:\n%s", code, stderr, stdout)
	}
	var d map[string]json.RawMessage
	document(t, &d, "diff", "--from", "2026-11-20 14:00", "--to", "2026-11-20 14:09", "--history", path)
	for _, key := range []string{"schema", "host", "time", "blind", "from", "to", "came", "went", "grew", "shrank", "same", "findings"} {
		if d[key] == nil || string(d[key]) == "null" {
			t.Errorf("%s is %s", key, d[key])
		}
	}
}

// "When did the 4,224 vanish, and what else changed then?" needs no time.
func TestWhenTheyVanished(t *testing.T) {
	path := pastDay(t)
	stdout, stderr, code := lifeline(t, "history", "--from", "2026-11-20", "--to", "2026-11-20 14:09", "--top", "2", "--history", path)
	want := `From 2026-11-20 14:00:00, where the history begins, to 2026-11-20 14:09:00: 4,227 connections, then 15.

2026-11-20 14:04:50 to 2026-11-20 14:05:00
  went  10.77.1.2  4,224 → 0  ws-server
  came  10.77.1.3  0 → 12     ws-server
  S001 fail  10.77.1.2 is silent (since 2026-11-20 14:05:00, still open)
  all of it: lifeline diff --history ` + path + ` --from "2026-11-20 14:04:50" --to "2026-11-20 14:05:00"
`
	if code != 0 || stdout != want || stderr != "" {
		t.Errorf("code %d, %q:\n%s", code, stderr, stdout)
	}
	if stdout, _, _ := lifeline(t, "history", "--from", "2026-11-20 14:06", "--to", "2026-11-20 14:09", "--peer", "10.77.1.2", "--history", path); !strings.Contains(stdout, "0 connections, then 0.\nNone came or went meanwhile.\n") {
		t.Errorf("when nothing happens: %s", stdout)
	}
	for _, file := range []string{path, filepath.Join(t.TempDir(), "none.db")} { // what was typed comes before what is not there
		if _, stderr, code := lifeline(t, "history", "--peer", "999.1.1.1", "--history", file); code != exitUsage || !strings.Contains(stderr, `--peer: "999.1.1.1" is no address and no network`) {
			t.Errorf("code %d, %s", code, stderr)
		}
	}
	var s struct {
		Events []struct {
			Shifts   []state.Shift
			Findings []state.PastFinding
		}
		Findings []state.PastFinding
	}
	document(t, &s, "history", "--from", "2026-11-20", "--to", "2026-11-20 14:09", "--peer", "::ffff:10.77.1.2", "--history", path)
	if len(s.Events) != 1 || s.Events[0].Shifts[0].From != 4224 || s.Events[0].Findings[0].Code != "S001" || s.Findings == nil {
		t.Errorf("got %+v", s)
	}
}

// An ordinary user hears who may read the history.
func TestUnprivilegedHistory(t *testing.T) {
	t.Parallel()
	path := pastDay(t)
	for _, dir := range []string{filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, errs, code := nobody(t, "history", "--history", path); code != exitBlind || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "permission denied: only the user that runs the agent may read it") {
		t.Errorf("code %d: %s", code, errs)
	}
}

func TestHistoryUsage(t *testing.T) {
	path := pastDay(t)
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"census --at noon", exitUsage, `lifeline census: --at "noon" is no time: take "2026-11-20 14:05", 14:05, `},
		{"census --at 2h --state LISTEN", exitUsage, "lifeline census: --state is not in the history: with --at take --by peer,program,unit,port, "},
		{"census --at 2h --by container", exitUsage, "lifeline census: the history is not counted by container: "},
		{"census --at 2026-11-01 --history " + path, exitBlind, "lifeline census: no history before 2026-11-20 14:00:00; the agent's began then, "},
		{"census --at 2h --history /nowhere/history.db", exitBlind, "lifeline census: there is no history at /nowhere/history.db: lifeline agent writes one; "},
		{"diff", exitUsage, "lifeline diff: --from is missing: take a time such as "},
		{"diff --from 2026-10-01 --to 2026-11-01 --history " + path, exitBlind, "lifeline diff: no history before 2026-11-20 14:00:00; "},
		{"history --top 0", exitUsage, "lifeline history: --top 0: take a number from 1 to 1000"},
		{"history --from 1h --to 2h", exitUsage, "lifeline history: --from "},
		{"history --to 2026-11-01 --from 2026-10-01 --history " + path, exitBlind, "lifeline history: no history before 2026-11-20 14:00:00; "},
		{"diff --from 1h --to 2h", exitUsage, "lifeline diff: --from "},
		{"diff --from 1h --top -1", exitUsage, "lifeline diff: --top -1 is less than nothing"},
	} {
		stdout, stderr, code := lifeline(t, strings.Fields(test.args)...)
		if code != test.code || !strings.HasPrefix(stderr, test.want) || strings.Count(stderr, "\n") != 1 || stdout != "" {
			t.Errorf("lifeline %s: code %d, %s", test.args, code, stderr)
		}
	}
}

func TestHistoryFlags(t *testing.T) {
	for _, c := range []struct {
		size, keep string
		bytes      int64
		length     time.Duration
		says       string
	}{
		{"256MiB", "7d", 256 << 20, 7 * 24 * time.Hour, ""},
		{"1M", "1m", 1 << 20, time.Minute, ""},
		{"1048576", "1d12h", 1 << 20, 36 * time.Hour, ""},
		{"1T", "0d90m", 1 << 40, 90 * time.Minute, ""},
		{"1023KiB", "7d", 0, 0, "too small: take 1MiB or more"},
		{"lots", "7d", 0, 0, `--history-size "lots" is no size: take one such as 256MiB`},
		{"", "7d", 0, 0, "is no size"},
		{"-1G", "7d", 0, 0, "is no size"},
		{"256iB", "7d", 0, 0, "is no size"},
		{"9999999999T", "7d", 0, 0, "is no size"},
		{"256MiB", "7", 0, 0, `--history-keep "7" is no time: take one such as 12h or 7d`},
		{"256MiB", "", 0, 0, "is no time"},
		{"256MiB", "d", 0, 0, "is no time"},
		{"256MiB", "-7d", 0, 0, "is no time"},
		{"256MiB", "99999999d", 0, 0, "is no time"},
		{"256MiB", "0d", 0, 0, "too short: take 1m or more"},
		{"256MiB", "59s", 0, 0, "too short"},
	} {
		k, err := (&historyFlags{path: "/x.db", size: c.size, keep: c.keep}).keeper()
		if c.says == "" && (err != nil || k.options.MaxBytes != c.bytes || k.options.Keep != c.length) || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s for %s: %+v, %v", c.size, c.keep, k, err)
		}
	}
	for _, args := range [][]string{{"--history-size", "1"}, {"--history-keep", "week"}, {"--history", ""}} {
		if _, errs, code := lifeline(t, append([]string{"agent"}, args...)...); code != exitUsage || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: exit code %d: %s", args, code, errs)
		}
	}
}

// The agent writes each State once, none before the first census, and goes on
// when the file could not be opened at first.
func TestAgentKeepsHistory(t *testing.T) {
	dir := t.TempDir()
	k := keeper{path: filepath.Join(dir, "state", "history.db")}
	defer k.close()
	if err := os.WriteFile(filepath.Join(dir, "state"), nil, 0o600); err != nil { // in the way of the folder
		t.Fatal(err)
	}
	s := &state.State{Seq: 1, Time: past}
	if err := k.record(t.Context(), s); err == nil {
		t.Error("no error where no file can be")
	}
	if err := os.Remove(filepath.Join(dir, "state")); err != nil {
		t.Fatal(err)
	}
	seen := &state.State{Seq: 2, Time: past.Add(10 * time.Second), Totals: state.Totals{Sockets: 7, Looked: past}, Groups: []state.Group{
		{Series: state.Series{Program: "ws-server", Unit: "ws.service", Peer: "10.77.1.2", Port: ":8080"}, Count: 4225}}}
	for _, s := range []*state.State{s, seen, seen} {
		if err := k.record(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if span, err := k.store.Span(t.Context()); err != nil || span.Records != 1 {
		t.Errorf("%+v, %v", span, err)
	}
	got, err := k.store.At(t.Context(), seen.Time)
	if err != nil || len(got.Groups) != 1 || got.Groups[0].Count != 4225 || got.Totals.Sockets != 7 {
		t.Errorf("%+v, %v", got, err)
	}
}
