// Command lifeline looks at the network connections of a Linux machine: who
// holds them, how long their failure would go unnoticed, and what is wrong with
// them now.
package main

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	_ "github.com/lifeline-go/lifeline/names/getaddrinfo" // names are asked of the C library too
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == keeperName {
		os.Exit(keep(os.Args[2:]))
	}
	if watches(os.Args[1:]) {
		unhurried()
	}
	ctx, stop := context.Background(), func() {}
	if !runs(os.Args[1:]) {
		ctx, stop = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	}
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// runs reports that the command is run. Its signals are those of the program that it
// runs: to ask for them and to give them back would take a millisecond each.
func runs(args []string) bool {
	i := commandAt(args)
	return i < len(args) && args[i] == runName
}

// commandAt is where in the arguments the name of the command is; their number where
// it is not.
func commandAt(args []string) int {
	i := slices.IndexFunc(args, func(arg string) bool { return !strings.HasPrefix(arg, "-") })
	if i < 0 {
		return len(args)
	}
	return i
}
