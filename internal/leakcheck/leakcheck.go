// Package leakcheck is [lifelinetest.Main] for the tests of this repository, all
// of which must call it: the architecture test looks for it.
package leakcheck

import (
	"os"
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
func (c Checked) Run() int { return lifelinetest.Check{}.Run(c.Tests) }
