package verdict

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The language of lives. "look 10s census" begins a look of a source, and the
// lines below it are what it found: code, severity, subject | evidence. "list 11s"
// asks what there is then. ? is null, a list has commas.

func playLives(text string) (string, error) {
	var l Lives
	var out strings.Builder
	var at time.Time
	var source string
	var found []Finding
	flush := func() {
		if source != "" {
			l.Look(at, source, found)
		}
		source, found = "", nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "  ") {
			f, err := parseFinding(line)
			if err != nil {
				return "", err
			}
			found = append(found, f)
			continue
		}
		flush()
		w := strings.Fields(line)
		after, err := time.ParseDuration(w[1])
		if err != nil {
			return "", err
		}
		at = scenarioTime.Add(after)
		if w[0] == "look" {
			source = w[2]
			continue
		}
		fmt.Fprintf(&out, "at %s\n%s", w[1], renderLives(l.List(at)))
	}
	flush()
	return strings.TrimSpace(out.String()), nil
}

func parseFinding(line string) (Finding, error) {
	subject, evidence, _ := strings.Cut(line, " | ")
	w := strings.Fields(subject)
	f := Finding{Code: w[0]}
	for i := range Rules {
		if Rules[i].Code == f.Code {
			f.Promise = Rules[i].Promise
		}
	}
	var err error
	f.Severity, err = ParseSeverity(w[1])
	for _, pair := range w[2:] {
		f.Subject = append(f.Subject, parseValue(pair))
	}
	for pair := range strings.SplitSeq(evidence, " ") {
		if strings.HasPrefix(evidence, "errors=") {
			pair = strings.ReplaceAll(evidence, `"`, "")
		}
		f.Evidence = append(f.Evidence, parseValue(pair))
	}
	return f, err
}

func parseValue(pair string) Value {
	key, text, _ := strings.Cut(pair, "=")
	n, err := strconv.Atoi(text)
	switch {
	case text == "?":
		return Value{key, nil}
	case err == nil:
		return Value{key, n}
	case text == "true" || text == "false":
		return Value{key, text == "true"}
	case strings.Contains(text, ",") || key == "nameservers":
		return Value{key, strings.Split(strings.TrimSuffix(text, ","), ",")}
	}
	return Value{key, text}
}

