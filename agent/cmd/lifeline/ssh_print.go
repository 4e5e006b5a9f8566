package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/fleet"
	"github.com/lifeline-go/lifeline/agent/nodeset"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/bound"
)

const (
	longestLine = 64 << 10 // what a host writes without an end of line is cut here
	lateAfter   = 2 * time.Second
	redrawEvery = 500 * time.Millisecond
)

// fleetPrinter writes what hosts write, and on a terminal who is late.
type fleetPrinter struct {
	stdout, stderr       io.Writer
	outIsTerm, errIsTerm bool
	width                int

	mu      sync.Mutex
	lines   map[lineKey][]byte   // what came since the last end of line
	running map[string]time.Time // since when
	left    int
	all     int
	bad     int
	drawn   bool            // the line of progress is on the terminal
	warned  map[string]bool // said once
}

type lineKey struct {
	host   string
	stderr bool
}

func newFleetPrinter(cmd *cobra.Command) *fleetPrinter {
	p := &fleetPrinter{
		stdout: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr(),
		lines: make(map[lineKey][]byte), running: make(map[string]time.Time), warned: make(map[string]bool),
	}
	_, p.outIsTerm = terminal(p.stdout)
	var style show.Style
	style, p.errIsTerm = terminal(p.stderr)
	p.width = style.Width
	return p
}

// run runs a plan and returns all answers, in the order of the hosts.
func (p *fleetPrinter) run(ctx context.Context, plan fleet.Plan) (answers []fact.HostAnswer, took time.Duration) {
	began := time.Now()
	p.all, p.left = len(plan.Hosts), len(plan.Hosts)
	stop := p.redraw()
	defer stop()
	at := make(map[string]int, len(plan.Hosts))
	for i, host := range plan.Hosts {
		at[host] = i
	}
	answers = make([]fact.HostAnswer, len(plan.Hosts))
	for a := range plan.Run(ctx) {
		answers[at[a.Host]] = a
		p.ended(&a)
	}
	return answers, time.Since(began)
}

// began is told of a host that is asked now.
func (p *fleetPrinter) began(host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running[host] = time.Now()
}

// ended is told of an answer, after which the host writes nothing more.
func (p *fleetPrinter) ended(a *fact.HostAnswer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.running, a.Host)
	p.left--
	if a.Outcome != fact.OutcomeOK {
		p.bad++
	}
	for _, key := range []lineKey{{a.Host, false}, {a.Host, true}} {
		if rest := p.lines[key]; len(rest) > 0 {
			_ = p.emit(key, append(rest, '\n'))
		}
		delete(p.lines, key)
	}
}

// write is fleet.Plan's Output: whole lines are written at once.
func (p *fleetPrinter) write(host string, stderr bool, text []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := lineKey{host, stderr}
	whole := bytes.LastIndexByte(text, '\n') + 1
	ready := append(p.lines[key], text[:whole]...)
	rest := text[whole:]
	if whole == 0 {
		ready, rest = nil, append(p.lines[key], text...)
		if len(rest) > longestLine {
			ready, rest = append(rest, '\n'), nil
		}
	}
	p.lines[key] = append([]byte(nil), rest...)
	if len(ready) == 0 {
		return nil
	}
	return p.emit(key, ready)
}

// emit writes whole lines with the host before each.
func (p *fleetPrinter) emit(key lineKey, lines []byte) error {
	to, isTerm := p.stdout, p.outIsTerm
	if key.stderr {
		to, isTerm = p.stderr, p.errIsTerm
	}
	if isTerm {
		lines = show.Harmless(lines)
	}
	var b bytes.Buffer
	b.Grow(len(lines) + 16*(len(key.host)+2))
	for line := range bytes.Lines(lines) {
		b.WriteString(key.host)
		b.WriteString(": ")
		b.Write(line)
	}
	if isTerm {
		p.clear()
	}
	_, err := to.Write(b.Bytes())
	return err
}

// warn says something once.
func (p *fleetPrinter) warn(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.warned[text] || len(p.warned) >= 20 {
		return
	}
	p.warned[text] = true
	p.clear()
	fmt.Fprintf(p.stderr, "lifeline ssh: %s\n", fact.Printable(text))
}

// gathered writes output that is the same once.
func (p *fleetPrinter) gathered(answers []fact.HostAnswer, diff bool) error {
	write := show.Outputs
	if diff {
		write = show.Differences
	}
	err := write(p.stdout, show.Gather(answers, func(a *fact.HostAnswer) []byte { return a.Stdout }), p.outIsTerm)
	if err != nil {
		return err
	}
	return write(p.stderr, show.Gather(answers, func(a *fact.HostAnswer) []byte { return a.Stderr }), p.errIsTerm)
}

// redraw draws the progress now and then, where a person reads it, until stop is
// called.
func (p *fleetPrinter) redraw() (stop func()) {
	if !p.errIsTerm {
		return func() {}
	}
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(redrawEvery)
		defer ticker.Stop()
		for {
			select {
			case <-over:
				return
			case now := <-ticker.C:
				p.mu.Lock()
				p.draw(now)
				p.mu.Unlock()
			}
		}
	}()
	return func() {
		close(over)
		<-ended
		p.mu.Lock()
		defer p.mu.Unlock()
		p.clear()
	}
}

// clear takes the progress away.
func (p *fleetPrinter) clear() {
	if p.drawn {
		_, _ = io.WriteString(p.stderr, "\r\x1b[K")
		p.drawn = false
	}
}

// draw writes the progress over what was there.
func (p *fleetPrinter) draw(now time.Time) {
	p.clear()
	_, _ = io.WriteString(p.stderr, "\r"+p.progress(now))
	p.drawn = true
}

// progress names who is late: who has been asked for a while.
func (p *fleetPrinter) progress(now time.Time) string {
	text := fmt.Sprintf("%d of %d done", p.all-p.left, p.all)
	if p.bad > 0 {
		text += fmt.Sprintf(", %d not ok", p.bad)
	}
	var late []string
	var longest time.Duration
	for _, host := range slices.Sorted(maps.Keys(p.running)) {
		if waited := now.Sub(p.running[host]); waited >= lateAfter {
			late, longest = append(late, host), max(longest, waited)
		}
	}
	if len(late) == 0 {
		return text
	}
	text += fmt.Sprintf("; waiting for %d, up to %s: %s", len(late), bound.Format(longest.Round(time.Second)), nodeset.Fold(late))
	if most := max(p.width, 40) - 1; len(text) > most {
		text = strings.TrimRight(text[:most-1], ",[-") + "…" // names are ASCII
	}
	return text
}
