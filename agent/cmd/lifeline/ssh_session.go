package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/fleet"
	"github.com/lifeline-go/lifeline/agent/nodeset"
	"github.com/lifeline-go/lifeline/agent/show"
)

const (
	longestCommand = 1 << 20
	// mostAhead is for how many answers, of all hosts together, commands are read
	// while the slowest host has not given them. What is kept of output counts
	// too.
	mostAhead      = 200_000
	mostKeptAhead  = 256 << 20
	leastAhead     = 4 // commands
	longestPrompt  = 40
	sessionGreeted = "%s: commands go to all of them, each in a shell of its own. Ctrl-C ends a command, Ctrl-D the session.\n"
)

// session runs commands as they come from standard input.
type session struct {
	cmd     *cobra.Command
	flags   *sshFlags
	printer *fleetPrinter
	plan    fleet.Plan
	person  bool // who types, and waits for the answers
	lines   chan inputLine

	mu      sync.Mutex
	at      map[string]int // of a host
	pending []*pending     // what not all hosts have answered, the oldest first
	emitted int            // so many were answered by all
	done    []int          // so many each host has answered
	gone    []bool         // hosts that answer no more
	left    int            // hosts that do
	kept    int            // bytes of output in pending
	fault   error          // of standard output
	moved   chan struct{}  // has room for one: something was answered by all
	stop    context.CancelFunc
	again   bool // Ctrl-C was pressed since all had answered
	ended   bool // and once more
}

// pending is one step, and the answers that there are.
type pending struct {
	began   time.Time
	answers []fact.HostAnswer
	asked   []bool // not those that were gone before
	left    int
}

type inputLine struct {
	text string
	err  error
}

// typed says whether a person types the commands.
func typed(cmd *cobra.Command) bool {
	file, ok := cmd.InOrStdin().(*os.File)
	if !ok {
		return false
	}
	_, isTerm := terminal(file)
	return isTerm
}

func newSession(cmd *cobra.Command, f *sshFlags, p *fleetPrinter, plan fleet.Plan) *session {
	s := &session{
		cmd: cmd, flags: f, printer: p, plan: plan, person: typed(cmd), lines: make(chan inputLine),
		at: make(map[string]int), done: make([]int, len(plan.Hosts)),
		gone: make([]bool, len(plan.Hosts)), left: len(plan.Hosts), moved: make(chan struct{}, 1),
	}
	for i, host := range plan.Hosts {
		s.at[host] = i
	}
	s.plan.KeepGoing, s.plan.Did = s.person, s.did
	return s
}

// run runs commands until there are no more, or no host is left.
func (s *session) run(ctx context.Context) error {
	ctx, s.stop = context.WithCancel(ctx)
	defer s.stop()
	if s.person {
		defer s.interruptible()()
		fmt.Fprintf(s.cmd.ErrOrStderr(), sessionGreeted, hostsInShort(s.plan.Hosts))
	}
	go s.readLines(ctx, s.cmd.InOrStdin()) // which may wait for ever
	first, err := s.next(ctx)
	switch {
	case ctx.Err() != nil:
		return exitCode(exitInterrupted)
	case errors.Is(err, io.EOF) && s.person:
		return nil
	case errors.Is(err, io.EOF):
		return usageError{errors.New("no command: put it behind --, as in lifeline ssh web[1-3] -- uptime, in a file for --script, or write it to standard input")}
	case err != nil:
		return usageError{err}
	}
	for _, step := range s.plan.Steps {
		s.add(step)
	}
	s.add(fleet.Step{Command: first})
	fed := make(chan error, 1)
	go func() { fed <- s.feed(ctx) }()
	answers, took := s.printer.run(ctx, s.plan, s.over)
	s.stop()
	wrong := <-fed
	return s.conclude(answers, took, wrong)
}

// conclude says how it went.
func (s *session) conclude(answers []fact.HostAnswer, took time.Duration, wrong error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		return s.fault
	}
	if !asJSON(s.cmd) {
		show.FleetCounts(s.cmd.ErrOrStderr(), answers, took)
	}
	switch {
	case wrong != nil:
		return usageError{fmt.Errorf("standard input: %w", wrong)}
	case s.ended:
		return exitCode(exitInterrupted)
	}
	return verdictOf(answers)
}