func renderLives(list []Life) string {
	var b strings.Builder
	since := func(t time.Time) time.Duration { return t.Sub(scenarioTime) }
	for _, a := range list {
		fmt.Fprintf(&b, "  %s: %s count %d, %s to %s, times %d", a.ID, a.Severity, a.Count, since(a.First), since(a.Last), a.Times)
		if a.Flapping {
			b.WriteString(", flapping")
		}
		if when, over := a.Resolved.Get(); over {
			fmt.Fprintf(&b, ", resolved %s", since(when))
		}
		if a.Hides > 0 {
			fmt.Fprintf(&b, ", hides %d", a.Hides)
		}
		if a.Cause != "" {
			fmt.Fprintf(&b, ", because of %s", a.Cause)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestLives(t *testing.T) {
	files, err := filepath.Glob("testdata/lives/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var played []string
		for _, s := range scenarios(string(text)) {
			s.facts = strings.TrimSuffix(strings.TrimSuffix(s.facts, "----"), "\n")
			got, err := playLives(s.facts)
			if err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
			if got != s.want && !*update {
				t.Errorf("%s: got:\n%s\nwant:\n%s", s.name, got, s.want)
			}
			s.want = got
			played = append(played, s.String())
		}
		if *update {
			if err := os.WriteFile(file, []byte(strings.Join(played, "\n")), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestLivesOneRoot is the story: a peer with 4,224 connections dies, and however
// many rules have a word on them, one finding is to be read.
func TestLivesOneRoot(t *testing.T) {
	m, _, err := parse(`process 100 websockets
process 101 poller
socket 4000x tcp estab 10.0.0.1:20000+ 10.77.1.2:443 pid=100 ack=12s unacked=1 retrans=5 keepalive=off out=40 in=40
socket 223x tcp estab 10.0.0.1:30000+ 10.77.1.2:444 pid=101 ack=12s probes=1 keepalive=15s/15s/9 uto=20s
socket tcp estab 10.0.0.1:40000 10.77.1.2:445 pid=101 ack=12s keepalive=15s/15s/9`)
	if err != nil {
		t.Fatal(err)
	}
	var l Lives
	l.Look(scenarioTime, "census", Judge(m))
	var read []string
	hidden := 0
	for _, a := range l.List(scenarioTime) {
		if a.Cause == "" {
			read = append(read, a.ID)
			if a.Count != 4224 {
				t.Errorf("%s counts %d", a.ID, a.Count)
			}
		} else {
			hidden++
		}
	}
	if !slices.Equal(read, []string{"S001 peer=10.77.1.2 netns=1"}) || hidden < 3 {
		t.Errorf("to be read: %q, hidden: %d", read, hidden)
	}
}

// TestLivesBounded tells more findings than are followed.
func TestLivesBounded(t *testing.T) {
	var l Lives
	var found []Finding
	for i := range mostLives + 500 {
		found = append(found, Finding{Code: "N010", Severity: Severity(i % 3), Subject: Values{{"name", fmt.Sprintf("n%05d", i)}}})
	}
	l.Look(scenarioTime, "a", found[:400])
	l.Look(scenarioTime.Add(time.Second), "a", nil)
	l.Look(scenarioTime.Add(2*time.Second), "b", found[400:])
	list := l.List(scenarioTime.Add(2 * time.Second))
	if len(list) != mostLives || l.Dropped() != 500 {
		t.Fatalf("%d lives, %d dropped", len(list), l.Dropped())
	}
	for _, a := range list {
		if a.Resolved.OK {
			t.Fatalf("%s is over, and open ones were dropped", a.ID)
		}
	}
	if worst, last := list[0], list[len(list)-1]; worst.Severity != Fail || last.Severity != Info {
		t.Errorf("order: %v to %v", worst.Severity, last.Severity)
	}
}

// TestLivesRandom tells the same findings in two orders, and holds what is
// always true of a list.
func TestLivesRandom(t *testing.T) {
	codes := []string{"S001", "S002", "S003", "S004", "S005", "C001", "N001", "N003", "N004", "N005", "N006", "N010"}
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 5))
		var a, b Lives
		now := scenarioTime
		for range 60 {
			now = now.Add(time.Duration(r.IntN(200)-10) * time.Second)
			var found []Finding
			for range r.IntN(12) {
				f := Finding{Code: codes[r.IntN(len(codes))], Severity: Severity(r.IntN(3)), Evidence: Values{{"errors", []string{"operation not permitted"}}}}
				f.Subject = Values{{"peer", fmt.Sprint("10.0.0.", r.IntN(2))}, {"nameserver", fmt.Sprint("10.0.0.", r.IntN(2))}, {"count", r.IntN(3)}}
				if !slices.ContainsFunc(found, func(g Finding) bool { return Identity(&f) == Identity(&g) }) {
					found = append(found, f)
				}
			}
			source := []string{"census", "peers", "names"}[r.IntN(3)]
			a.Look(now, source, found)
			shuffled := slices.Clone(found)
			r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			b.Look(now, source, shuffled)
			list := a.List(now)
			if one, two := renderLives(list), renderLives(b.List(now)); one != two {
				t.Fatalf("seed %d: the same looks give\n%s\nand\n%s", seed, one, two)
			}
			checkLives(t, list)
		}
	}
}

func checkLives(t *testing.T, list []Life) {
	t.Helper()
	byID := make(map[string]*Life)
	hides := 0
	for i := range list {
		a := &list[i]
		if byID[a.ID] != nil || i > 0 && order(&list[i-1], a) >= 0 {
			t.Fatalf("%s is there twice, or out of order", a.ID)
		}
		byID[a.ID] = a
		hides += a.Hides
		if a.Times < 1 || a.Flapping && a.Resolved.OK {
			t.Fatalf("impossible: %+v", a)
		}
	}
	for i := range list {
		if list[i].Cause == "" {
			continue
		}
		hides--
		root := byID[list[i].Cause]
		if root == nil {
			t.Fatalf("%s: its cause %s is not listed", list[i].ID, list[i].Cause)
		}
		if !list[i].Resolved.OK && (root.Cause != "" || root.Resolved.OK || root.Severity < list[i].Severity) {
			t.Fatalf("%s is no root of %s", root.ID, list[i].ID)
		}
	}
	if hides != 0 {
		t.Fatalf("Hides and Cause differ by %d", hides)
	}
}

// TestConsequences holds the table: its codes are rules, and nothing explains
// itself in the end.
func TestConsequences(t *testing.T) {
	explains := make(map[string][]string)
	for _, c := range consequences {
		explains[c.root] = append(explains[c.root], c.of...)
		for _, code := range append(c.of, c.root) {
			if !slices.ContainsFunc(Rules, func(r Rule) bool { return r.Code == code }) {
				t.Errorf("%s is no rule", code)
			}
		}
	}
	var walk func(code string, path []string)
	walk = func(code string, path []string) {
		if slices.Contains(path, code) {
			t.Fatalf("%s explains itself: %v", code, path)
		}
		for _, next := range explains[code] {
			walk(next, append(path, code))
		}
	}
	for code := range explains {
		walk(code, nil)
	}
}

// TestIdentity judges every scenario: findings of one look are told apart, and
// what a client reads from JSON is the same thing.
func TestIdentity(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range scenarios(string(text)) {
			m, _, err := parse(s.facts)
			if err != nil {
				t.Fatal(err)
			}
			seen := make(map[string]bool)
			for _, f := range Judge(m) {
				id := Identity(&f)
				if seen[id] || strings.ContainsAny(id, "\n\x1b") {
					t.Errorf("%s: %q is there twice, or not to be printed", s.name, id)
				}
				seen[id] = true
				if read := throughJSON(t, f); Identity(&read) != id {
					t.Errorf("%s: read from JSON it is %q", id, Identity(&read))
				}
			}
		}
	}
	for _, pair := range [][2]any{{"a b=c", "a"}, {"?", nil}, {"a,b", []string{"a", "b"}}, {"", nil}} {
		if word(pair[0]) == word(pair[1]) {
			t.Errorf("%v and %v are both %s", pair[0], pair[1], word(pair[0]))
		}
	}
}

// throughJSON writes a finding, reads it and holds that it is written as before.
func throughJSON(t *testing.T, f Finding) (read Finding) {
	t.Helper()
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if again, err := json.Marshal(read); err != nil || string(again) != string(text) {
		t.Errorf("%v: written %s, read and written %s", err, text, again)
	}
	return read
}

func TestUnmarshal(t *testing.T) {
	for text, want := range map[string]string{
		`{"promise":"hope"}`:             `"hope" is no promise: use names, calls, silence or leaks`,
		`{"severity":"bad"}`:             `"bad" is no severity: use info, warn or fail`,
		`{"bound_seconds":-1}`:           `bound_seconds: -1 is negative`,
		`{"subject":[1]}`:                `values are an object, not [`,
		`{"subject":{"a":{"b":1}}}`:      `a: a value is a string, a number, true, false, null or a list of these`,
		`{"evidence":{"a":[[[[[1]]]]]}}`: `a: a value is a string, a number, true, false, null or a list of these`,
	} {
		var f Finding
		if err := json.Unmarshal([]byte(text), &f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	var f Finding
	if err := json.Unmarshal([]byte(`{"subject":null,"bound_seconds":1e300}`), &f); err != nil || f.Subject != nil || f.Bound.Value <= 0 {
		t.Errorf("%+v, %v", f, err)
	}
}

// FuzzFindingJSON reads what an agent of another version, or somebody else, sent.
func FuzzFindingJSON(f *testing.F) {
	golden, err := os.ReadFile("testdata/findings.json")
	if err != nil {
		f.Fatal(err)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(golden, &list); err != nil {
		f.Fatal(err)
	}
	for _, one := range list {
		f.Add([]byte(one))
	}
	f.Add([]byte(`{"subject":{"a":[1,"x",[null,1e9]],"b":-0.5,"c":18446744073709551616},"bound_seconds":0.0015}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var read Finding
		if json.Unmarshal(text, &read) == nil {
			again := throughJSON(t, read)
			if Identity(&again) != Identity(&read) {
				t.Errorf("%q became %q", Identity(&read), Identity(&again))
			}
		}
	})
}

func BenchmarkLives(b *testing.B) {
	var l Lives
	var found []Finding
	for i := range 1000 {
		found = append(found, Finding{Code: "S002", Severity: Warn, Subject: Values{{"peer", fmt.Sprintf("10.0.%d.%d", i/256, i%256)}, {"count", i}}})
	}
	b.ReportAllocs()
	for b.Loop() {
		l.Look(scenarioTime, "census", found)
		l.List(scenarioTime)
	}
}
