package main

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/lab/websocket"
)

// What a replay of the lab starts, not people: so it is hidden.

// leashGrace is how long a command may take to end when its leash is gone.
const leashGrace = 3 * time.Second

func newLabServer() *cobra.Command {
	var addr string
	var heartbeat time.Duration
	cmd := &cobra.Command{
		Use:     "websocket-server",
		Short:   "The server of the story",
		Example: "  lifeline lab websocket-server --listen 127.0.0.1:8080 --heartbeat 30s",
		Hidden:  true,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := websocket.RunServer(cmd.Context(), addr, heartbeat, cmd.OutOrStdout()); err != nil {
				return blindError{err}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&addr, "listen", "127.0.0.1:8080", "`address` to listen on")
	cmd.Flags().DurationVar(&heartbeat, "heartbeat", 0, "how often to write to each client; 0: never")
	return cmd
}

func newLabClients() *cobra.Command {
	var url, again string
	var connections int
	var spread time.Duration
	cmd := &cobra.Command{
		Use:     "websocket-clients",
		Short:   "One of the client processes of the story",
		Example: "  lifeline lab websocket-clients --url ws://127.0.0.1:8080 --connections 528 --spread 15s",
		Hidden:  true,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := websocket.RunClients(cmd.Context(), url, again, connections, spread, cmd.OutOrStdout()); err != nil {
				return blindError{err}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&url, "url", "ws://127.0.0.1:8080", "`address` of the server")
	cmd.Flags().StringVar(&again, "again", "", "`address` where those that end are opened again; none: nowhere")
	cmd.Flags().IntVar(&connections, "connections", 1, "how many to open")
	cmd.Flags().DurationVar(&spread, "spread", 0, "open them over this time")
	return cmd
}

// newLabLeashed runs any command of Lifeline until its standard input ends: the
// kernel closes that when whoever started it dies, by whatever signal.
func newLabLeashed() *cobra.Command {
	return &cobra.Command{
		Use:     "leashed -- COMMAND",
		Short:   "Runs a command of Lifeline until standard input ends",
		Example: "  lifeline lab leashed -- silence --watch",
		Hidden:  true,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			go func() {
				_, _ = io.Copy(io.Discard, cmd.InOrStdin()) // however it ends, it has
				cancel()
				time.Sleep(leashGrace)
				os.Exit(exitInterrupted)
			}()
			if code := run(ctx, args, cmd.OutOrStdout(), cmd.ErrOrStderr()); code != exitWell {
				return exitCode(code)
			}
			return nil
		},
	}
}
