package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/fleet"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/ssh/sftp"
)

// The exit codes of lifeline ssh beside those of every command: 1 is a command
// that failed, 3 a host that was unreachable.
const exitTimedOut = 4

// sshFlags are the flags of lifeline ssh as typed.
type sshFlags struct {
	way                  wayFlags
	hosts, script        string
	put, get             []string
	how                  sftp.Copy
	after                []fleet.Step // what --get says
	serial               []string
	maxFail              string
	window, retry        int
	timeout, connectTime time.Duration
	gather, diff, pty    bool
}

func newSSH() *cobra.Command {
	var f sshFlags
	cmd := &cobra.Command{
		Use:   "ssh [flags] HOSTS… [-- COMMAND…]",
		Short: "Runs a command on many hosts, copies files to and from them; every host gets an answer within a bound",
		Long:  sshLong,
		Example: "  lifeline ssh web[01-32] -- uptime\n" +
			"  lifeline ssh web[01-32],db1 -b --diff -- cat /etc/resolv.conf         equal output once, and how others differ\n" +
			"  lifeline ssh web[01-32] --serial 1,10% --timeout 2m -- systemctl restart app   stops at the first failure\n" +
			"  lifeline ssh --hosts hosts.txt --json --silence 10s -- 'uname -r; df -h /'\n" +
			"  lifeline ssh web[01-32] --script upgrade.txt                           a command a line, one connection each\n" +
			"  lifeline ssh web[01-32] --put app.tar:/tmp/ -- tar xf /tmp/app.tar     copies first, then runs\n" +
			"  lifeline ssh web[01-32] --get /var/log/app.log                         to web01/app.log, web02/app.log, …\n" +
			"  lifeline ssh web[01-32]                                                asks for commands; or reads them: … | lifeline ssh web1",
		Args:        cobra.ArbitraryArgs,
		Annotations: map[string]string{exitCodes: "0 all ok, 3 a host was unreachable, else 4 a command timed out, else 1 a command failed; 2 wrong usage, 130 interrupted"},
		RunE:        func(cmd *cobra.Command, args []string) error { return runSSH(cmd, &f, args) },
	}
	flags := cmd.Flags()
	f.way.add(flags)
	flags.StringVar(&f.hosts, "hosts", "", "hosts from this `file`, a set a line, # begins a comment; - is standard input")
	flags.StringVar(&f.script, "script", "", "commands from this `file`, one a line, # begins a comment; - is standard input, where each is run when it is read")
	flags.StringArrayVar(&f.put, "put", nil, "copy `LOCAL[:REMOTE]`, a file or tree, to the hosts before commands; into REMOTE/ with a slash, into the home directory without REMOTE")
	flags.StringArrayVar(&f.get, "get", nil, "copy `REMOTE[:LOCAL]`, a file or tree, from the hosts after commands: into LOCAL/HOST/, or to LOCAL where {host} in it is replaced")
	flags.BoolVar(&f.how.Resume, "resume", false, "copies go on where they were interrupted, and keep what there is when they are interrupted again")
	flags.BoolVar(&f.how.Preserve, "preserve", false, "copies keep permissions and times")
	flags.IntVarP(&f.window, "jobs", "j", 64, "hosts at a time")
	flags.DurationVar(&f.timeout, "timeout", time.Hour, "how long a command, or a copy, may take")
	flags.DurationVar(&f.connectTime, "connect-timeout", 15*time.Second, "how long each attempt to connect and log in may take")
	flags.StringSliceVar(&f.serial, "serial", nil, "begin with so many hosts, and with as many when these are done: `3`, 10%, or 1,10%; --max-fail is 0 then")
	flags.StringVar(&f.maxFail, "max-fail", "", "begin no more hosts when more than so many have failed: `3` or 10%")
	flags.IntVar(&f.retry, "retry", 0, "try a host again so many times, if no command was sent to it")
	flags.BoolVarP(&f.gather, "gather", "b", false, "print the same output once, with all hosts that have it")
	flags.BoolVar(&f.diff, "diff", false, "print how output differs from that of most hosts")
	flags.BoolVarP(&f.pty, "tty", "t", false, "give commands a terminal: they are hung up when they are given up")
	return cmd
}

// sshLong is the help of lifeline ssh.
const sshLong = "Runs a command on many hosts at a time, and says of every one what became of it, within a bound: ok,\n" +
	"failed, unreachable, timed out or not run. A host that is frozen or gone takes one of the -j places, and\n" +
	"delays no other. HOSTS are names as ssh takes them, in short: web[01-32],db1, node[1-9/2].rack[a,b],\n" +
	"web[1-9]!web3; with --hosts one set a line from a file. ~/.ssh/config and known_hosts are followed, and\n" +
	"nobody is asked for a password: use keys or an agent. All hosts behind a jump host share one connection\n" +
	"to it. The words of COMMAND are joined by spaces for the remote shell, as ssh does. Commands read no\n" +
	"input. With --script each host runs several in their order, over one connection, each in a shell of\n" +
	"its own, until one fails. Without COMMAND they are read from standard input and run as they come: then\n" +
	"each host has its own pace, and --json is a line for each command. At a terminal the next is asked for\n" +
	"when all hosts have answered, a host on which one failed stays, Ctrl-C ends the command, Ctrl-D the\n" +
	"session. Output comes line by line with the host before it, or gathered by -b; 16 MiB of each stream are\n" +
	"kept for -b and --json. On a terminal, characters that would act on it are escaped. Ctrl-C ends the\n" +
	"remote commands; a second one ends lifeline at once. Without -t, sshd ends no command of root when it is\n" +
	"given up.\n\n" +
	"Copies go over the same connection, by sftp; --put and --get may be given many times. A file takes its\n" +
	"name when it is complete. A tree is put beside what there is in its target, and links stay links.\n" +
	"A colon in a name is written \\:."

func runSSH(cmd *cobra.Command, f *sshFlags, args []string) error {
	defer whenInterrupted(cmd.Context())()
	plan, err := f.plan(cmd, args)
	if err != nil {
		return usageError{err}
	}
	p := newFleetPrinter(cmd)
	way, err := f.way.connector(plan.Connect, cmd.Flags().Changed("connect-timeout"), p.warn)
	if err != nil {
		return usageError{err}
	}
	defer way.close()
	plan.Dial = way.dial
	json := asJSON(cmd)
	if !json && !f.gather && !f.diff {
		plan.Output = p.write
	}
	plan.Began, plan.Copying = p.began, p.copying
	if plan.Script != nil {
		return newSession(cmd, f, p, plan).run(cmd.Context())
	}
	answers, took := p.run(cmd.Context(), plan, nil)
	if err := p.report(cmd, f, answers, took, false); err != nil {
		return err
	}
	if !json {
		show.FleetSummary(cmd.ErrOrStderr(), answers, took)
	}
	return verdictOf(answers)
}

// report writes what was kept for the end.
func (p *fleetPrinter) report(cmd *cobra.Command, f *sshFlags, answers []fact.HostAnswer, took time.Duration, line bool) error {
	switch {
	case asJSON(cmd):
		return show.FleetJSON(p.stdout, &fact.Machine{Host: hostname(), Time: time.Now()}, answers, took, line)
	case f.gather || f.diff:
		return p.gathered(answers, f.diff)
	}
	return nil
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

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return fact.Printable(name)
}
