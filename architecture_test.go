package lifeline_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// module is the path of the root module; that of the program lies below it.
const module = "github.com/lifeline-go/lifeline"

// A rule of the architecture looks at the source files of all modules and
// complains. The files are parsed here and not asked of go list, which sees
// one platform at a time.
type rule struct {
	name  string
	check func(tree) []string

	// The rule is tested itself: it must complain of each wrong sample, and of
	// no right one.
	wrong, right []sample
}

// A sample is a small tree: file names and what is in them.
type sample map[string]string

// TestArchitecture holds the rules of layers_test.go, house_test.go and
// testing_test.go.
func TestArchitecture(t *testing.T) {
	top, err := load(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, rules := range [][]rule{layerRules, houseRules, testingRules} {
		for _, r := range rules {
			t.Run(r.name, func(t *testing.T) {
				r.proveItself(t)
				for _, complaint := range r.check(top) {
					t.Error(complaint)
				}
			})
		}
	}
}

func (r rule) proveItself(t *testing.T) {
	t.Helper()
	if len(r.wrong) == 0 {
		t.Error("the rule has no sample that it must catch")
	}
	for _, s := range r.wrong {
		if len(r.check(s.tree(t))) == 0 {
			t.Errorf("the rule does not catch %v", s)
		}
	}
	for _, s := range r.right {
		if complaints := r.check(s.tree(t)); len(complaints) > 0 {
			t.Errorf("the rule complains of %v: %v", s, complaints)
		}
	}
}

func (s sample) tree(t *testing.T) tree {
	t.Helper()
	files := make(fstest.MapFS)
	for name, text := range s {
		files[name] = &fstest.MapFile{Data: []byte(text)}
	}
	parsed, err := load(files)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// A tree is what the rules look at.
type tree struct {
	files   []file            // Go, of all platforms, with tests and generated code
	modules map[string]string // go.mod files, by path
	scripts map[string]string // text files in testdata, by path
}

// A file is one Go source file.
type file struct {
	*ast.File
	path  string // from the top, with slashes
	lines int
	set   *token.FileSet
}

// load reads all source files below the top of fsys.
func load(fsys fs.FS) (tree, error) {
	t := tree{modules: make(map[string]string), scripts: make(map[string]string)}
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name != "." && strings.ContainsAny(entry.Name()[:1], "._") {
				return fs.SkipDir
			}
			return nil
		}
		return t.add(fsys, name)
	})
	return t, err
}

// add adds the file, when it is of a sort that rules look at.
func (t *tree) add(fsys fs.FS, name string) error {
	testdata := strings.Contains(name, "testdata/")
	isGo := path.Ext(name) == ".go" && !testdata
	isModule := path.Base(name) == "go.mod" && !testdata
	isScript := (path.Ext(name) == ".txt" || path.Ext(name) == ".txtar") && testdata
	if !isGo && !isModule && !isScript {
		return nil
	}
	text, err := fs.ReadFile(fsys, name)
	switch {
	case err != nil:
		return err
	case isModule:
		t.modules[name] = string(text)
	case isScript:
		t.scripts[name] = string(text)
	default:
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		t.files = append(t.files, file{parsed, name, strings.Count(string(text), "\n"), set})
	}
	return nil
}

func (f file) folder() string  { return path.Dir(f.path) }
func (f file) test() bool      { return strings.HasSuffix(f.path, "_test.go") }
func (f file) generated() bool { return ast.IsGenerated(f.File) }

// complain names the place, so that an editor can jump to it.
func (f file) complain(n ast.Node, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", f.path, f.set.Position(n.Pos()).Line, fmt.Sprintf(format, args...))
}

// imports maps each imported path to the name that the file knows it by.
func (f file) imports() map[string]string {
	names := make(map[string]string)
	for _, spec := range f.Imports {
		imported := strings.Trim(spec.Path.Value, `"`)
		names[imported] = path.Base(imported)
		if spec.Name != nil {
			names[imported] = spec.Name.Name
		}
	}
	return names
}

// uses calls found for each of the names that the file takes out of the
// package with the import path from.
func (f file) uses(from string, found func(n ast.Node, name string)) {
	local, ok := f.imports()[from]
	if !ok {
		return
	}
	ast.Inspect(f.File, func(n ast.Node) bool {
		if selector, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := selector.X.(*ast.Ident); ok && x.Name == local {
				found(n, selector.Sel.Name)
			}
		}
		return true
	})
}

// byFolder groups the files of a tree.
func (t tree) byFolder() map[string][]file {
	folders := make(map[string][]file)
	for _, f := range t.files {
		folders[f.folder()] = append(folders[f.folder()], f)
	}
	return folders
}
