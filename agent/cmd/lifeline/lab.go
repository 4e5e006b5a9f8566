package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/lab/replay"
	"github.com/lifeline-go/lifeline/agent/lab/websocket"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// Who sends nothing learns within minutes; for who sends, Go alone takes a
// quarter of an hour, which the lab shortens.
const (
	shortRetries2 = 6
	labPatience   = 20 * time.Second // for reads to return beyond what was promised
)

// mostConnections is what one process may hold, and one address connect to,
// without settings of the machine being changed.
const mostConnections = 15_000

// labFlags are the flags of lifeline lab silence as typed.
type labFlags struct {
	connections, processes, alone int
	nat, only                     string
	heartbeat, spread             time.Duration
	quick                         bool
}

func newLab() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Replays a story with real parts, with and without Lifeline, and prints both times",
		Example: "  lifeline lab silence           a node dies that forwarded 4,224 WebSockets: who learns when\n" +
			"  lifeline lab silence --quick   without waiting for what has nothing but Go\n" +
			"  lifeline lab calls             hosts reboot, freeze and refuse under SSH calls: who blocks for how long\n" +
			"  lifeline lab names             a VPN swallows port 53: kubectl fails, while the system knows the names\n" +
			"  lifeline lab leaks             a CI agent never closes its Docker clients: which line is it",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newLabSilence(), newLabCalls(), newLabNames(), newLabLeaks(), newLabManager(), newLabNamesClient(), newLabNamesPlugin(), newLabServer(), newLabClients(), newLabLeashed())
	return cmd
}

