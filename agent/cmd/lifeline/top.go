package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/client"
	"github.com/lifeline-go/lifeline/agent/daemon"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/top"
	"github.com/lifeline-go/lifeline/agent/top/tty"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

const (
	agentAddress = "http://127.0.0.1:7117"

	// noAgent is the --agent of who wants none.
	noAgent = "none"

	// probeTime is how long is looked for an agent, askedTime for one that --agent
	// names.
	probeTime = 3 * time.Second
	askedTime = 20 * time.Second

	// onceTime is how long lifeline top --once without an agent waits for each
	// source to have looked.
	onceTime = 15 * time.Second
)

// topFlags are the flags of lifeline top as typed.
type topFlags struct {
	agent, tokenFile string
	asked            bool // --agent was typed
	once, passive    bool
}

func newTop() *cobra.Command {
	var f topFlags
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Shows what the agent knows on a terminal, live",
		Long: "Shows how it stands with the four promises, findings with what to do, peers and what falls silent if one\n" +
			"dies, connections, leaks, names, calls, and what could not be seen. It asks the agent where one runs, and\n" +
			"looks itself otherwise; its first line says which. Press ? for its keys, q to leave. It changes nothing.\n\n" +
			"Looking itself, it asks nameservers one question a minute and pokes peers that do not answer, as the agent\n" +
			"does; with --passive it sends nothing.",
		Example: "  lifeline top              what goes on now; ? for help, q to leave\n" +
			"  lifeline top --once       the same, printed once\n" +
			"  lifeline top --json       the same, as one JSON document",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.asked = cmd.Flags().Changed("agent")
			return runTop(cmd, &f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.agent, "agent", agentAddress, "`URL` of the agent; none: look without one")
	flags.StringVar(&f.tokenFile, "token-file", "", "`file` with the token of the agent, where it wants one")
	flags.BoolVar(&f.once, "once", false, "print what there is now, and end")
	flags.BoolVar(&f.passive, "passive", false, "without an agent: send nothing, ask no nameserver, poke no peer")
	return cmd
}

func runTop(cmd *cobra.Command, f *topFlags) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGHUP) // the terminal goes
	defer stop()
	out, _ := cmd.OutOrStdout().(*os.File)
	once := f.once || asJSON(cmd)
	if !once {
		if err := drawable(out); err != nil {
			return usageError{err}
		}
	}
	from, o, err := topSource(ctx, f)
	if err != nil {
		return err
	}
	defer from.close()
	style, isTerminal := inkOf(cmd)
	o.ASCII, o.Zone = !unicodeLocale(), time.Local
	if isTerminal {
		o.Ink = style
	}
	if once {
		return printTop(ctx, cmd, from, o)
	}
	err = tty.Run(ctx, tty.Options{In: os.Stdin, Out: out, Environ: os.Environ(), Screen: top.New(o), Source: from})
	if err != nil {
		return blindError{err}
	}
	return errEnded
}

// drawable says why there is nothing to draw on.
func drawable(out *os.File) error {
	const instead = "take lifeline top --once for text, or --json for one JSON document"
	for _, f := range []*os.File{out, os.Stdin} {
		if f == nil {
			return errors.New("this is no terminal: " + instead)
		}
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
			return errors.New("this is no terminal: " + instead)
		}
	}
	if term := os.Getenv("TERM"); term == "" || term == "dumb" {
		return fmt.Errorf("a terminal of the kind TERM=%q cannot be drawn on: %s", term, instead)
	}
	return nil
}

// inkOf is what the terminal can show.
func inkOf(cmd *cobra.Command) (top.Ink, bool) {
	style, is := terminal(cmd.OutOrStdout())
	if style.Color {
		return top.InkColor, is
	}
	return top.InkMono, is
}

// unicodeLocale reports that the terminal is said to show more than ASCII.
func unicodeLocale() bool {
	locale := strings.ToLower(cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_CTYPE"), os.Getenv("LANG")))
	return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
}

// topSource finds out where states come from.
func topSource(ctx context.Context, f *topFlags) (source, top.Options, error) {
	token := ""
	if f.tokenFile != "" {
		var err error
		if token, err = readToken(f.tokenFile); err != nil {
			return nil, top.Options{}, usageError{err}
		}
	}
	if f.agent != noAgent {
		a, err := client.New(f.agent, token)
		if err != nil {
			return nil, top.Options{}, usageError{fmt.Errorf("--agent: %w", err)}
		}
		within := probeTime
		if f.asked {
			within = askedTime
		}
		probe, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("no answer within %v", within))
		_, err = a.Health(probe)
		cancel()
		var refused *client.Refused
		switch {
		case err == nil:
			return &remote{a}, top.Options{From: "agent at " + strings.TrimPrefix(f.agent, "http://"), History: true}, nil
		case errors.As(err, &refused) && refused.Status == http.StatusUnauthorized:
			a.Close()
			return nil, top.Options{}, blindError{fmt.Errorf("the agent at %s wants its token: add --token-file FILE, or take --agent none to look without it", f.agent)}
		case f.asked:
			a.Close()
			return nil, top.Options{}, blindError{fmt.Errorf("no agent at %s: %w; start lifeline agent, or take --agent none to look without one", f.agent, err)}
		}
		a.Close()
	}
	return lookItself(ctx, f), top.Options{Itself: true, From: "no agent: looks itself, as " + whoami()}, nil
}

// whoami names the user in a word.
func whoami() string {
	if id := os.Geteuid(); id != 0 {
		return fmt.Sprintf("user %d", id)
	}
	return "root"
}

// printTop prints what there is now. Its exit code is that of lifeline check.
func printTop(ctx context.Context, cmd *cobra.Command, from source, o top.Options) error {
	s, err := from.once(ctx)
	if err != nil {
		return blindError{err}
	}
	if asJSON(cmd) {
		e := json.NewEncoder(cmd.OutOrStdout())
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		err = e.Encode(s)
	} else {
		screen := top.New(o)
		width := 100
		if style, is := terminal(cmd.OutOrStdout()); is {
			width = style.Width
		}
		screen.Resize(width, 0)
		screen.Take(time.Now(), s)
		_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.Join(screen.Report(), "\n"))
	}
	if err != nil {
		return err
	}
	for i := range s.Findings {
		if f := &s.Findings[i]; f.Severity == verdict.Fail && f.Resolved == nil {
			return errFindings
		}
	}
	return nil
}

// lookItself begins to watch in this process.
func lookItself(ctx context.Context, f *topFlags) *itself {
	ctx, cancel := context.WithCancel(ctx)
	i := &itself{daemon.New(daemon.Options{Version: versionText(), Naming: naming(!f.passive), Passive: f.passive}), cancel, make(chan error, 1)}
	go func() { i.ended <- i.Run(ctx) }()
	return i
}

// allLooked reports that every source which looks now and then has done so, or said
// why not.
func allLooked(s *state.State) bool {
	if s.Totals.Looked.IsZero() {
		return false
	}
	for i := range s.Sources {
		if src := &s.Sources[i]; src.Last == nil && src.Error == "" && src.Off == "" && src.Name != "peers" { // that tells only of changes
			return false
		}
	}
	return true
}
