package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/client"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// statusFlags are the flags of lifeline agent status as typed.
type statusFlags struct {
	agent, tokenFile string
	wait             time.Duration
}

func newAgentStatus() *cobra.Command {
	var f statusFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Says what the agent that runs here knows, in a few lines",
		Long: "Asks the agent how it stands with the four promises, what it found, what to do, and what it cannot see.\n" +
			"An agent that has just begun is given time until it has looked at all.",
		Example: "  lifeline agent status          what the agent here knows\n" +
			"  lifeline agent status --json   all that it knows, as one JSON document",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runStatus(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.agent, "agent", agentAddress, "`URL` of the agent")
	flags.StringVar(&f.tokenFile, "token-file", "", "`file` with the token of the agent, where it wants one")
	flags.DurationVar(&f.wait, "wait", 30*time.Second, "how long to wait for an agent that begins to have looked at all")
	cmd.Annotations = map[string]string{exitCodes: "0 no failure is open, 1 findings of severity fail, 2 wrong usage, 3 no agent answers"}
	return cmd
}

func runStatus(cmd *cobra.Command, f *statusFlags) error {
	token := ""
	if f.tokenFile != "" {
		var err error
		if token, err = readToken(f.tokenFile); err != nil {
			return usageError{err}
		}
	}
	a, err := client.New(f.agent, token)
	if err != nil {
		return usageError{fmt.Errorf("--agent: %w", err)}
	}
	defer a.Close()
	s, err := lookedAtAll(cmd.Context(), a, f.wait)
	if refused, ok := errors.AsType[*client.Refused](err); ok && refused.Status == http.StatusUnauthorized {
		return blindError{fmt.Errorf("the agent at %s wants its token: --token-file FILE", f.agent)}
	}
	if err != nil {
		return blindError{fmt.Errorf("no agent at %s: %w; lifeline agent starts one", f.agent, err)}
	}
	if asJSON(cmd) {
		e := json.NewEncoder(cmd.OutOrStdout())
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		err = e.Encode(s)
	} else {
		style, _ := terminal(cmd.OutOrStdout())
		show.Status(cmd.OutOrStdout(), s, style)
	}
	failed := func(f state.Finding) bool {
		return f.Resolved == nil && f.Cause == "" && f.Severity == verdict.Fail
	}
	if err == nil && slices.ContainsFunc(s.Findings, failed) {
		err = errFindings
	}
	return err
}

// lookedAtAll asks for a state in which each source has looked once, or cannot, and
// takes the last there is when that takes too long.
func lookedAtAll(ctx context.Context, a *client.Agent, wait time.Duration) (*state.State, error) {
	ctx, stop := context.WithTimeout(ctx, wait)
	defer stop()
	var last *state.State
	why := errors.New("it does not answer")
	a.Follow(ctx, func(s *state.State) {
		last = s
		waits := func(source state.Source) bool { return source.Last == nil && source.Error == "" && source.Off == "" }
		if !slices.ContainsFunc(s.Sources, waits) {
			stop()
		}
	}, func(err error) {
		why = err
		stop()
	})
	if last != nil {
		return last, nil
	}
	return nil, why
}
