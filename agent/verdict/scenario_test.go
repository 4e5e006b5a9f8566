package verdict

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// rounds is how often simulations play: each round has seeds of its own. The race
// detector finds nothing in them, and has them take ten times as long.
var rounds = flag.Uint64("rounds", 1, "how many rounds of the simulations to play")

var update = flag.Bool("update", false, "write what Judge finds into testdata")

// scenario is a story of a machine and what must be found there.
type scenario struct {
	name  string // the line after ##
	facts string
	want  string
}

// scenarios reads a file of them: "## name", facts, "----", findings.
func scenarios(text string) []scenario {
	var all []scenario
	for _, part := range strings.Split("\n"+text, "\n## ")[1:] {
		name, rest, _ := strings.Cut(part, "\n")
		facts, want, _ := strings.Cut(rest, "\n----\n")
		all = append(all, scenario{name, strings.TrimSpace(facts), strings.TrimSpace(want)})
	}
	return all
}

func (s scenario) String() string {
	return "## " + s.name + "\n" + s.facts + "\n----\n" + s.want + "\n"
}

// judged is what is found in a scenario, as text too, and which codes must not be.
type judged func(facts string) (findings []Finding, text string, near []string, err error)

// judgedLook is of one look, or two, at a machine.
func judgedLook(facts string) (findings []Finding, text string, near []string, err error) {
	m, near, err := parse(facts)
	findings = Judge(m)
	return findings, render(findings), near, err
}

// TestScenarios judges every machine of testdata, and in testdata/opened what is
// opened over time. Every rule must be reached by a scenario, and by another
// that comes near it must not be.
func TestScenarios(t *testing.T) {
	reached, spared := make(map[string]bool), make(map[string]bool)
	for pattern, judge := range map[string]judged{"testdata/*.txt": judgedLook, "testdata/opened/*.txt": judgedOpened} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no scenarios: %v", err)
		}
		for _, file := range files {
			judgeFile(t, file, judge, reached, spared)
		}
	}
	for _, rule := range Rules {
		if !reached[rule.Code] {
			t.Errorf("no scenario reaches %s", rule.Code)
		}
		if !spared[rule.Code] {
			t.Errorf("no scenario comes near %s and stays silent", rule.Code)
		}
	}
}

// judgeFile judges the scenarios of a file.
func judgeFile(t *testing.T, file string, judge judged, reached, spared map[string]bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	name := strings.TrimPrefix(strings.TrimSuffix(file, ".txt"), "testdata/")
	for _, s := range scenarios(string(text)) {
		t.Run(name+"/"+s.name, func(t *testing.T) {
			findings, got, near, err := judge(s.facts)
			if err != nil {
				t.Fatal(err)
			}
			if got != s.want && !*update {
				t.Errorf("got:\n%s\nwant:\n%s", got, s.want)
			}
			s.want = got
			for _, f := range findings {
				reached[f.Code] = true
				if slices.Contains(near, f.Code) {
					t.Errorf("%s must stay silent: %s", f.Code, f.Title)
				}
			}
			for _, code := range near {
				spared[code] = true
			}
		})
		all = append(all, s.String())
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.Join(all, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// render writes findings as scenarios have them: a line for people, and the
// facts in it for the rest.
func render(findings []Finding) string {
	if len(findings) == 0 {
		return "nothing"
	}
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%s %s %s\n", f.Code, f.Severity, f.Title)
		fmt.Fprintf(&b, "     %s |%s\n", valuesLine(f.Subject), valuesLine(f.Evidence))
	}
	return strings.TrimSpace(b.String())
}

func valuesLine(values Values) string {
	var b strings.Builder
	for _, v := range values {
		text, _ := json.Marshal(v.V)
		fmt.Fprintf(&b, " %s=%s", v.Key, text)
	}
	return b.String()
}
