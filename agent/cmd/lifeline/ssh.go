package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/fleet"
	"github.com/lifeline-go/lifeline/agent/nodeset"
	"github.com/lifeline-go/lifeline/agent/show"
)

// The exit codes of lifeline ssh beside those of every command: 1 is a command
// that failed, 3 a host that was unreachable.
const exitTimedOut = 4

// sshFlags are the flags of lifeline ssh as typed.
type sshFlags struct {
	way                  wayFlags
	hosts, script        string
	serial               []string
	maxFail              string
	window, retry        int
	timeout, connectTime time.Duration
	gather, diff, pty    bool
}

func newSSH() *cobra.Command {
	var f sshFlags
	cmd := &cobra.Command{
		Use:   "ssh [flags] HOSTS… -- COMMAND…",
		Short: "Runs a command on many hosts; every host gets an answer within a bound",
		Long: "Runs a command on many hosts at a time, and says of every one what became of it, within a bound: ok,\n" +
			"failed, unreachable, timed out or not run. A host that is frozen or gone takes one of the -j places, and\n" +
			"delays no other. HOSTS are names as ssh takes them, in short: web[01-32],db1, node[1-9/2].rack[a,b],\n" +
			"web[1-9]!web3; with --hosts one set a line from a file. ~/.ssh/config and known_hosts are followed, and\n" +
			"nobody is asked for a password: use keys or an agent. All hosts behind a jump host share one connection\n" +
			"to it. The words of COMMAND are joined by spaces for the remote shell, as ssh does. Commands read no\n" +
			"input. With --script each host runs several in their order, over one connection, each in a shell of\n" +
			"its own, until one fails. Output comes line by line with the host before it, or gathered by -b; 16 MiB\n" +
			"of each stream are kept for -b and --json. On a terminal, characters that would act on it are escaped.\n" +
			"Ctrl-C ends the remote commands; a second one ends lifeline at once. Without -t, sshd ends no command\n" +
			"of root when it is given up.",
		Example: "  lifeline ssh web[01-32] -- uptime\n" +
			"  lifeline ssh web[01-32],db1 -b --diff -- cat /etc/resolv.conf         equal output once, and how others differ\n" +
			"  lifeline ssh web[01-32] --serial 1,10% --timeout 2m -- systemctl restart app   stops at the first failure\n" +
			"  lifeline ssh --hosts hosts.txt --json --silence 10s -- 'uname -r; df -h /'\n" +
			"  lifeline ssh web[01-32] --script upgrade.txt                           a command a line, one connection each",
		Args:        cobra.ArbitraryArgs,
		Annotations: map[string]string{exitCodes: "0 all ok, 3 a host was unreachable, else 4 a command timed out, else 1 a command failed; 2 wrong usage, 130 interrupted"},
		RunE:        func(cmd *cobra.Command, args []string) error { return runSSH(cmd, &f, args) },
	}
	flags := cmd.Flags()
	f.way.add(flags)
	flags.StringVar(&f.hosts, "hosts", "", "hosts from this `file`, a set a line, # begins a comment; - is standard input")
	flags.StringVar(&f.script, "script", "", "commands from this `file`, one a line, # begins a comment; - is standard input")
	flags.IntVarP(&f.window, "jobs", "j", 64, "hosts at a time")
	flags.DurationVar(&f.timeout, "timeout", time.Hour, "how long a command may take")
	flags.DurationVar(&f.connectTime, "connect-timeout", 15*time.Second, "how long each attempt to connect and log in may take")
	flags.StringSliceVar(&f.serial, "serial", nil, "begin with so many hosts, and with as many when these are done: `3`, 10%, or 1,10%; --max-fail is 0 then")
	flags.StringVar(&f.maxFail, "max-fail", "", "begin no more hosts when more than so many have failed: `3` or 10%")
	flags.IntVar(&f.retry, "retry", 0, "try a host again so many times, if nothing was sent to it")
	flags.BoolVarP(&f.gather, "gather", "b", false, "print the same output once, with all hosts that have it")
	flags.BoolVar(&f.diff, "diff", false, "print how output differs from that of most hosts")
	flags.BoolVarP(&f.pty, "tty", "t", false, "give commands a terminal: they are hung up when they are given up")
	return cmd
}

func runSSH(cmd *cobra.Command, f *sshFlags, args []string) error {
	defer whenInterrupted(cmd.Context())()
	plan, err := f.plan(cmd, args)
	if err != nil {
		return usageError{err}
	}
	p := newFleetPrinter(cmd)
	way, err := f.way.connector(plan.Connect, p.warn)
	if err != nil {
		return usageError{err}
	}
	defer way.close()
	plan.Dial = way.dial
	json := asJSON(cmd)
	if !json && !f.gather && !f.diff {
		plan.Output = p.write
	}
	plan.Began = p.began
	answers, took := p.run(cmd.Context(), plan)
	switch {
	case json:
		err = show.FleetJSON(cmd.OutOrStdout(), &fact.Machine{Host: hostname(), Time: time.Now()}, answers, took)
	case f.gather || f.diff:
		err = p.gathered(answers, f.diff)
	}
	if err != nil {
		return err
	}
	if !json {
		show.FleetSummary(cmd.ErrOrStderr(), answers, took)
	}
	return verdictOf(answers)
}

// patience is what the report gets when lifeline is interrupted: whoever reads it
// may not read any more.
const patience = 10 * time.Second

