package lifeline_test

import (
	"go/ast"
	"regexp"
	"slices"
	"strings"
)

const (
	leakcheckPath  = module + "/internal/leakcheck"
	testscriptPath = "github.com/rogpeppe/go-internal/testscript"
	usesTestscript = `package a; import "` + testscriptPath + `"`
)

var testingRules = []rule{
	{
		name: "every test binary looks for leaks", check: leaksLookedFor,
		wrong: []sample{
			{"a/a_test.go": `package a; import "testing"; func TestA(t *testing.T) {}`},
			{"a/a_test.go": `package a; import "testing"; func TestMain(m *testing.M) { m.Run() }`},
		},
		right: []sample{
			{"a/a.go": "package a"},
			{"a/a_test.go": `package a; import ("testing"; "` + leakcheckPath + `"); func TestMain(m *testing.M) { leakcheck.Main(m) }`},
		},
	},
	{
		name: "only internal/need skips", check: nothingSkips,
		wrong: []sample{
			{"a/a_test.go": `package a; import "testing"; func TestA(t *testing.T) { t.Skip("later") }`},
			{"a/a_test.go": `package a; import "testing"; func BenchmarkA(b *testing.B) { b.SkipNow() }`},
			{"a/a_test.go": `package a; import "testing"; func TestA(t *testing.T) { if testing.Short() { return } }`},
			{"agent/lab/a.go": `package lab; import "testing"; func F(t testing.TB) { t.Skipf("no") }`},
			{"a/a_test.go": usesTestscript, "a/testdata/a.txtar": "[!root] skip 'needs root'\n"},
			{"a/a_test.go": usesTestscript, "a/testdata/a.txt": "stop\n"},
		},
		right: []sample{
			{"internal/need/need.go": `package need; import "testing"; func f(t testing.TB) { t.Skipf("no") }`},
			{"a/a.go": `package a; import "bufio"; func f(r *bufio.Reader) { r.Skip() }`},
			{"a/a_test.go": usesTestscript, "a/testdata/a.txtar": "exec lifeline\n-- file --\nskip\n"},
			{"a/a_test.go": "package a", "a/testdata/a.txt": "skip is a word like any other here\n"},
		},
	},
}

func leaksLookedFor(t tree) (complaints []string) {
	for folder, files := range t.byFolder() {
		files = slices.DeleteFunc(files, func(f file) bool { return !f.test() })
		if len(files) > 0 && !slices.ContainsFunc(files, callsLeakcheck) {
			complaints = append(complaints, folder+": needs func TestMain(m *testing.M) { leakcheck.Main(m) }")
		}
	}
	return complaints
}

func callsLeakcheck(f file) (calls bool) {
	for _, decl := range f.Decls {
		if fun, ok := decl.(*ast.FuncDecl); ok && fun.Name.Name == "TestMain" {
			f.uses(leakcheckPath, func(n ast.Node, _ string) {
				calls = calls || fun.Pos() <= n.Pos() && n.End() <= fun.End()
			})
		}
	}
	return calls
}

// ends matches what makes a script of package testscript pass before its end.
var ends = regexp.MustCompile(`(?m)^[ \t]*(\[[^\]]*\][ \t]*)*(skip|stop)\b`)

func nothingSkips(t tree) (complaints []string) {
	for _, f := range t.files {
		_, tests := f.imports()["testing"]
		if !tests || f.folder() == "internal/need" {
			continue
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			if selector, ok := n.(*ast.SelectorExpr); ok {
				switch selector.Sel.Name {
				case "Skip", "SkipNow", "Skipf":
					complaints = append(complaints, f.complain(n, "say what is missing to package need, which does not skip in CI"))
				}
			}
			return true
		})
		f.uses("testing", func(n ast.Node, name string) {
			if name == "Short" {
				complaints = append(complaints, f.complain(n, "a test that is left out of short runs is not run"))
			}
		})
	}
	for name, text := range t.scripts {
		folder, _, _ := strings.Cut(name, "/testdata/")
		if !slices.ContainsFunc(t.byFolder()[folder], func(f file) bool { return f.imports()[testscriptPath] != "" }) {
			continue
		}
		script, _, _ := strings.Cut("\n"+text, "\n-- ")
		if word := ends.FindString(script); word != "" {
			complaints = append(complaints, name+": "+strings.TrimSpace(word)+": ask package need before the script runs")
		}
	}
	return complaints
}
