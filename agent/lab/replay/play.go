//go:build linux

package replay

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/lab/websocket"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// Times that nothing in a lab should take, even on a busy machine.
const (
	startTime = 20 * time.Second // for a process to be at work
	openTime  = 60 * time.Second // for the last connections to open
	evacTime  = 30 * time.Second
	stopTime  = 5 * time.Second // for a process to go by itself
)

// reminderEvery is how often a wait says that it goes on.
const reminderEvery = 30 * time.Second

var errEarly = errors.New("too early")

// play is a replay while it runs. All of it belongs to one goroutine; those that
// read what processes print pass it on through said.
type play struct {
	*Silence
	story   *lab.Story
	clients []*child
	outcome Outcome
	death   time.Duration // by websocket.Now; 0 before

	said    chan message
	done    chan struct{} // closed when nobody listens to said any more
	readers sync.WaitGroup
	running []*child
}

// child is a process of the replay.
type child struct {
	name  string
	cmd   *exec.Cmd
	stdin io.Closer

	end    *End // of the connections that it holds, nil if it holds none
	guards *End // that it guards, nil if none
	ready  bool
	open   bool
	exited bool
	last   string // that it wrote to standard error
	result string // the last that it wrote to standard output, unless it guards
}

// message is a line that a process printed, or that it is gone.
type message struct {
	from   *child
	at     time.Duration
	line   string
	stderr bool
	gone   bool
	err    error // with gone: how
}

// start runs Lifeline on a host.
func (p *play) start(name string, h *lab.Host, args ...string) (*child, error) {
	c := &child{name: name, cmd: p.Lifeline(args...)}
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	// A process begins in the namespace of the thread that starts it.
	if err := h.Do(c.cmd.Start); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	c.stdin = stdin
	p.running = append(p.running, c)
	var streams sync.WaitGroup
	streams.Go(func() { p.listen(c, stdout, false) })
	streams.Go(func() { p.listen(c, stderr, true) })
	p.readers.Go(func() {
		streams.Wait()
		p.pass(message{from: c, gone: true, err: c.cmd.Wait()})
	})
	return c, nil
}

// listen passes on what a process prints, line by line.
func (p *play) listen(c *child, from io.Reader, stderr bool) {
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		p.pass(message{from: c, at: websocket.Now(), line: lines.Text(), stderr: stderr})
	}
	_, _ = io.Copy(io.Discard, from) // a line too long must not block who prints it
}

func (p *play) pass(m message) {
	select {
	case p.said <- m:
	case <-p.done:
	}
}

// stop ends all processes and waits for them.
func (p *play) stop() {
	close(p.done)
	for _, c := range p.running {
		c.stdin.Close()
	}
	kill := time.AfterFunc(stopTime, func() {
		for _, c := range p.running {
			_ = c.cmd.Process.Kill() // an error says that it is gone
		}
	})
	p.readers.Wait()
	kill.Stop()
}

