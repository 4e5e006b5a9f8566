package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/history"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/internal/need"
)

// agentKills is how often an agent is killed; make soak has more.
var agentKills = flag.Int("kills", 4, "how often TestAgentKilledAtAnyMoment kills an agent")

// keeping starts an agent with a history that looks at a network namespace.
func keeping(t *testing.T, netns, path string) *watcher {
	t.Helper()
	return watching(t, nil, exec.Command("lifeline", "agent", "--listen", need.Address(t), "--passive", "--json", "--netns", netns, "--history", path))
}

// span asks what the history holds until that fits.
func (w *watcher) span(fits func(state.Span) bool) (s state.Span) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		s = state.Span{}
		text := w.get("api/v1/history/span") // an error while the file is being opened
		if err := json.Unmarshal(text, &s); err != nil {
			w.t.Fatal(err)
		}
		if fits(s) {
			return s
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the history still holds %s", text)
		}
	}
}

// connected opens one more connection to a port of a host, on it.
func connected(t *testing.T, on *lab.Host, l net.Listener) {
	t.Helper()
	c := on.Dial("tcp", l.Addr().String())
	t.Cleanup(func() { _ = c.Close() })
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = accepted.Close() })
}

// An agent that is killed at any moment loses nothing that it said it had written,
// the next one goes on in the same file, and the commands read what both wrote.
func TestAgentKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	box := lab.New(t).Host("box")
	l := box.Listen("tcp", "127.0.0.1:0")
	port := fmt.Sprintf(":%d", l.Addr().(*net.TCPAddr).Port)
	path := filepath.Join(t.TempDir(), "history.db")
	var written []state.Span // after each round, as the agent said or its file shows
	for round := range *agentKills {
		connected(t, box, l) // one more in each round
		w := keeping(t, box.Path(), path)
		var span state.Span
		if round%2 == 0 { // killed after it wrote
			span = w.span(func(s state.Span) bool { return s.Records > 0 && (round == 0 || s.Records > written[round-1].Records) })
		} else { // killed when it is about to write
			w.until("a census", func(s *state.State) bool { return !s.Totals.Looked.IsZero() })
		}
		time.Sleep(time.Duration(rand.IntN(30_000)) * time.Microsecond)
		_ = w.cmd.Process.Kill()
		w.ended = w.cmd.Wait() != nil
		r, err := history.Read(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		has, err := r.Span(t.Context())
		if err != nil || span.Last != nil && (has.Last.Before(*span.Last) || has.Records < span.Records) {
			t.Fatalf("round %d: it had written %+v, and there is %+v, %v", round, span, has, err)
		}
		written = append(written, has)
		for i, s := range written { // every round that wrote is still there
			past, err := r.At(t.Context(), *s.Last)
			if err != nil {
				t.Fatal(err)
			}
			had := 0
			for _, g := range past.Groups {
				if g.Port == port {
					had += g.Count
				}
			}
			if wrote := i == 0 || s.Records > written[i-1].Records; wrote && had != i+1 {
				t.Errorf("after round %d: round %d had %d connections, not %d", round, i, had, i+1)
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	first, last := written[0].First.Format(time.RFC3339Nano), written[len(written)-1].Last.Format(time.RFC3339Nano)
	out, errs, code := lifeline(t, "census", "--at", last, "--by", "port", "--history", path)
	if code != 0 || !strings.Contains(out, port) {
		t.Errorf("census --at: code %d, %s%s", code, out, errs)
	}
	if out, errs, code := lifeline(t, "diff", "--from", first, "--to", last, "--history", path); code != 0 || !strings.HasPrefix(out, "From ") {
		t.Errorf("diff: code %d, %s%s", code, out, errs)
	}
	if _, err := os.Stat(path + ".damaged"); err == nil {
		t.Error("a file was damaged")
	}
}

// While the disk is full the agent goes on, and says what it cannot write in its
// state, on its page, in its metrics and in its log; then it goes on writing.
func TestAgentOnAFullDisk(t *testing.T) {
	t.Parallel()
	need.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	box := lab.New(t).Host("box")
	connected(t, box, box.Listen("tcp", "127.0.0.1:0"))
	w := keeping(t, box.Path(), filepath.Join(dir, "history.db"))
	before := w.span(func(s state.Span) bool { return s.Records > 0 })
	fillDisk(t, filepath.Join(dir, "ballast"))
	w.until("a full disk", func(s *state.State) bool {
		return strings.Contains(s.Agent.NotStored, "records from ") && strings.Contains(s.Agent.NotStored, "full")
	})
	if e := w.next("history is not written"); e.Level != "WARN" {
		t.Errorf("the log says it as %+v", e)
	}
	for path, holds := range map[string]string{"": "full", "metrics": "\nlifeline_history_written 0\n", "healthz": `"ok":true`, "api/v1/history/at?time=" + before.Last.Format(time.RFC3339Nano): `"groups":[{`} {
		if text := string(w.get(path)); !strings.Contains(text, holds) {
			t.Errorf("/%s does not say %q: %.300s", path, holds, text)
		}
	}
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	w.until("room again", func(s *state.State) bool { return s.Agent.NotStored == "" })
	w.next("history is written again")
	w.span(func(s state.Span) bool { return s.Records > before.Records && s.First.Equal(*before.First) })
	if text := w.get("metrics"); !bytes.Contains(text, []byte("\nlifeline_history_written 1\n")) {
		t.Error("the metrics still say that it cannot be written")
	}
}

// Whatever the wall clock does, what the agent saw is kept at the time that it
// thought it was, with the findings of then, and the latest is what counts.
func TestAgentHistoryWhenTheClockJumps(t *testing.T) {
	k := &keeper{path: filepath.Join(t.TempDir(), "history.db")}
	defer k.close()
	var lives verdict.Lives
	dead := verdict.Finding{Code: "S001", Promise: verdict.Silence, Severity: verdict.Fail, Title: "10.77.1.2 is silent", Subject: verdict.Values{{Key: "peer", V: "10.77.1.2"}}}
	seq, count := uint64(0), 4224
	look := func(at time.Time, found ...verdict.Finding) {
		t.Helper()
		lives.Look(at, "peers", found)
		seq++
		s := &state.State{Seq: seq, Time: at, Totals: state.Totals{Looked: at}, Findings: state.FindingsOf(lives.List(at)),
			Groups: []state.Group{{Series: state.Series{Program: "ws-server", Peer: "10.77.1.2", Port: ":8080"}, Count: count}}}
		if err := k.record(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	stretch := func(from time.Time, records int, found ...verdict.Finding) {
		t.Helper()
		for i := range records {
			look(from.Add(time.Duration(i)*10*time.Second), found...)
		}
	}
	stretch(past, 12)                         // two minutes
	stretch(past.Add(2*time.Minute), 6, dead) // found, for a minute
	stretch(past.AddDate(1, 0, 0), 6, dead)   // a year ahead, for a minute
	stretch(past.Add(4*time.Minute), 6, dead) // right again
	stretch(past.Add(-time.Hour), 6, dead)    // an hour behind
	count = 12                                // they vanish
	stretch(past.Add(6*time.Minute), 12)      // right, and over
	for after, want := range map[time.Duration]int{-time.Hour: 4224, time.Minute: 4224, 4 * time.Minute: 4224, 6 * time.Minute: 12} {
		if got, err := k.store.At(t.Context(), past.Add(after)); err != nil || got.Count != want {
			t.Errorf("after %v: %d, %v", after, got.Count, err)
		}
	}
	for after, want := range map[time.Duration]int{-2 * time.Hour: 0, 150 * time.Second: 1, 4 * time.Minute: 1, 6 * time.Minute: 1, 7 * time.Minute: 0} {
		if list, err := k.store.Findings(t.Context(), past.Add(after), past.Add(after+20*time.Second)); err != nil || len(list) != want {
			t.Errorf("findings after %v: %+v, %v", after, list, err)
		}
	}
	if open := lives.List(past.Add(8 * time.Minute)); len(open) != 1 || !open[0].Resolved.OK || open[0].Times != 1 {
		t.Errorf("the finding is %+v", open)
	}
	story, err := k.store.Story(t.Context(), state.Filter{}, past, past.Add(8*time.Minute), 0)
	if err != nil || len(story.Events) != 1 || story.Events[0].Shifts[0].To != 12 || len(story.Events[0].Findings) != 1 {
		t.Errorf("%+v, %v", story, err)
	}
}

// fillDisk takes all the room that is left.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := bytes.Repeat([]byte("full"), 16<<10); len(block) > 0; {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
}
