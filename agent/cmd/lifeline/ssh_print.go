package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/fleet"
	"github.com/lifeline-go/lifeline/agent/nodeset"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/bound"
	"github.com/lifeline-go/lifeline/ssh/sftp"
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
	copies  copyProgress

	asItComes bool // hosts do a script
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

// run runs a plan and returns all answers, in the order of the hosts; over is
// told of each when it comes.
func (p *fleetPrinter) run(ctx context.Context, plan fleet.Plan, over func(*fact.HostAnswer)) (answers []fact.HostAnswer, took time.Duration) {
	began := time.Now()
	p.all, p.left, p.asItComes = len(plan.Hosts), len(plan.Hosts), plan.Script != nil
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
		if over != nil {
			over(&a)
		}
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
	p.paused(a.Host)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left--
	if a.Outcome != fact.OutcomeOK {
		p.bad++
	}
}

// paused is told of a host that has answered, and what it wrote is complete.
func (p *fleetPrinter) paused(host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.running, host)
	for _, key := range []lineKey{{host, false}, {host, true}} {
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
	if p.asItComes && len(p.running) == 0 {
		return // somebody types
	}
	_, _ = io.WriteString(p.stderr, "\r"+p.progress(now))
	p.drawn = true
}

// progress names who is late: who has been asked for a while.
func (p *fleetPrinter) progress(now time.Time) string {
	text := fmt.Sprintf("%d of %d done", p.all-p.left, p.all)
	if p.asItComes {
		text = fmt.Sprintf("%d of %d at work", len(p.running), p.left)
	}
	if p.bad > 0 {
		text += fmt.Sprintf(", %d not ok", p.bad)
	}
	text += p.copies.text(now, p.all == 1)
	var late []string
	var longest time.Duration
	for _, host := range slices.Sorted(maps.Keys(p.running)) {
		if waited := now.Sub(p.running[host]); waited >= lateAfter {
			late, longest = append(late, host), max(longest, waited)
		}
	}
	if len(late) == 0 || p.all == 1 && p.copies.bytes > 0 {
		return p.fitting(text)
	}
	text += fmt.Sprintf("; waiting for %d, up to %s: %s", len(late), bound.Format(longest.Round(time.Second)), nodeset.Fold(late))
	return p.fitting(text)
}

// fitting cuts what is longer than the terminal is wide. Names of hosts are
// ASCII, those of files are made so.
func (p *fleetPrinter) fitting(text string) string {
	if most := max(p.width, 40) - 1; len(text) > most {
		text = strings.TrimRight(text[:most-1], ",[-") + "…"
	}
	return text
}

// copying is fleet.Plan's Copying.
func (p *fleetPrinter) copying(host string, at sftp.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.copies.add(host, at, time.Now())
}

// copyProgress is how far the copies are, of all hosts together.
type copyProgress struct {
	bytes int64
	began time.Time
	told  time.Time        // last
	by    map[string]int64 // of the copy under way, by host
	last  sftp.Progress
}

func (c *copyProgress) add(host string, at sftp.Progress, now time.Time) {
	if c.by == nil {
		c.by, c.began = make(map[string]int64), now
	}
	before := c.by[host]
	if at.Total.Bytes < before { // another copy
		before = 0
	}
	c.bytes += at.Total.Bytes - before
	c.by[host], c.last, c.told = at.Total.Bytes, at, now
}

// text says it, of a single host with the file under way.
func (c *copyProgress) text(now time.Time, single bool) string {
	if c.by == nil {
		return ""
	}
	text := fmt.Sprintf("; %s copied", show.Size(c.bytes))
	if took := now.Sub(c.began).Seconds(); took >= 1 && now.Sub(c.told) < lateAfter {
		text += fmt.Sprintf(", %s/s", show.Size(int64(float64(c.bytes)/took)))
	}
	if single && c.last.Size > 0 {
		text += fmt.Sprintf("; %s %d %% of %s", strconv.QuoteToASCII(c.last.Name), c.last.Done*100/c.last.Size, show.Size(c.last.Size))
	}
	return text
}