// feed adds one command after the other.
func (s *session) feed(ctx context.Context) error {
	defer s.plan.Script.End()
	for s.room(ctx) {
		line, err := s.next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, io.EOF):
			for _, step := range s.flags.after {
				s.add(step)
			}
			return nil
		case err != nil:
			return err
		}
		s.add(fleet.Step{Command: line})
	}
	return nil
}

// next returns the next command, and io.EOF when there is none.
func (s *session) next(ctx context.Context) (string, error) {
	for {
		s.prompt()
		var line inputLine
		select {
		case line = <-s.lines:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
		if line.err != nil {
			if s.person {
				fmt.Fprintln(s.cmd.ErrOrStderr())
			}
			return "", line.err
		}
		text, err := command(line.text)
		switch {
		case s.person && text == "exit":
			return "", io.EOF
		case s.person && err != nil:
			s.printer.warn(err.Error())
		case text != "" || err != nil:
			return text, err
		}
	}
}

// prompt says to whom commands go.
func (s *session) prompt() {
	if !s.person {
		return
	}
	s.mu.Lock()
	var hosts []string
	for i, host := range s.plan.Hosts {
		if !s.gone[i] {
			hosts = append(hosts, host)
		}
	}
	s.mu.Unlock()
	fmt.Fprintf(s.cmd.ErrOrStderr(), "%s> ", hostsInShort(hosts))
}

func hostsInShort(hosts []string) string {
	if text := nodeset.Fold(hosts); len(text) <= longestPrompt {
		return text
	}
	return fmt.Sprintf("%d hosts", len(hosts))
}

// readLines reads standard input.
func (s *session) readLines(ctx context.Context, from io.Reader) {
	give := func(line inputLine) bool {
		select {
		case s.lines <- line:
			return true
		case <-ctx.Done():
			return false
		}
	}
	in := bufio.NewScanner(from)
	in.Buffer(nil, longestCommand)
	for total := 0; in.Scan(); {
		if total += len(in.Bytes()); total > mostInput {
			give(inputLine{err: fmt.Errorf("there are more than %d MiB of commands", mostInput>>20)})
			return
		}
		if !give(inputLine{text: in.Text()}) {
			return
		}
	}
	err := in.Err()
	switch {
	case errors.Is(err, bufio.ErrTooLong):
		err = fmt.Errorf("a command is longer than %d MiB", longestCommand>>20)
	case err == nil:
		err = io.EOF
	}
	give(inputLine{err: err})
}

// room waits until one more command may be read; false is that nobody would run
// it.
func (s *session) room(ctx context.Context) bool {
	for {
		s.mu.Lock()
		left, waiting, kept := s.left, len(s.pending), s.kept
		s.mu.Unlock()
		most := max(leastAhead, mostAhead/len(s.plan.Hosts))
		switch {
		case left == 0 || ctx.Err() != nil:
			return false
		case waiting == 0, !s.person && waiting < most && kept < mostKeptAhead:
			return true
		}
		select {
		case <-s.moved:
		case <-ctx.Done():
		}
	}
}

// interruptible has Ctrl-C end what runs, and not the session, unless it is
// pressed again before all hosts have answered.
func (s *session) interruptible() (stop func()) {
	signal.Reset(os.Interrupt)
	pressed, over := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(pressed, os.Interrupt)
	go func() {
		for {
			select {
			case <-pressed:
				s.pressed()
			case <-over:
				return
			}
		}
	}()
	return func() {
		signal.Stop(pressed)
		close(over)
	}
}

func (s *session) pressed() {
	s.mu.Lock()
	busy, again := len(s.pending) > 0, s.again
	s.again, s.ended = busy, busy && again
	s.mu.Unlock()
	switch {
	case busy && again:
		s.stop()
	case busy:
		s.plan.Script.Interrupt()
	default:
		fmt.Fprintln(s.cmd.ErrOrStderr())
		s.prompt()
	}
}
