package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/cmd/lifeline/early"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/show"
)

// The exit codes of every command.
const (
	exitWell     = 0 // nothing is wrong
	exitFindings = 1 // findings of the severity that --fail-on names
	exitUsage    = 2 // the command line is wrong
	exitBlind    = 3 // could not look

	exitInterrupted = 128 + int(unix.SIGINT) // as shells have it
)

// usageError is something wrong with the command line.
type usageError struct{ error }

// blindError is a look that could not be taken at all.
type blindError struct{ error }

// errFindings asks for exit code 1; what there is to say has been said.
var errFindings = errors.New("findings")

// exitCode asks for an exit code of its own; what there is to say has been said.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// run is the whole command: main without the process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(commandsFor(args)...)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var blind blindError
	var code exitCode
	switch {
	case errors.Is(err, errEnded):
		return exitWell
	case ctx.Err() != nil:
		return exitInterrupted
	case err == nil:
		return exitWell
	case errors.Is(err, errFindings):
		return exitFindings
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, unix.EPIPE): // whoever reads has seen enough
		return exitWell
	}
	fmt.Fprintf(stderr, "%s: %s\n", cmd.CommandPath(), oneLine(err))
	if errors.As(err, &blind) {
		return exitBlind
	}
	return exitUsage
}

// oneLine is an error that a terminal shows: others may have chosen its words.
func oneLine(err error) string {
	return fact.Printable(strings.Join(strings.Fields(err.Error()), " "))
}

// commandsFor makes the commands that arguments may mean: all, which takes a
// millisecond, or the one that a program waits for.
func commandsFor(args []string) []*cobra.Command {
	if early.Runs(args) {
		return []*cobra.Command{newRun()}
	}
	return []*cobra.Command{newAgent(), newTop(), newCheck(), newCalls(), newLeaks(), newCensus(), newHistory(), newDiff(), newSilence(), newPoke(), newCut(), newTune(), newEvac(), newNames(), newSSH(), newLab(), newRun(), newVersion(), newMan()}
}

// newRoot makes the command with what it can do.
func newRoot(commands ...*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use:   "lifeline",
		Short: "Keeps four promises about every network connection",
		Long: "Four promises about every network connection: its name resolves, its calls return, " +
			"its silence is noticed, its socket is closed.",
		Example: "  lifeline check                    what is wrong on this machine, why, and what to do\n" +
			"  lifeline census --by peer,state   every socket with its owner, counted",
		Version:           versionText(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Args:              noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.PersistentFlags().Bool("json", false, "print one JSON document, schema "+show.Schema)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %s -h", err, cmd.CommandPath())}
	})
	root.SetHelpFunc(help)
	root.SetUsageFunc(func(cmd *cobra.Command) error { help(cmd, nil); return nil })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(commands...)
	complete(root)
	return root
}

// noArguments says what to type instead of a word that no command is.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "it takes no arguments"
	if cmd.HasSubCommands() {
		hint = "the commands are"
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() && c.Name() != "help" {
				hint += " " + c.Name()
			}
		}
	}
	return usageError{fmt.Errorf("unknown argument %q: %s; see %s -h", args[0], hint, cmd.CommandPath())}
}

// help begins with an example.
func help(cmd *cobra.Command, _ []string) {
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "%s\n\n%s\n\nUsage:\n  %s\n", strings.TrimRight(cmd.Example, "\n"), cmp.Or(cmd.Long, cmd.Short), cmd.UseLine())
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\nCommands:\n")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(w, "  %-*s %s\n", c.NamePadding(), c.Name(), c.Short)
			}
		}
	}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.AddFlagSet(cmd.LocalFlags())
	flags.AddFlagSet(cmd.InheritedFlags())
	fmt.Fprintf(w, "\nFlags:\n%s", flags.FlagUsages())
	fmt.Fprintf(w, "\nExit codes: %s.\n", exitText(cmd))
}

// exitText says what the exit codes of a command mean.
func exitText(cmd *cobra.Command) string {
	return cmp.Or(cmd.Annotations[exitCodes], "0 nothing wrong, 1 findings, 2 wrong usage, 3 could not look")
}

// exitCodes is the annotation of a command that has codes of its own.
const exitCodes = "exit codes"

// version is set by the build, make build; a build by go install has that of the
// module.
var version string

func versionText() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return cmp.Or(version, info.Main.Version, "(devel)")
	}
	return cmp.Or(version, "(devel)")
}

// terminal returns the style for w: colours and width only where a person
// reads, no colours where NO_COLOR is set (no-color.org).
func terminal(w io.Writer) (style show.Style, isTerminal bool) {
	f, ok := w.(*os.File)
	if !ok {
		return show.Style{}, false
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return show.Style{}, false
	}
	style.Color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	style.Width = max(60, min(int(size.Col), 120))
	return style, true
}
