// Command lifeline looks at the network connections of a Linux machine: who
// holds them, how long their failure would go unnoticed, and what is wrong with
// them now.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	_ "github.com/lifeline-go/lifeline/names/getaddrinfo" // names are asked of the C library too
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