func newLabSilence() *cobra.Command {
	var f labFlags
	cmd := &cobra.Command{
		Use:   "silence",
		Short: "A node dies that only forwarded WebSockets",
		Long: "Builds a load balancer, a node and a pod of network namespaces, opens WebSockets from several client\n" +
			"processes through the node to a server on the pod, takes the node's links down without a word, and\n" +
			"prints when the programs at both ends learn of it: with nothing but Go, with lifeline cut --silent\n" +
			"--watch at both ends, and with lifeline evac on the node before it dies. Once while nothing is sent, and\n" +
			"once while the server writes a heartbeat to each client. What happens is told on standard error.\n\n" +
			"The machine's own network is not touched, and all is taken down in the end; what a killed run leaves\n" +
			"behind, the next one removes. It needs root and the programs ip, nsenter, and nft or iptables. The exit\n" +
			"code is 1 when a program did not learn in time.",
		Example: "  lifeline lab silence                      about 3 minutes, most of it the wait for Go alone\n" +
			"  lifeline lab silence --quick              about 1 minute: for Go alone the bound is computed\n" +
			"  lifeline lab silence --nat iptables --connections 1000 --json",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runLabSilence(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.IntVar(&f.connections, "connections", 4224, "connections that Lifeline guards")
	flags.IntVar(&f.alone, "go-alone", 20, "connections that have nothing but Go")
	flags.IntVar(&f.processes, "processes", 8, "client processes")
	flags.StringVar(&f.nat, "nat", string(lab.NFTables), "what translates addresses on the node: nft or iptables")
	flags.StringVar(&f.only, "only", "", "only these `runs`: one or several of idle, sending, evac")
	flags.DurationVar(&f.heartbeat, "heartbeat", 30*time.Second, "how often the server writes to each client")
	flags.DurationVar(&f.spread, "spread", 15*time.Second, "open the connections over this time, so that their keepalive probes are spread")
	flags.BoolVar(&f.quick, "quick", false, "do not wait for Go alone: print the computed bound")
	return cmd
}

// check says of a flag that is wrong how to say it right.
func (f *labFlags) check() error {
	switch {
	case f.connections < 1 || f.connections > mostConnections:
		return fmt.Errorf("--connections %d is out of range: take a number from 1 to %d", f.connections, mostConnections)
	case f.alone < 1 || f.alone > mostConnections:
		return fmt.Errorf("--go-alone %d is out of range: take a number from 1 to %d", f.alone, mostConnections)
	case f.processes < 1 || f.processes > min(f.connections, 100):
		return fmt.Errorf("--processes %d is out of range: take a number from 1 to %d", f.processes, min(f.connections, 100))
	case f.nat != string(lab.NFTables) && f.nat != string(lab.IPTables):
		return fmt.Errorf("--nat %q is none that a node is made with: take nft or iptables", f.nat)
	case f.heartbeat < 100*time.Millisecond || f.heartbeat > 10*time.Minute:
		return fmt.Errorf("--heartbeat %v is out of range: take a time from 100ms to 10m", f.heartbeat)
	case f.spread < 0 || f.spread > 10*time.Minute:
		return fmt.Errorf("--spread %v is out of range: take a time from 0s to 10m", f.spread)
	}
	for _, name := range f.runs() {
		if name != idle && name != sending && name != evacuated {
			return fmt.Errorf("--only %q is no run: take one or several of %s,%s,%s", name, idle, sending, evacuated)
		}
	}
	return nil
}

// The names of --only.
const (
	idle      = "idle"
	sending   = "sending"
	evacuated = "evac"
)

func (f *labFlags) runs() []string {
	if f.only == "" {
		return []string{idle, sending, evacuated}
	}
	return strings.Split(f.only, ",")
}

// labRun is one replay, and what came of it.
type labRun struct {
	replay.Silence
	traffic string
	outcome replay.Outcome
	ran     bool
}

// plan returns the replays that were asked for. Those with Go alone come first
// among their like and are run beside all others, as they only wait.
func (f *labFlags) plan() (runs []*labRun) {
	for _, name := range f.runs() {
		r := replay.Silence{Guard: replay.Cut, NAT: lab.NAT(f.nat), Connections: f.connections, Processes: f.processes,
			Spread: f.spread, Patience: labPatience, Lifeline: leashed}
		traffic := idle
		switch name {
		case sending:
			r.Heartbeat, traffic = f.heartbeat, sending
		case evacuated:
			r.Guard = replay.Evac
		}
		if r.Guard == replay.Cut {
			alone := r
			alone.Guard, alone.Connections, alone.Processes = replay.Nothing, f.alone, 1
			if name == sending {
				alone.Retries2 = shortRetries2
			}
			runs = append(runs, &labRun{Silence: alone, traffic: traffic})
		}
		runs = append(runs, &labRun{Silence: r, traffic: traffic})
	}
	return runs
}

func runLabSilence(cmd *cobra.Command, f *labFlags) error {
	if err := f.check(); err != nil {
		return usageError{err}
	}
	if err := lab.Missing(lab.NAT(f.nat).Programs()...); err != nil {
		return blindError{err}
	}
	host, err := os.Hostname()
	if err != nil {
		return blindError{err}
	}
	m := &fact.Machine{Host: host, Time: time.Now()}
	runs := f.plan()
	f.announce(cmd.ErrOrStderr())
	if err := play(cmd.Context(), runs, f.quick, cmd.ErrOrStderr()); err != nil {
		return blindError{err}
	}
	rows := labRows(runs)
	if asJSON(cmd) {
		err = show.LabJSON(cmd.OutOrStdout(), m, rows)
	} else {
		show.Lab(cmd.OutOrStdout(), rows)
	}
	if err == nil && slices.ContainsFunc(rows, func(r show.LabRun) bool { return !r.Computed && r.Learned < r.Count }) {
		err = errFindings
	}
	return err
}

// announce says what will happen and how long it takes.
func (f *labFlags) announce(w io.Writer) {
	fmt.Fprintf(w, "%s WebSockets from %d processes on host lb, through host node (%s: DNAT, masquerade, conntrack), to a server on host pod.\n",
		verdict.Number(f.connections), f.processes, f.nat)
	runs := f.runs()
	if slices.Contains(runs, idle) || slices.Contains(runs, sending) {
		fmt.Fprintf(w, "At lb and pod: lifeline %s\n", strings.Join(replay.CutCommand, " "))
	}
	if slices.Contains(runs, evacuated) {
		fmt.Fprintf(w, "At node, before it dies: lifeline %s\n", strings.Join(replay.EvacCommand, " "))
	}
	takes := time.Duration(len(runs)) * (f.spread + 10*time.Second)
	if !f.quick && slices.ContainsFunc(runs, func(name string) bool { return name != evacuated }) {
		takes = max(takes, f.spread+150*time.Second)
		fmt.Fprintf(w, "Beside them, %d that have nothing but Go; --quick does without.\n", f.alone)
		if slices.Contains(runs, sending) {
			fmt.Fprintf(w, "Of these, a server that sends would wait for more than %s (computed): tcp_retries2 of its host is %d instead of 15, which makes it %v.\n"+
				"Its clients only receive: they wait for their keepalive, as who is idle does.\n",
				bound.Format(bound.Conn{}.Sending().After.Truncate(time.Minute)), shortRetries2, bound.Conn{Sysctl: bound.Sysctl{Retries2: shortRetries2}}.Sending())
		}
	}
	fmt.Fprintf(w, "This takes about %s; Ctrl-C takes everything down.\n\n", bound.Format(takes.Round(10*time.Second)))
}

// play runs the replays: those with Go alone at the same time as the others,
// which come one after the other.
func play(ctx context.Context, runs []*labRun, quick bool, w io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg, logging sync.WaitGroup
	log, done := &labLog{w: w}, make(chan struct{})
	logging.Go(func() { log.run(done) })
	one := func(r *labRun) {
		if ctx.Err() != nil {
			return
		}
		r.Event = func(e replay.Event) { log.add(r, e) }
		outcome, err := r.Run(ctx)
		if err != nil {
			cancel(fmt.Errorf("%s, %s: %w", r.traffic, r.Guard, err))
			return
		}
		r.outcome, r.ran = outcome, true
	}
	for _, r := range runs {
		if r.Guard == replay.Nothing && !quick {
			wg.Go(func() { one(r) })
		}
	}
	for _, r := range runs {
		if r.Guard != replay.Nothing {
			one(r)
		}
	}
	wg.Wait()
	close(done)
	logging.Wait()
	return context.Cause(ctx)
}

// labLog writes events of several replays, a line each, in the order in which
// they happened: so it holds each back for as long as one that happened before
// it may yet be told.
type labLog struct {
	w       io.Writer
	mu      sync.Mutex
	pending []labLine
}

type labLine struct {
	at   time.Duration
	text string
}

const labHeld = websocket.TellAfter + 100*time.Millisecond

func (l *labLog) add(r *labRun, e replay.Event) {
	since := ""
	if e.Dead {
		since = fmt.Sprintf("%.3f s", e.Since.Seconds())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = append(l.pending, labLine{e.At, fmt.Sprintf("%-7s  %-13s  %9s  %s\n", r.traffic, r.Guard, since, e.Text)})
}

// write writes what happened until then.
func (l *labLog) write(until time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.SortStableFunc(l.pending, func(a, b labLine) int { return cmp.Compare(a.at, b.at) })
	for len(l.pending) > 0 && l.pending[0].at <= until {
		_, _ = io.WriteString(l.w, l.pending[0].text) // who does not read it wants the table
		l.pending = l.pending[1:]
	}
}

// run writes until the replays are done.
func (l *labLog) run(done <-chan struct{}) {
	ticker := time.NewTicker(labHeld / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			l.write(websocket.Now() - labHeld)
		case <-done:
			l.write(websocket.Now())
			return
		}
	}
}

// labRows returns both ends of each replay. One that was not run has the bounds
// that the same sockets had under Lifeline.
func labRows(runs []*labRun) (rows []show.LabRun) {
	for i, r := range runs {
		outcome, retries2 := r.outcome, r.Retries2
		if !r.ran {
			outcome, retries2 = runs[i+1].outcome, 0 // the same with Lifeline
		}
		for _, end := range []struct {
			at string
			replay.End
		}{{"server", outcome.Server}, {"clients", outcome.Clients}} {
			row := show.LabRun{Story: "silence", Traffic: r.traffic, With: string(r.Guard), At: end.at, Count: end.Count,
				Computed: !r.ran, Bound: end.Idle}
			if r.Heartbeat > 0 && end.at == "server" {
				row.Bound, row.Retries2 = end.Sending, retries2
			}
			if r.ran {
				row.Learned, row.Verdict = end.Learned, end.Verdict
				row.By = slices.Sorted(maps.Keys(end.Errors))
			}
			if row.Learned > 0 {
				row.First = fact.Seen(end.First)
			}
			if row.Learned > 0 && row.Learned == row.Count {
				row.Last = fact.Seen(end.Last)
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// leashed returns a command that is this program with these arguments, and that
// ends when its standard input does.
func leashed(args ...string) *exec.Cmd {
	return self(append([]string{"lab", "leashed", "--"}, args...)...)
}

// self returns a command that is this program with these arguments.
func self(args ...string) *exec.Cmd {
	path, err := os.Executable()
	if err != nil {
		path = "/proc/self/exe"
	}
	cmd := exec.Command(path, args...)
	cmd.Args[0] = "lifeline"
	return cmd
}
