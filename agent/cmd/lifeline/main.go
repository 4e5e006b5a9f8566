// Command lifeline looks at the network connections of a Linux machine: who
// holds them, how long their failure would go unnoticed, and what is wrong with
// them now.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/lifeline-go/lifeline/agent/cmd/lifeline/early"
	_ "github.com/lifeline-go/lifeline/names/getaddrinfo" // names are asked of the C library too
)

func main() {
	if early.Kept != nil {
		os.Exit(keep(early.Kept))
	}
	if watches(os.Args[1:]) {
		unhurried()
	}
	ctx, stop := context.Background(), func() {}
	// The signals of lifeline run are those of the program that it runs: to ask for them
	// and to give them back would take a millisecond each.
	if !early.Runs(os.Args[1:]) {
		ctx, stop = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	}
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
