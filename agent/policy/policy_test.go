package policy_test

import (
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

const whole = `# all of it
watch:
  peers: [10.0.0.0/8, "fd00::/8"]
  processes: [ws-server]
  names: [api.example.com]
ignore:
  peers: [10.9.0.7]
  processes: [backup]
  codes: [S003, L004]
acts:
  cut: {on: [S001], per_second: 200}
  tune:
    - {cgroup: system.slice/ws.service, within: 6s}
    - cgroup: system.slice/db.service
  evac: {on: shutdown, within: 25s, only: [10.48.0.0/14]}
webhook: http://127.0.0.1:9093/api/v2/alerts
`

func TestWholePolicy(t *testing.T) {
	got, err := policy.Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	network := netip.MustParsePrefix
	want := &policy.Policy{
		Watch:   policy.Scope{Peers: []netip.Prefix{network("10.0.0.0/8"), network("fd00::/8")}, Processes: []string{"ws-server"}},
		Names:   []string{"api.example.com"},
		Ignore:  policy.Scope{Peers: []netip.Prefix{network("10.9.0.7/32")}, Processes: []string{"backup"}},
		Codes:   []string{"S003", "L004"},
		Cut:     &policy.Cut{On: []string{"S001"}, PerSecond: 200},
		Tune:    []policy.Tune{{"system.slice/ws.service", 6 * time.Second}, {"system.slice/db.service", 0}},
		Evac:    &policy.Evac{Within: 25 * time.Second, Only: []netip.Prefix{network("10.48.0.0/14")}},
		Webhook: "http://127.0.0.1:9093/api/v2/alerts",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	acts := []string{"cut on S001, 200 connections a second", "tune system.slice/ws.service within 6s", "tune system.slice/db.service", "evac on shutdown within 25s"}
	if !reflect.DeepEqual(got.Acts(), acts) {
		t.Errorf("acts: %q", got.Acts())
	}
}

// TestNothingIsTheZeroPolicy: a file in which all is commented out acts on
// nothing, and so does none.
func TestNothingIsTheZeroPolicy(t *testing.T) {
	for _, text := range []string{"", "\n\n", "# nothing\n", "{}", "---\n", "watch:\nignore:\nacts:\nwebhook:\n", "watch:\n  peers:\n"} {
		p, err := policy.Parse([]byte(text))
		if err != nil || !reflect.DeepEqual(p, &policy.Policy{}) {
			t.Errorf("%q: %+v, %v", text, p, err)
			continue
		}
		if acts := p.Acts(); acts == nil || len(acts) != 0 {
			t.Errorf("%q: acts %v", text, acts)
		}
		if !p.Watches(netip.MustParseAddr("192.0.2.1"), "any") || !p.Watches(netip.Addr{}, "") {
			t.Errorf("%q: does not watch all", text)
		}
	}
}

func TestErrorsSayWhereAndHow(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"watch:\n  pers: [10.0.0.1]", `line 2: watch has no key "pers": did you mean peers?`},
		{"act:\n  cut: {}", `line 1: the policy has no key "act": did you mean acts?`},
		{"actions: 1", `line 1: the policy has no key "actions": there are acts, ignore, watch, webhook`},
		{"ignore:\n  codes:\n  - S003\n  - s01", `line 4: "s01" is no code of a finding: did you mean`},
		{"watch: [a]", "line 1: watch is a list: it has keys: names, peers, processes"},
		{"- a", "line 1: the policy is a list"},
		{"watch:\n  peers: 10.0.0.1", "line 2: networks are a list, such as [a, b], and this is one value"},
		{"watch:\n  peers:\n  - 10.0.0.300", `line 3: "10.0.0.300" is neither an address nor a network`},
		{"watch: {peers: [10.0.0.7/8]}", `line 1: "10.0.0.7/8" has bits beyond its length: write 10.0.0.0/8 for the network, or 10.0.0.7 for the one address`},
		{"watch: {peers: ['::ffff:10.0.0.7']}", "write it as IPv4"},
		{"watch: {names: ['https://a/b']}", `"https://a/b" is no name of a host`},
		{"acts:\n  cut: {}", "line 2: cut needs the findings that it acts on, such as on: [S001]"},
		{"acts:\n  cut: {on: [L001]}", "line 2: cut does not act on L001: only on S001"},
		{"acts:\n  cut: {on: [S001], per_second: 0}", `line 2: per_second: "0" is not a number of connections from 1 to 1000000`},
		{"acts:\n  evac: {within: 25s}", "line 2: evac needs on: shutdown"},
		{"acts:\n  evac: {on: shutdown, within: 25}", `line 2: "25" is no time from 100ms to 1h: take one such as 25s`},
		{"acts:\n  tune: {cgroup: a}", "line 2: tune is a mapping: it is a list"},
		{"acts:\n  tune:\n  - {within: 6s}", "line 3: an entry of tune needs a cgroup"},
		{"acts:\n  tune: [{cgroup: a}, {cgroup: a}]", "line 2: cgroup a is here twice"},
		{"webhook: here", `line 1: webhook: "here" is no address of the web`},
		{"webhook: x\nwebhook: y", `line 2: the policy has the key "webhook" twice`},
		{"watch: &a {peers: [10.0.0.1]}\nignore: *a", "line 2: ignore is an alias (write it out)"},
		{"watch: {}\n---\nwatch: {}", "line 2: here begins a second document"},
		{"watch: {peers: [", "line 1: "},
		{"watch:\n\tpeers: []", "line 2: "},
		{strings.Repeat("#", policy.MostBytes+1), "are the most"},
		{strings.Repeat("- [", 20), "did not find"},
		{"watch: {}\n--- [", "line 2: "},
	} {
		p, err := policy.Parse([]byte(test.text))
		if p != nil || err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.60q: %v, %v\nwant %s", test.text, p, err, test.want)
		}
	}
}

