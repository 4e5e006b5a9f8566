package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/history"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/agent/state"
)

// storyFlags are the flags of lifeline history as typed.
type storyFlags struct {
	from, to, peer, process, history string
	top                              int
}

func newHistory() *cobra.Command {
	var f storyFlags
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Says when connections came and went most, and what was found then",
		Long: "Looks through the agent's history for the moments at which peers came, went, or changed by most connections,\n" +
			"and says what was found then. lifeline diff tells all that changed at such a moment.",
		Example: "  lifeline history                              the ten largest changes of the last day\n" +
			"  lifeline history --peer 10.77.1.2 --from 7d   when its connections vanished, and what else happened then\n" +
			"  lifeline history --process ws-server          of one program",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runHistory(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.from, "from", "1d", "`time`: \"2026-11-20 14:05\", 14:05, RFC 3339, or how long ago, such as 7d")
	flags.StringVar(&f.to, "to", "0s", "`time`, likewise (0s: now)")
	flags.StringVar(&f.peer, "peer", "", "only connections with this `address` or network")
	flags.StringVar(&f.process, "process", "", "only connections of processes of this `name`")
	flags.IntVar(&f.top, "top", history.UsualShifts, "the N largest changes")
	historyFlag(cmd, &f.history)
	return cmd
}

func runHistory(cmd *cobra.Command, f *storyFlags) error {
	if f.top < 1 || f.top > history.MostShifts {
		return usageError{fmt.Errorf("--top %d: take a number from 1 to %d", f.top, history.MostShifts)}
	}
	from, to, err := parseTimes(f.from, f.to)
	if err != nil {
		return usageError{err}
	}
	filter := state.Filter{Series: state.Series{Program: f.process}}
	if filter.Peer, err = state.PeerOf(f.peer); err != nil {
		return usageError{fmt.Errorf("--peer: %w", err)}
	}
	return withHistory(cmd, f.history, func(ctx context.Context, h *history.Reader) error {
		s, err := h.Story(ctx, filter, from, to, f.top)
		if err != nil {
			return err
		}
		if asJSON(cmd) {
			return show.StoryJSON(cmd.OutOrStdout(), hostname(), &s)
		}
		ask := "lifeline diff"
		if f.history != historyPath {
			ask += " --history " + f.history
		}
		style, _ := terminal(cmd.ErrOrStderr())
		show.Story(cmd.OutOrStdout(), &s, ask)
		show.Gap(cmd.ErrOrStderr(), &s.From, style)
		show.Gap(cmd.ErrOrStderr(), &s.To, style)
		return nil
	})
}

// parseTimes reads --from and --to.
func parseTimes(fromText, toText string) (from, to time.Time, err error) {
	now := time.Now()
	from, noFrom := parseTime("from", fromText, now)
	to, noTo := parseTime("to", toText, now)
	if err := cmp.Or(noFrom, noTo); err != nil {
		return from, to, err
	}
	if !from.Before(to) {
		return from, to, fmt.Errorf("--from %s is not before --to %s: take the earlier time first", from.Local().Format(time.DateTime), to.Local().Format(time.DateTime))
	}
	return from, to, nil
}

// diffFlags are the flags of lifeline diff as typed.
type diffFlags struct {
	from, to, history string
	top               int
}

func newDiff() *cobra.Command {
	var f diffFlags
	cmd := &cobra.Command{
		Use:   "diff",
		Short: "Says which peers came and went between two moments",
		Long: "Compares two moments of the agent's history: which peers came, went, have more or fewer connections, and\n" +
			"what was found between the two.",
		Example: "  lifeline diff --from 2h                                                  what changed in the last two hours\n" +
			"  lifeline diff --from \"2026-11-20 14:00\" --to \"2026-11-20 14:10\"          when the connections vanished",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDiff(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.from, "from", "", "`time`: \"2026-11-20 14:05\", 14:05, RFC 3339, or how long ago, such as 2h")
	flags.StringVar(&f.to, "to", "0s", "`time`, likewise (0s: now)")
	flags.IntVar(&f.top, "top", 0, "only the N largest changes of each kind (0: all)")
	historyFlag(cmd, &f.history)
	return cmd
}

func runDiff(cmd *cobra.Command, f *diffFlags) error {
	if f.from == "" {
		return usageError{errors.New(`--from is missing: take a time such as --from "2026-11-20 14:05" or --from 2h; lifeline history says when most changed`)}
	}
	if f.top < 0 {
		return usageError{fmt.Errorf("--top %d is less than nothing: take a number from 1, or 0 for all", f.top)}
	}
	from, to, err := parseTimes(f.from, f.to)
	if err != nil {
		return usageError{err}
	}
	return withHistory(cmd, f.history, func(ctx context.Context, h *history.Reader) error {
		d, err := h.Diff(ctx, from, to)
		if err != nil {
			return err
		}
		if asJSON(cmd) {
			return show.DifferenceJSON(cmd.OutOrStdout(), hostname(), &d)
		}
		style, _ := terminal(cmd.ErrOrStderr())
		show.Difference(cmd.OutOrStdout(), &d, f.top)
		show.Gap(cmd.ErrOrStderr(), &d.From, style)
		show.Gap(cmd.ErrOrStderr(), &d.To, style)
		return nil
	})
}
