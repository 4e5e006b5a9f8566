package deploy_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/lifeline-go/lifeline/agent/deploy"
	"github.com/lifeline-go/lifeline/agent/export"
	"github.com/lifeline-go/lifeline/internal/need"
)

// expr is one query, and where it is.
type expr struct{ where, text string }

func rulesOf(t *testing.T) (all []expr) {
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(deploy.Rules, &file); err != nil {
		t.Fatal(err)
	}
	for _, group := range file.Groups {
		for _, r := range group.Rules {
			if s := r.Labels["severity"]; s != "critical" && s != "warning" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s lacks a severity, summary or description", r.Alert)
			}
			all = append(all, expr{r.Alert, r.Expr})
		}
	}
	return all
}

type source struct{ Type, UID string }

type panel struct {
	ID         int
	Title      string
	Datasource source
	GridPos    struct{ X, Y, W, H int }
	Targets    []struct {
		RefID, Expr string
		Datasource  source
	}
}

func board(t *testing.T) (panels []panel) {
	var doc struct {
		SchemaVersion int
		UID           string
		Panels        []panel
		Templating    struct {
			List []struct{ Name, Type, Definition string }
		}
	}
	if err := json.Unmarshal(deploy.Board, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.SchemaVersion != 39 || doc.UID != "lifeline" { // Grafana 10 and later
		t.Errorf("schema version %d, uid %q", doc.SchemaVersion, doc.UID)
	}
	if l := doc.Templating.List; len(l) != 2 || l[0].Name != "datasource" || l[0].Type != "datasource" || l[1].Name != "instance" {
		t.Errorf("variables: %+v", l)
	}
	return doc.Panels
}

func boardExprs(t *testing.T) (all []expr) {
	for _, p := range board(t) {
		for _, target := range p.Targets {
			all = append(all, expr{p.Title, target.Expr})
		}
	}
	return all
}

// TestBoard: each panel takes the data source that was chosen and the machines
// that were, has a number of its own, and lies on no other.
func TestBoard(t *testing.T) {
	taken, ids := make(map[[2]int]string), make(map[int]bool)
	for _, p := range board(t) {
		if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d %q: a number twice, no title or nothing to show", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" || p.Datasource.UID != "${datasource}" {
				t.Errorf("%s: has a data source of its own", p.Title)
			}
			if !strings.Contains(target.Expr, `instance=~"$instance"`) {
				t.Errorf("%s: does not choose the machines", p.Title)
			}
		}
		g := p.GridPos
		if g.X+g.W > 24 || g.W == 0 || g.H == 0 {
			t.Errorf("%s: lies off the board", p.Title)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%s lies on %s", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

var (
	metric   = regexp.MustCompile(`\b((?:lifeline|process)_[a-z_]+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`([a-z_]+)(?:=~|!~|!=|=)"`)
	grouping = regexp.MustCompile(`\bby \(([^)]*)\)`)
)

// TestMetricsExist: what the board and the rules ask for is there, with its
// labels; and what is there is on the board or in a rule.
func TestMetricsExist(t *testing.T) {
	labels := map[string][]string{"process_cpu_seconds_total": nil, "process_resident_memory_bytes": nil}
	for _, m := range export.Metrics() {
		labels[m.Name] = m.Labels
	}
	given := []string{"instance", "job"} // by Prometheus
	used := make(map[string]bool)
	for _, e := range append(boardExprs(t), rulesOf(t)...) {
		var here []string
		found := metric.FindAllStringSubmatch(e.text, -1)
		if len(found) == 0 && !strings.Contains(e.text, "up{") {
			t.Errorf("%s: asks for no metric: %s", e.where, e.text)
		}
		for _, m := range found {
			has, ok := labels[m[1]]
			if !ok {
				t.Errorf("%s: there is no metric %s", e.where, m[1])
			}
			used[m[1]] = true
			here = append(here, has...)
			for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
				if !slices.Contains(has, l[1]) && !slices.Contains(given, l[1]) {
					t.Errorf("%s: %s has no label %s", e.where, m[1], l[1])
				}
			}
		}
		for _, by := range grouping.FindAllStringSubmatch(e.text, -1) {
			for _, l := range strings.Split(by[1], ", ") {
				if !slices.Contains(here, l) && !slices.Contains(given, l) {
					t.Errorf("%s: nothing in it has the label %s", e.where, l)
				}
			}
		}
	}
	elsewhere := []string{"lifeline_start_time_seconds", "lifeline_policy_loaded_timestamp_seconds", "lifeline_acts_allowed", "lifeline_namespaces",
		"lifeline_promise_looked_timestamp_seconds", "lifeline_findings_hidden", "lifeline_findings_flapping", "lifeline_census_timestamp_seconds",
		"lifeline_source_last_success_timestamp_seconds", "lifeline_blind_spots"} // for whoever asks for them
	for name := range labels {
		if used[name] == slices.Contains(elsewhere, name) {
			t.Errorf("%s: on the board or in a rule: %v", name, used[name])
		}
	}
}

// TestRules has Prometheus's own tool read the rules and play them.
func TestRules(t *testing.T) {
	promtool(t, "check", "rules", "--lint-fatal", "lifeline.rules.yaml")
	promtool(t, "test", "rules", "lifeline.rules_test.yaml")
	played, err := os.ReadFile("lifeline.rules_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rulesOf(t) {
		if !strings.Contains(string(played), r.where) {
			t.Errorf("no test sees %s fire", r.where)
		}
	}
}

// TestBoardQueries has it read the board's queries, each as a rule of a file.
func TestBoardQueries(t *testing.T) {
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []rule
	for i, e := range boardExprs(t) {
		rules = append(rules, rule{"board:query" + string(rune('a'+i%26)) + string(rune('a'+i/26)), e.text})
	}
	text, err := yaml.Marshal(map[string]any{"groups": []map[string]any{{"name": "board", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "board.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, need.Program(t, "promtool"), args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
