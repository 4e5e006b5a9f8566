package verdict

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

func TestSeverity(t *testing.T) {
	for _, s := range []Severity{Info, Warn, Fail} {
		parsed, err := ParseSeverity(strings.ToUpper(s.String()))
		if err != nil || parsed != s {
			t.Errorf("%v: %v, %v", s, parsed, err)
		}
		var read Severity
		if text, err := json.Marshal(s); err != nil || json.Unmarshal(text, &read) != nil || read != s {
			t.Errorf("%v: %s, %v", s, text, err)
		}
	}
	if _, err := ParseSeverity("error"); err == nil || err.Error() != `"error" is no severity: use info, warn or fail` {
		t.Error(err)
	}
}

func TestRules(t *testing.T) {
	sources := []string{"sockets", "owners", "options", "processes", "goroutines", "conntrack", "names", "programs", "openers"}
	letters := map[Promise]string{Names: "N", Calls: "C", Silence: "S", Leaks: "L"}
	codes := make(map[string]bool)
	for _, r := range Rules {
		if codes[r.Code] || !strings.HasPrefix(r.Code, letters[r.Promise]) || len(r.Code) != 4 {
			t.Errorf("%s: code of another rule or promise", r.Code)
		}
		codes[r.Code] = true
		if r.Title == "" || r.Meaning == "" || r.Wrong == "" || len(r.Fix) == 0 || len(r.Sees) == 0 {
			t.Errorf("%s is not documented", r.Code)
		}
		for _, source := range r.Sees {
			if !slices.Contains(sources, source) {
				t.Errorf("%s sees %s, which is no source", r.Code, source)
			}
		}
	}
	if Judge(nil) == nil || Judge(&fact.Machine{}) == nil {
		t.Error("no findings must be an empty list")
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 ms", 0: "0 ms", 850 * time.Millisecond: "850 ms", time.Second: "1 s", 6500 * time.Millisecond: "6.5 s",
		9990 * time.Millisecond: "10 s", 150 * time.Second: "150 s", 929 * time.Second: "15 min 29 s", 20 * time.Minute: "20 min",
		131*time.Minute + 15*time.Second: "2 h 11 min", 76 * time.Hour: "3 d 4 h",
	} {
		if got := span(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
		if b := (bound.Bound{After: d, By: bound.KeepAlive}); d >= 0 && b.String() != want {
			t.Errorf("%d: bound says %q, verdict %q", d, b, want)
		}
	}
	for n, want := range map[int]string{0: "0", 999: "999", 4224: "4,224", 1234567: "1,234,567", -5: "-5"} {
		if got := Number(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// TestJSON holds the form of findings in lifeline/v1 documents.
func TestJSON(t *testing.T) {
	text, err := os.ReadFile("testdata/silence.txt")
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := parse(scenarios(string(text))[0].facts)
	if err != nil {
		t.Fatal(err)
	}
	findings := append(Judge(m), Finding{Code: "X000", Subject: Values{{"unknown", nil}, {"list", []string{}}}})
	got, err := json.MarshalIndent(findings, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/findings.json"
	if *update {
		if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bytes.TrimSpace(want), got) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// check judges a machine and holds what is true of every judgement.
func check(t *testing.T, m *fact.Machine) {
	t.Helper()
	findings := Judge(m)
	if again := Judge(m); render(again) != render(findings) {
		t.Errorf("two judgements of the same facts differ:\n%s\n\n%s", render(findings), render(again))
	}
	for i, f := range findings {
		text, err := json.Marshal(f)
		if err != nil || !json.Valid(text) {
			t.Errorf("%s: %v", f.Code, err)
		}
		if f.Title == "" || f.Why == "" || len(f.Fix) == 0 || strings.ContainsAny(f.Title, "\n\x1b") {
			t.Errorf("%s: incomplete: %s", f.Code, text)
		}
		if i > 0 && findings[i-1].Severity < f.Severity {
			t.Errorf("%s comes after a finding that is less severe", f.Code)
		}
		if f.Bound.OK && f.Bound.Value < 0 {
			t.Errorf("%s: negative bound %v", f.Code, f.Bound.Value)
		}
	}
	for _, p := range Peers(m) {
		if p.Count == 0 || p.Verdict == Alive != (len(p.Evidence) == 0) {
			t.Errorf("incomplete: %+v", p)
		}
	}
	WhatIf(m, netip.MustParsePrefix("10.0.0.0/8"))
	var d Detector
	for range 3 {
		d.Look(m, time.Second)
		d.Look(m, -time.Hour)
	}
	if len(findings) > 11*len(Rules) {
		t.Errorf("%d findings: too many to read", len(findings))
	}
}

// TestRandomMachines judges machines that make no sense.
func TestRandomMachines(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 7))
		m := &fact.Machine{Time: scenarioTime}
		fill(r, reflect.ValueOf(m).Elem(), 0)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		check(t, m)
	}
}

// fill puts random values, mostly extreme or from a small range so that groups
// form, into everything that it can reach.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	switch v.Interface().(type) {
	case netip.Addr:
		addrs := []netip.Addr{{}, netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(3))}), netip.MustParseAddr("fe80::1"), netip.IPv6Unspecified(), netip.MustParseAddr("127.0.0.1")}
		v.Set(reflect.ValueOf(addrs[r.IntN(len(addrs))]))
		return
	case netip.AddrPort:
		addr := reflect.New(reflect.TypeFor[netip.Addr]()).Elem()
		fill(r, addr, depth)
		v.Set(reflect.ValueOf(netip.AddrPortFrom(addr.Interface().(netip.Addr), uint16(r.IntN(3)))))
		return
	case time.Time:
		v.Set(reflect.ValueOf(scenarioTime.Add(time.Duration(r.IntN(3)-1) * time.Second)))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i), depth+1)
		}
	case reflect.Pointer:
		if r.IntN(6) > 0 && depth < 6 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem(), depth+1)
		}
	case reflect.Slice:
		n := r.IntN(6)
		if depth == 1 && v.Type().Elem() == reflect.TypeFor[fact.Socket]() {
			n = r.IntN(300)
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.Bool:
		v.SetBool(r.IntN(3) > 0)
	case reflect.String:
		v.SetString([]string{"", "x", "dns", "timed out"}[r.IntN(4)])
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt([]int64{0, 1, 2, -1, 1 << 31, 1<<63 - 1, int64(time.Minute), int64(10 * time.Minute), int64(r.IntN(100))}[r.IntN(9)])
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint([]uint64{0, 1, 1, 1, 2, 1<<64 - 1, uint64(r.IntN(200))}[r.IntN(7)])
	}
}

