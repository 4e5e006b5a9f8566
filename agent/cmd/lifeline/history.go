package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/history"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/agent/state"
)

// historyPath is where the agent keeps its history.
const historyPath = "/var/lib/lifeline/history.db"

// historyTime is how long a question to the history may take: on a slow disk it
// reads some hundred megabytes in that.
const historyTime = time.Minute

// parseTime reads a moment: "2026-11-20 14:05" of this machine's clock, RFC 3339,
// or how long ago.
func parseTime(flag, text string, now time.Time) (time.Time, error) {
	if ago, err := parseSpan(text); err == nil {
		return now.Add(-ago), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04", time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04", time.TimeOnly} { // today's
		if t, err := time.ParseInLocation(time.DateOnly+" "+layout, now.Format(time.DateOnly)+" "+text, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf(`--%s %q is no time: take "2026-11-20 14:05", 14:05, 2026-11-20T14:05:00Z or how long ago, such as 2h or 3d`, flag, text)
}

// parseSpan reads how long, as Go does and with days too, such as 7d or 1d12h.
func parseSpan(text string) (time.Duration, error) {
	days, rest, found := strings.Cut(text, "d")
	if !found {
		days, rest = "0", text
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, err
	}
	var d time.Duration
	if rest != "" || !found {
		d, err = time.ParseDuration(rest)
	}
	if err == nil && (d < 0 || d > 100*365*24*time.Hour) {
		err = errors.New("below 0, or above what makes sense")
	}
	return d + time.Duration(min(n, 100*365))*24*time.Hour, err
}

func historyFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "history", historyPath, "`file` of the agent's history")
}

// withHistory opens the history for one question.
func withHistory(cmd *cobra.Command, path string, ask func(context.Context, *history.Reader) error) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), historyTime)
	defer cancel()
	h, err := history.Read(ctx, path)
	if err != nil {
		return blindError{err}
	}
	defer h.Close() //nolint:errcheck // it was read only
	if err := ask(ctx, h); err != nil {
		return blindError{err}
	}
	return nil
}

// runPast is lifeline census --at.
func runPast(cmd *cobra.Command, f *censusFlags) error {
	for _, name := range []string{"net", "protocol", "state", "pid", "netns", "watch"} {
		if cmd.Flags().Changed(name) {
			return usageError{fmt.Errorf("--%s is not in the history: with --at take --by %s, --peer, --process and --top", name, strings.Join(show.PastKeys, ","))}
		}
	}
	o, err := f.options()
	if err != nil {
		return usageError{err}
	}
	at, err := parseTime("at", f.at, time.Now())
	if err != nil {
		return usageError{err}
	}
	var by []string
	for _, key := range o.By {
		if by = append(by, string(key)); !slices.Contains(show.PastKeys, string(key)) {
			return usageError{fmt.Errorf("the history is not counted by %s: with --at take one or several of %s", key, strings.Join(show.PastKeys, ","))}
		}
	}
	return withHistory(cmd, f.history, func(ctx context.Context, h *history.Reader) error {
		past, err := h.At(ctx, at)
		if err != nil {
			return err
		}
		past.Groups = slices.DeleteFunc(past.Groups, func(g state.Group) bool {
			return f.process != "" && g.Program != f.process || o.Filter.Peer.IsValid() && !within(g.Peer, o.Filter.Peer)
		})
		if asJSON(cmd) {
			return show.PastJSON(cmd.OutOrStdout(), hostname(), &past, by, f.top)
		}
		style, _ := terminal(cmd.ErrOrStderr())
		show.Past(cmd.OutOrStdout(), &past, by, f.top)
		show.Gap(cmd.ErrOrStderr(), &past.Moment, style)
		return nil
	})
}

// within reports that a peer is an address of a network.
func within(peer string, network netip.Prefix) bool {
	addr, err := netip.ParseAddr(peer)
	return err == nil && network.Contains(addr.Unmap().WithZone(""))
}