// await takes in what processes say until done is true, the time is up or ctx
// ends, which is an error as much as the end of a process is that should run.
func (p *play) await(ctx context.Context, timeout <-chan time.Time, done func() bool) error {
	for !done() {
		select {
		case m := <-p.said:
			if err := p.take(m); err != nil {
				return err
			}
		case <-timeout:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// within awaits what must come within a time.
func (p *play) within(ctx context.Context, limit time.Duration, what string, done func() bool) error {
	if err := p.await(ctx, time.After(limit), done); err != nil || done() {
		return err
	}
	return fmt.Errorf("waited %v for %s, in vain", limit, what)
}

// take takes in one message.
func (p *play) take(m message) error {
	c := m.from
	switch {
	case m.gone:
		return p.ended(c, m.err)
	case m.stderr:
		c.last = m.line
		p.heard(m)
	case c.end != nil:
		var e websocket.Event
		if err := json.Unmarshal([]byte(m.line), &e); err != nil {
			return fmt.Errorf("%s said %q: %w", c.name, m.line, err)
		}
		return p.event(c, e)
	default:
		p.heard(m)
	}
	return nil
}

// ended takes in the end of a process. That of who holds connections is well
// once all have ended, that of a guard never. What an evac did not reach shows
// in the outcome.
func (p *play) ended(c *child, err error) error {
	c.exited = true
	if c.result != "" {
		p.tell(c.name + ": " + c.result)
	}
	switch {
	case c.guards != nil || c.end != nil && err != nil:
		return fmt.Errorf("%s ended (%v): %s", c.name, cmp.Or(err, errEarly), c.last)
	case err != nil:
		p.tell(fmt.Sprintf("%s ended (%v): %s", c.name, err, c.last))
	}
	return nil
}

// heard takes in a line of Lifeline's own. On standard error it says that it
// watches, and has a line for each batch, too many to repeat. On standard output
// the first line of a guard is its verdict; of who is done at some time the last
// line is what came of it.
func (p *play) heard(m message) {
	if strings.HasSuffix(m.line, ": watching") {
		m.from.ready = true
	}
	if p.death == 0 || m.stderr {
		return
	}
	line := strings.TrimSpace(m.line)
	g := m.from.guards
	if g == nil {
		m.from.result = line
		return
	}
	if !g.Verdict.OK {
		g.Verdict = fact.Seen(m.at - p.death)
	}
	if at, rest, ok := strings.Cut(line, "  "); ok {
		if _, err := time.Parse(time.TimeOnly, at); err == nil {
			line = rest // beside the time since the death, that of the day only confuses
		}
	}
	p.tellAt(m.at, m.from.name+": "+line)
}

// event takes in what an end of the connections tells.
func (p *play) event(c *child, e websocket.Event) error {
	switch e.What {
	case websocket.Ready:
		c.ready = true
	case websocket.Open:
		c.open = true
	case websocket.Ended:
		if p.death == 0 {
			return fmt.Errorf("a connection of the %s ended before the node died: %s", c.name, e.Error)
		}
		c.end.learn(e.At-p.death, e.Error)
		switch c.end.Learned {
		case 1:
			p.tellAt(e.At, fmt.Sprintf("the first read returns at the %s: %s", c.name, e.Error))
		case c.end.Count:
			p.tellAt(p.death+c.end.Last, fmt.Sprintf("all %s reads have returned at the %s", verdict.Number(c.end.Count), c.name))
		}
	}
	return nil
}

func (e *End) learn(since time.Duration, why string) {
	if e.Errors == nil {
		e.Errors, e.First = make(map[string]int), since
	}
	e.Learned++
	e.Errors[why]++
	e.First, e.Last = min(e.First, since), max(e.Last, since)
}

// look has Lifeline say how long the programs could wait.
func (p *play) look(ctx context.Context) (err error) {
	if p.outcome.Conntrack, err = conntrack(p.story.Node); err != nil {
		return err
	}
	n := node.New()
	defer n.Close()
	for _, e := range []struct {
		*lab.Host
		*End
	}{{p.story.Pod, &p.outcome.Server}, {p.story.LB, &p.outcome.Clients}} {
		namespaces, err := node.ParseNamespaces(e.Path())
		if err != nil {
			return err
		}
		m, err := n.Look(ctx, node.Want{Sockets: sockdiag.Want{TCP: true}, Namespaces: namespaces})
		if err != nil {
			return err
		}
		c := census.Count(m, census.Options{Filter: census.Filter{States: []fact.State{fact.Established}}})
		if len(c.Groups) != 1 || c.Total != p.Connections || c.Groups[0].Idle.Known == 0 {
			return fmt.Errorf("a census of the lab counts %d connections to %d peers, want %d to one, with their options", c.Total, len(c.Groups), p.Connections)
		}
		e.Count, e.Idle, e.Sending = c.Total, c.Groups[0].Idle.Bound, c.Groups[0].Sending.Bound
	}
	p.tell(fmt.Sprintf("%s connections are open, %s in the node's conntrack table; idle, they could be silent for up to %v, sending for up to %v",
		verdict.Number(p.Connections), verdict.Number(p.outcome.Conntrack), p.outcome.Server.Idle, p.outcome.Server.Sending))
	return nil
}

// begin takes the time from which everything is counted.
func (p *play) begin(text string) {
	p.death = websocket.Now()
	p.tell(text)
}

func (p *play) since() time.Duration { return websocket.Now() - p.death }

func (p *play) tell(text string) { p.tellAt(websocket.Now(), text) }

func (p *play) tellAt(at time.Duration, text string) {
	if p.Event == nil {
		return
	}
	e := Event{At: at, Text: text}
	if p.death != 0 {
		e.Dead, e.Since = true, at-p.death
	}
	p.Event(e)
}

// remind says who still waits, and for how long at most.
func (p *play) remind() {
	if p.allLearned() {
		return
	}
	until := "given up"
	if left := p.longest() - p.since(); left > 0 {
		until = "for up to " + bound.Format(left.Round(time.Second)) + " more"
	} else if -left < p.Patience {
		until = "longer than the kernel should take"
	}
	s, c := &p.outcome.Server, &p.outcome.Clients
	p.tell(fmt.Sprintf("still waiting: %s of %s reads at the server, %s of %s at the clients; %s", verdict.Number(s.Count-s.Learned),
		verdict.Number(s.Count), verdict.Number(c.Count-c.Learned), verdict.Number(c.Count), until))
}
