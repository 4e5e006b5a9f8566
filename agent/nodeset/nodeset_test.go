package nodeset

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"web1":                       "web1",
		"web[1-3]":                   "web1 web2 web3",
		"web[08-11],db1":             "web08 web09 web10 web11 db1",
		"web[098-101]":               "web098 web099 web100 web101",
		"web[99-101]":                "web99 web100 web101",
		"web[01-100/33]":             "web01 web34 web67 web100",
		"node[1-9/4]":                "node1 node5 node9",
		"node[1-2,7].rack[a,b]":      "node1.racka node1.rackb node2.racka node2.rackb node7.racka node7.rackb",
		"n[2,1,2] n1":                "n2 n1",
		"n[1-5]!n[2-3]":              "n1 n4 n5",
		"n[1-5]!n3,n3":               "n1 n2 n4 n5 n3",
		"n1,,n2,":                    "n1 n2",
		"":                           "",
		"127.0.0.[1-2]:22":           "127.0.0.1:22 127.0.0.2:22",
		"127.0.0.1:[2201-2202]":      "127.0.0.1:2201 127.0.0.1:2202",
		"[::1]:22,[fe80::1%eth0]":    "[::1]:22 [fe80::1%eth0]",
		"root@[::1]:2222":            "root@[::1]:2222",
		"::1":                        "::1",
		"root@web[1-2]":              "root@web1 root@web2",
		"[a,b]1":                     "a1 b1",
		"[1-2]":                      "1 2",
		"n[1-2]!n[1-2]":              "",
		"n[000000007-000000008]":     "n000000007 n000000008",
		"rack[1-2]node[1-2]!rack1x2": "rack1node1 rack1node2 rack2node1 rack2node2",
	} {
		got, err := Parse(text)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestWrong(t *testing.T) {
	for text, want := range map[string]string{
		"web[1-":                 `character 4: this [ has no ] behind it`,
		"web[1[2]]":              `character 4: this [ has no ] behind it`,
		"web]":                   `character 4: this ] has no [ before it`,
		"web[]":                  `character 5: a number or a word is missing here`,
		"web[1,,2]":              `character 7: a number or a word is missing here`,
		"web[a-c]":               `character 5: "a-c" is no range of numbers: take 1-9, or words with commas`,
		"web[1-3/0]":             `character 5: the step "0" is no number from 1`,
		"web[1-3/+1]":            `character 9: '+' is in no name of a host`,
		"web[3-1]":               `character 5: the range from 3 to 1 is empty: write the smaller number first`,
		"web[1-010]":             `character 5: 1 and 010 have zeros for different widths`,
		"web[1/2]":               `character 5: a step needs a range: take 1-9/2`,
		"web[1-1000000]":         `character 5: the set has more than 100000 nodes`,
		"a[1-999]b[1-999]":       `character 11: the set has more than 100000 nodes`,
		"a[1-60000],b[1-60000]":  `character 12: the set has more than 100000 nodes`,
		"web1;reboot":            `character 5: ';' is in no name of a host`,
		"web1,$(reboot)":         `character 6: '$' is in no name of a host`,
		"web1\nweb2":             `character 5: '\n' is in no name of a host`,
		"wéb":                    `character 2: 'é' is in no name of a host`,
		"-oProxyCommand":         `character 1: no name of a host begins with -`,
		"a@-b":                   `character 1: no name of a host begins with -`,
		"@web":                   `character 1: there are no groups: name the nodes, or a file of them by --hosts`,
		"web1!":                  `character 6: a name is missing after the exclamation mark`,
		"web1!,web2":             `character 6: a name is missing before this comma`,
		strings.Repeat("a", 321): `a name of 321 characters is too long, 320 is the most`,
	} {
		_, err := Parse(text)
		var e *Error
		if !errors.As(err, &e) || !strings.HasSuffix(err.Error(), want) || strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("%q: %v; want %s", text, err, want)
		}
	}
}

func TestLines(t *testing.T) {
	var s Set
	err := s.AddLines("# the front\nweb[1-2] # two\r\n\n\tdb1,db2!web1\n")
	if got := strings.Join(s.Names(), " "); err != nil || got != "web2 db1 db2" {
		t.Errorf("%q, %v", got, err)
	}
	err = (&Set{}).AddLines("web1\nweb[2\n")
	if err == nil || err.Error() != `"web[2": line 2, character 4: this [ has no ] behind it` {
		t.Error(err)
	}
}

func TestFold(t *testing.T) {
	for text, want := range map[string]string{
		"web1,web2,web3":            "web[1-3]",
		"web3,web1":                 "web[1,3]",
		"web01,web02,web10":         "web[01-02,10]",
		"web[01-100]":               "web[01-100]",
		"web[1-10],web[01-02]":      "web[1,01,2,02,3-10]",
		"db1":                       "db1",
		"web1,db1,web2":             "web[1-2],db1",
		"node[1-3,7].rack[1-2]":     "node[1-3,7].rack[1-2]",
		"a1b1,a1b2,a2b1":            "a1b[1-2],a2b1",
		"10.0.0.[1-9]":              "10.0.0.[1-9]",
		"[::1]:22,[::2]:22":         "[::1]:22,[::2]:22",
		"127.0.0.1:[22,2022]":       "127.0.0.1:[22,2022]",
		"n12345678901,n12345678902": "n12345678901,n12345678902",
	} {
		names, err := Parse(text)
		if got := Fold(names); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
	if got := Fold(nil); got != "" {
		t.Errorf("%q", got)
	}
}

func TestTenThousand(t *testing.T) {
	began := time.Now()
	names, err := Parse("web[00001-10000]!web00007")
	if err != nil || len(names) != 9999 {
		t.Fatalf("%d, %v", len(names), err)
	}
	parsed := time.Since(began)
	if got := Fold(names); got != "web[00001-00006,00008-10000]" {
		t.Error(got)
	}
	took := time.Since(began)
	t.Logf("10,000 nodes parsed in %v and folded in %v", parsed, took-parsed)
	if took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	var b strings.Builder
	for i := range Most + 1 {
		fmt.Fprintf(&b, "h%d\n", i*7)
	}
	if err := new(Set).AddLines(b.String()); err == nil || !strings.Contains(err.Error(), "line 100001, ") {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"web[01-32],db1", "node[1-3,7].rack[a,b]", "n[1-9/2]!n3", "[::1]:22", "a[1-9][1-9][1-9]", "x[1-", "root@[fe80::1%eth0]:22", "a[01-100]b[9,010]"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		names, err := Parse(text)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Column < 1 || e.Column > len(text)+1 {
				t.Fatalf("%q: %#v", text, err)
			}
			return
		}
		if len(names) > Most {
			t.Fatalf("%d names", len(names))
		}
		folded := Fold(names)
		again, err := Parse(folded)
		if err != nil {
			t.Fatalf("%q became %q: %v", text, folded, err)
		}
		slices.Sort(names)
		slices.Sort(again)
		if !slices.Equal(names, again) {
			t.Fatalf("%q became %q: %q, %q", text, folded, names, again)
		}
	})
}
