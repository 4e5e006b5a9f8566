// Package early does what lifeline run needs first, before the rest of the command
// is initialised, which takes milliseconds that a program would wait for: it starts
// the process that keeps the program, and is that process until it can do the rest. It
// is to be imported by the command and nobody else.
//
// Go initialises packages in the order of their paths, each as soon as those that it
// imports are (Program initialization, in the specification of Go 1.21 and later).
// So this one must import little, and nothing of package net.
package early

import (
	"os"
	"slices"
	"strings"

	"github.com/lifeline-go/lifeline/agent/act/run/launch"
)

const (
	// Run is the name of the command that runs a program.
	Run = "run"

	// Keeper is the first argument of the process that keeps one. It is no command
	// among the others.
	Keeper = "run-keeper"
)

// KeeperCommand starts this program again, also when its file has been replaced.
var KeeperCommand = []string{"/proc/self/exe", Keeper}

// Of what was begun, one is set when this process is of lifeline run.
var (
	Front *launch.Keeper
	Kept  *launch.Kept
)

func init() {
	switch args := os.Args[min(1, len(os.Args)):]; {
	case len(args) > 0 && args[0] == Keeper:
		Kept = launch.Keep(args[1:], os.Environ())
	case Runs(args):
		Front = launch.Begin(KeeperCommand, args, os.Environ())
	}
}

// Runs reports that the arguments of the command are those of lifeline run.
func Runs(args []string) bool {
	i := CommandAt(args)
	return i < len(args) && args[i] == Run
}

// CommandAt is where in the arguments the name of the command is; their number where
// it is not.
func CommandAt(args []string) int {
	i := slices.IndexFunc(args, func(arg string) bool { return !strings.HasPrefix(arg, "-") })
	if i < 0 {
		return len(args)
	}
	return i
}