// FuzzJudge reads mutilated scenarios: whatever can be said in their language
// must be judged without a panic.
func FuzzJudge(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, s := range scenarios(string(text)) {
			f.Add(strings.NewReplacer("000x", "x", "00x", "x").Replace(s.facts))
		}
	}
	f.Fuzz(func(t *testing.T, facts string) {
		if strings.Count(facts, "x ") > 20 || strings.Contains(facts, "000x") {
			return // many sockets are slow, not interesting
		}
		if m, _, err := parse(facts); err == nil {
			check(t, m)
		}
	})
}

// busyMachine has 15,000 TCP and 15,000 unix sockets and two looks.
func busyMachine(b testing.TB) *fact.Machine {
	facts := `earlier 1s
ns 1 local=10.0.0.1
listen 0.0.0.0:443 pid=80
socket 4000x tcp estab 10.0.0.1:443 10.77.1.2:20000+ pid=80 ack=9s out=40 in=40 keepalive=15s/15s/9
socket 224x tcp estab 10.0.0.1:443 10.77.1.2:30000+ pid=80 ack=14s unacked=1 retrans=5 out=40 in=40 keepalive=15s/15s/9
socket 8000x tcp estab 10.0.0.1:443 10.20.0.1+:40000 pid=80 ack=9s out=40 in=40 keepalive=off
socket 776x tcp estab 10.0.0.1:30000+ 10.0.0.5:5432 pid=81 ack=9m out=40 in=40 keepalive=15s/15s/9
socket 2000x tcp time-wait 10.0.0.1:443 10.30.0.1+:40000
pair 7500x /var/run/docker.sock client=81 server=82
`
	for pid := range 100 {
		facts += fmt.Sprintf("process %d p%d files=100/1024\n", 50+pid, pid)
	}
	m, _, err := parse(facts)
	if err != nil {
		b.Fatal(err)
	}
	return m
}

func BenchmarkJudge(b *testing.B) {
	m := busyMachine(b)
	b.ReportAllocs()
	for b.Loop() {
		Judge(m)
	}
	b.ReportMetric(float64(len(m.Sockets)), "sockets")
}
