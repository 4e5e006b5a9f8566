// Package leakcheck is [lifelinetest.Main] for the tests of this repository, all
// of which must call it: the architecture test looks for it. It holds them to
// leaving no file beside their source, too.
package leakcheck

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lifeline-go/lifeline/lifelinetest"
)

// Main runs the tests of m and exits. Every test binary must call it, or give
// a [Checked] to what runs its tests, from TestMain.
func Main(m *testing.M) { os.Exit(Checked{m}.Run()) }

// Checked is something that runs tests, and checks what they leave behind.
type Checked struct{ Tests interface{ Run() int } }

// Run runs the tests and returns the exit code: that of the tests, or 1 when
// they passed and left something behind.
func (c Checked) Run() int {
	before := files()
	code := lifelinetest.Check{}.Run(c.Tests)
	if code != 0 {
		return code
	}
	for name := range files() {
		if !before[name] {
			fmt.Fprintln(os.Stderr, "leakcheck: the tests left a file beside their source:", name)
			code = 1
		}
	}
	return code
}

// files are those beside the source, and directories. What is made there on purpose
// is not among them, nor what fuzzing finds.
func files() map[string]bool {
	all := make(map[string]bool)
	entries, err := os.ReadDir(".")
	if err != nil { // the directory is gone, or nobody's: so are its files
		return nil
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case slices.Contains(onPurpose, name), slices.Contains([]string{".test", ".prof"}, filepath.Ext(name)):
		default:
			all[name] = true
		}
	}
	return all
}

// onPurpose are names that .gitignore has too, but for the first.
var onPurpose = []string{"testdata", "bin", "dist", "node_modules", "screenshots"}