// whenInterrupted makes sure that the process ends when its context has, which
// also ends the remote commands: by the next signal at once, as that is nobody's
// any more, and without one soon.
func whenInterrupted(ctx context.Context) (stop func()) {
	over := make(chan struct{})
	stopAfter := context.AfterFunc(ctx, func() {
		signal.Reset(os.Interrupt, syscall.SIGTERM)
		select {
		case <-over:
		case <-time.After(patience):
			os.Exit(exitInterrupted)
		}
	})
	return func() {
		stopAfter()
		close(over)
	}
}

// verdictOf returns the exit code for what hosts answered: what hides most comes
// first.
func verdictOf(answers []fact.HostAnswer) error {
	counts := make(map[fact.Outcome]int)
	for i := range answers {
		counts[answers[i].Outcome]++
	}
	switch {
	case counts[fact.OutcomeUnreachable] > 0:
		return exitCode(exitBlind)
	case counts[fact.OutcomeTimedOut] > 0:
		return exitCode(exitTimedOut)
	case counts[fact.OutcomeOK] < len(answers):
		return exitCode(exitFindings)
	}
	return nil
}

// plan checks the flags; every error says how to say it right.
func (f *sshFlags) plan(cmd *cobra.Command, args []string) (p fleet.Plan, err error) {
	sets, words := args, []string(nil)
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		sets, words = args[:dash], args[dash:]
	}
	switch {
	case len(words) > 0 && f.script != "":
		return p, errors.New("a command and --script are two ways to say what to run: take one")
	case len(words) == 0 && f.script == "":
		return p, errors.New("no command: put it behind --, as in lifeline ssh web[1-3] -- uptime, or in a file for --script")
	case f.hosts == "-" && f.script == "-":
		return p, errors.New("--hosts and --script cannot both be standard input")
	case f.window < 1:
		return p, fmt.Errorf("-j %d is no number of hosts: take one from 1", f.window)
	case f.retry < 0:
		return p, fmt.Errorf("--retry %d is less than none", f.retry)
	case f.timeout <= 0 || f.connectTime <= 0:
		return p, errors.New("--timeout and --connect-timeout must be longer than nothing: take 30s or 5m")
	}
	p = fleet.Plan{Window: f.window, Timeout: f.timeout, Connect: f.connectTime, Retries: f.retry, Pty: f.pty}
	if p.Hosts, err = f.nodes(cmd, sets); err != nil {
		return p, err
	}
	if p.Commands, err = f.commands(cmd, words); err != nil {
		return p, err
	}
	for _, text := range f.serial {
		share, err := fleet.ParseShare(text)
		if err == nil && text == "0" {
			err = errors.New("0 would never come to an end: take 3 or 10%")
		}
		if err != nil {
			return p, fmt.Errorf("--serial %w", err)
		}
		p.Batches = append(p.Batches, share)
	}
	if f.maxFail != "" {
		if p.MaxFail, err = fleet.ParseShare(f.maxFail); err != nil {
			return p, fmt.Errorf("--max-fail %w", err)
		}
	}
	return p, nil
}

// nodes returns the hosts that are meant.
func (f *sshFlags) nodes(cmd *cobra.Command, sets []string) ([]string, error) {
	var s nodeset.Set
	for _, set := range sets {
		if err := s.Add(set); err != nil {
			return nil, err
		}
	}
	if f.hosts != "" {
		text, err := readInput(cmd, f.hosts)
		if err != nil {
			return nil, fmt.Errorf("--hosts: %w", err)
		}
		if err := s.AddLines(text); err != nil {
			return nil, fmt.Errorf("--hosts %s: %w", f.hosts, err)
		}
	}
	names := s.Names()
	if len(names) == 0 {
		return nil, errors.New("no hosts: name them before --, as in lifeline ssh web[1-3] -- uptime, or in a file for --hosts")
	}
	return names, nil
}

// commands returns what is to be run.
func (f *sshFlags) commands(cmd *cobra.Command, words []string) (lines []string, err error) {
	if f.script == "" {
		line := strings.Join(words, " ") // as in main of OpenSSH's ssh.c
		if strings.ContainsRune(line, 0) {
			return nil, errors.New("the command has a character of code 0")
		}
		return []string{line}, nil
	}
	text, err := readInput(cmd, f.script)
	if err != nil {
		return nil, fmt.Errorf("--script: %w", err)
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("--script %s: there is no command in it", f.script)
	}
	return lines, nil
}

// mostInput is how much of a list of hosts or commands is read.
const mostInput = 16 << 20

// readInput reads a file, or standard input, which may take for ever: then it is
// left behind.
func readInput(cmd *cobra.Command, name string) (string, error) {
	type input struct {
		text string
		err  error
	}
	done := make(chan input, 1)
	go func() {
		text, err := readAll(name, cmd.InOrStdin())
		done <- input{text, err}
	}()
	select {
	case i := <-done:
		return i.text, i.err
	case <-cmd.Context().Done():
		return "", context.Cause(cmd.Context())
	}
}

func readAll(name string, stdin io.Reader) (string, error) {
	from := stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer file.Close()
		from = file
	}
	text, err := io.ReadAll(io.LimitReader(from, mostInput+1))
	if err == nil && len(text) > mostInput {
		err = fmt.Errorf("%s has more than %d MiB", name, mostInput>>20)
	}
	return string(text), err
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return fact.Printable(name)
}