func TestAllErrorsAreSaidAtOnce(t *testing.T) {
	_, err := policy.Parse([]byte("webhook: here\nwatch:\n  pers: []\nacts:\n  cut: {}\n"))
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], "line 1:") || !strings.HasPrefix(lines[2], "line 5:") {
		t.Errorf("%v", err)
	}
	_, err = policy.Parse([]byte("watch:\n  peers: [" + strings.Repeat("x, ", 1000) + "x]"))
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 21 || lines[20] != "and 981 more" {
		t.Errorf("%d lines, %s", len(lines), lines[len(lines)-1])
	}
}

func TestIgnores(t *testing.T) {
	about := func(code string, subject ...verdict.Value) *verdict.Finding {
		return &verdict.Finding{Code: code, Subject: subject}
	}
	peer := func(a string) verdict.Value { return verdict.Value{Key: "peer", V: a} }
	process := func(name any) verdict.Value { return verdict.Value{Key: "process", V: name} }
	const (
		ignoring = "ignore: {peers: [10.9.0.0/16, 'fe80::/10'], processes: [backup], codes: [S003]}"
		watching = "watch: {peers: [10.0.0.0/8], processes: [ws]}\nignore: {peers: [10.9.0.0/16]}"
	)
	for _, test := range []struct {
		name, policy string
		finding      *verdict.Finding
		want         bool
	}{
		{"its code", ignoring, about("S003"), true},
		{"another code", ignoring, about("S001"), false},
		{"its peer", ignoring, about("S001", peer("10.9.1.1")), true},
		{"its peer, IPv4 in IPv6", ignoring, about("S001", peer("::ffff:10.9.1.1")), true},
		{"its peer with a zone", ignoring, about("S001", peer("fe80::1%eth0")), true},
		{"its peer with a port", ignoring, about("L004", peer("10.9.1.1:443")), true},
		{"a unix socket", ignoring, about("L004", peer("/run/docker.sock")), false},
		{"another peer", ignoring, about("S001", peer("10.8.1.1")), false},
		{"its process", ignoring, about("L001", process("backup")), true},
		{"several processes", ignoring, about("S001", verdict.Value{Key: "processes", V: []string{"backup"}}), false},
		{"process not known", ignoring, about("L001", process(nil)), false},
		{"watched by peer", watching, about("S001", peer("10.1.1.1"), process("other")), false},
		{"watched by process", watching, about("S001", peer("192.0.2.1"), process("ws")), false},
		{"watched, and ignored", watching, about("S001", peer("10.9.1.1"), process("ws")), true},
		{"not watched", watching, about("S001", peer("192.0.2.1"), process("other")), true},
		{"half known", watching, about("S001", peer("192.0.2.1")), false},
		{"of neither", watching, about("N001", verdict.Value{Key: "nameserver", V: "192.0.2.53"}), false},
	} {
		p, err := policy.Parse([]byte(test.policy))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Ignores(test.finding); got != test.want {
			t.Errorf("%s: ignores %v", test.name, got)
		}
	}
}

// TestDocs: the file in the documentation is right, and has the keys of this
// package's own example.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, file, _ := strings.Cut(string(text), "```yaml\n")
	file, _, _ = strings.Cut(file, "```")
	if p, err := policy.Parse([]byte(file)); err != nil || p.Cut == nil || p.Evac == nil || len(p.Tune) != 1 || p.Webhook == "" {
		t.Errorf("%+v, %v", p, err)
	}
}

// FuzzParse: any bytes give a policy or an error, and never both or a panic;
// what acts has been told to in words.
func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("a: &a [*a, *a]"))
	f.Add([]byte("? {a: b}\n: c"))
	f.Add([]byte("<<: {watch: {}}"))
	f.Add([]byte("acts: {cut: {on: [S001]}, tune: [{cgroup: a}], evac: {on: shutdown}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := policy.Parse(data)
		if (p == nil) == (err == nil) {
			t.Fatalf("%v, %v", p, err)
		}
		if err == nil && len(p.Acts()) > 0 && !strings.Contains(string(data), "acts") {
			// a key may be written with escapes, as "\u0061cts"
			if !strings.Contains(string(data), `\`) {
				t.Fatalf("acts on %q without being told to", p.Acts())
			}
		}
	})
}
