package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	runner "github.com/lifeline-go/lifeline/agent/act/run"
	"github.com/lifeline-go/lifeline/agent/act/run/launch"
	"github.com/lifeline-go/lifeline/agent/act/run/redirect"
	"github.com/lifeline-go/lifeline/agent/cmd/lifeline/early"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/names"
)

// Exit codes of lifeline run for what it could not start, as of env, nohup and
// shells.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// runFlags are the flags of lifeline run as typed.
type runFlags struct {
	via     string
	allDNS  bool
	verbose bool
}

func newRun() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   early.Run + " [flags] -- CMD [ARG…]",
		Short: "Runs an unmodified program so that its names resolve as the operating system resolves them",
		Long: "Static Go programs (kubectl, helm, terraform …) ask the nameservers of resolv.conf by themselves and\n" +
			"fail where only the operating system knows a name: on a VPN, say. This runs one, with all that it\n" +
			"starts, so that its questions are answered by the operating system. Nothing is installed or changed, and\n" +
			"it needs no right: what connects to port 53 of a nameserver is led to a stub on loopback (seccomp user\n" +
			"notification, Linux 5.9). Programs that ask the operating system already are left alone. Exit code,\n" +
			"signals, terminal and job control are the program's own.\n\n" +
			"Where seccomp is not to be had, HTTPS_PROXY leads the program to a proxy that resolves names for it; that\n" +
			"is said. set-user-ID programs run without their right below an ordinary user's lifeline run. It is a\n" +
			"convenience and no security boundary.",
		Example: "  lifeline run -- kubectl get pods            plugins that it starts are helped too\n" +
			"  lifeline run -v -- terraform plan           says at the end what was redirected, and what was not and why\n" +
			"  lifeline run --all-dns -- dig @10.9.9.9 db  also what asks other servers than those of resolv.conf\n" +
			"  lifeline run --via proxy -- kubectl get pods",
		Annotations: map[string]string{exitCodes: "those of CMD; 127 there is no such program, 126 it cannot be run, 2 wrong usage, 3 it cannot be helped"},
		RunE:        func(cmd *cobra.Command, args []string) error { return runRun(cmd, &f, args) },
	}
	cmd.Flags().StringVar(&f.via, "via", "auto", "how to help: seccomp, proxy, or auto: seccomp where it is to be had")
	cmd.Flags().BoolVar(&f.allDNS, "all-dns", false, "redirect whatever goes to port 53, not only to nameservers of resolv.conf")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "say at the end, on standard error, what was redirected, and what was not and why")
	cmd.Flags().SetInterspersed(false) // what comes after CMD is CMD's
	return cmd
}

// keep is what the process does that keeps a program; it returns the exit code.
func keep(kept *launch.Kept) int {
	resolver := new(names.Resolver)
	defer resolver.Close()
	if err := runner.Keep(context.Background(), kept, early.KeeperCommand, resolver); err != nil {
		fmt.Fprintf(os.Stderr, "lifeline %s: %v\n", early.Keeper, err)
		return exitBlind
	}
	return 0
}

func (f *runFlags) way() (runner.Way, error) {
	switch f.via {
	case "auto":
		return runner.Auto, nil
	case "seccomp":
		return runner.Seccomp, nil
	case "proxy":
		return runner.Proxy, nil
	}
	return "", usageError{fmt.Errorf("--via %q is no way: take auto, seccomp or proxy", f.via)}
}

func runRun(cmd *cobra.Command, f *runFlags, args []string) error {
	way, err := f.way()
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return usageError{fmt.Errorf("which program? lifeline run -- kubectl get pods; see %s -h", cmd.CommandPath())}
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return notStarted(cmd, &runner.StartError{Path: args[0], Err: err})
	}
	p := runner.Program{
		Path: path, Args: args, Env: os.Environ(), Keeper: early.Front,
		Via: way, All: f.allDNS, Report: f.verbose || asJSON(cmd),
	}
	status, report, err := runner.Front(cmd.Context(), p, func() runner.Resolver { return new(names.Resolver) }, func(way runner.Way, why string) {
		if way == runner.Proxy {
			fmt.Fprintf(cmd.ErrOrStderr(), "lifeline run: seccomp user notification is not to be had (%s); HTTPS_PROXY leads to a proxy that resolves names: programs that honour it are helped, and no others\n", oneLine(errors.New(why)))
		}
	})
	if err != nil {
		return notStarted(cmd, err)
	}
	if p.Report {
		if err := printRun(cmd, report); err != nil {
			return err
		}
	}
	status.Mirror(os.Exit)
	return nil
}

// notStarted says in one line what is wrong, with the exit code that shells have
// for it.
func notStarted(cmd *cobra.Command, err error) error {
	var program *runner.StartError
	if !errors.As(err, &program) {
		return blindError{err}
	}
	code, why := exitNotExecutable, program.Err
	var looked *exec.Error
	if errors.As(why, &looked) {
		why = looked.Err
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) || errors.Is(err, unix.ENOENT) {
		code, why = exitNotFound, errors.New("no such program")
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: cannot run %s: %s\n", cmd.CommandPath(), program.Path, oneLine(why))
	return exitCode(code)
}

// printRun says what became of the questions, on standard error: standard output
// is the program's.
func printRun(cmd *cobra.Command, r runner.Report) error {
	shown := show.RunReport{Way: string(r.Way), Why: r.Why, Answered: r.Answered, Refused: r.Refused, Lost: r.Lost}
	for _, c := range r.Counts {
		shown.Programs = append(shown.Programs, show.RunCount{
			Program: c.Program, Redirected: c.Reason == redirect.Redirected, Reason: string(c.Reason), Error: c.Error, Times: c.Times,
		})
	}
	w := cmd.ErrOrStderr()
	if !asJSON(cmd) {
		show.RunText(w, shown)
		return nil
	}
	host, _ := os.Hostname() // unknown is empty
	return show.RunJSON(w, &fact.Machine{Host: host, Time: time.Now()}, shown)
}
