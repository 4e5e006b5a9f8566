package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/lifeline-go/lifeline/agent/client"
	"github.com/lifeline-go/lifeline/agent/daemon"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/top"
	"github.com/lifeline-go/lifeline/agent/top/tty"
)

// askTime is how long a question of lifeline top may take.
const askTime = 20 * time.Second

// leastStep is the shortest step of a time line: a record comes every 10 s or a
// little later, and no step shall be without one.
const leastStep = 30 * time.Second

// source is where lifeline top knows what it shows from.
type source interface {
	tty.Source
	once(context.Context) (*state.State, error)
	close()
}

// asker answers what both sources are asked alike.
type asker interface {
	Connections(context.Context, state.Query) (state.Connections, error)
	WhatIf(ctx context.Context, dead netip.Prefix, netns uint32) (state.Loss, error)
}

// askAlike answers questions about the present.
func askAlike(ctx context.Context, of asker, a top.Ask) (out top.Answer, err error) {
	if a.Connections != nil {
		out.Connections, err = of.Connections(ctx, *a.Connections)
		return out, err
	}
	addr, err := netip.ParseAddr(a.WhatIf)
	if err != nil {
		return out, err
	}
	addr = addr.WithZone("").Unmap()
	out.Loss, err = of.WhatIf(ctx, netip.PrefixFrom(addr, addr.BitLen()), 0)
	return out, err
}

// remote is an agent.
type remote struct{ *client.Agent }

func (r *remote) once(ctx context.Context) (*state.State, error) { return r.State(ctx) }

func (r *remote) close() { r.Close() }

// Ask implements tty.Source.
func (r *remote) Ask(ctx context.Context, a top.Ask) (out top.Answer) {
	ctx, cancel := context.WithTimeoutCause(ctx, askTime, fmt.Errorf("no answer within %v", askTime))
	defer cancel()
	var err error
	switch {
	case a.Past != nil:
		err = r.past(ctx, a.Past, &out)
	case a.Difference != nil:
		out.Difference, err = r.Difference(ctx, a.Difference.From, a.Difference.To)
	default:
		out, err = askAlike(ctx, r, a)
	}
	if err != nil {
		out.Err = err.Error()
	}
	return out
}

// past asks an agent for its history.
func (r *remote) past(ctx context.Context, p *top.Past, out *top.Answer) (err error) {
	if out.Span, err = r.Span(ctx); err != nil || out.Span.First == nil {
		return err
	}
	from := p.From
	if from.Before(*out.Span.First) {
		from = *out.Span.First
	}
	step := (p.To.Sub(from) / time.Duration(max(p.Steps, 1))).Truncate(time.Second)
	if out.Points, err = r.Range(ctx, from, p.To, max(step, leastStep)); err != nil {
		return err
	}
	out.Findings, err = r.PastFindings(ctx, from, p.To)
	return err
}

// itself is a watch in this process.
type itself struct {
	*daemon.Daemon
	stop  context.CancelFunc
	ended chan error
}

// close waits until the watch has ended.
func (i *itself) close() {
	i.stop()
	<-i.ended // a source that did not end is the same to who leaves
}

// Follow implements tty.Source.
func (i *itself) Follow(ctx context.Context, take func(*state.State), _ func(error)) {
	for seq := uint64(0); ; {
		s, err := i.Wait(ctx, seq)
		if err != nil {
			return
		}
		seq = s.Seq
		if !s.Totals.Looked.IsZero() { // before that there is nothing to see
			take(s)
		}
	}
}

// once waits for each source to have looked, as long as that takes no long time.
func (i *itself) once(ctx context.Context) (*state.State, error) {
	late, cancel := context.WithTimeout(ctx, onceTime)
	defer cancel()
	for seq := uint64(0); ; {
		s, err := i.Wait(late, seq)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil: // what is late says so itself
			if s = i.State(); s.Totals.Looked.IsZero() {
				return nil, fmt.Errorf("no census was taken within %v", onceTime)
			}
			return s, nil
		case allLooked(s):
			return s, nil
		}
		seq = s.Seq
	}
}

// Ask implements tty.Source.
func (i *itself) Ask(ctx context.Context, a top.Ask) (out top.Answer) {
	var err error
	if a.Past != nil || a.Difference != nil {
		err = errors.New("there is no agent that keeps a history")
	} else {
		out, err = askAlike(ctx, i.Daemon, a)
	}
	if err != nil {
		out.Err = err.Error()
	}
	return out
}
