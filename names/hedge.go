package names

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// tries is how often a question is sent in one lookup at least, where no answer
// comes; each server is asked three times.
const tries = 6

var errNoServers = errors.New("there is no nameserver to ask")

// attempt is one question to one server that is under way, or over.
type attempt struct {
	to    *server
	how   method
	began time.Time
	over  bool
}

type outcome struct {
	attempt int
	reply   reply
	err     error
}

// hedge asks the servers until one answers with something useful, RFC 8305's way:
// the next one at once when one fails, and also when one has not answered within
// its patience, which then may still answer. A server that says that it cannot
// help is not asked again. Questions grow rarer, so that one that is slow is not
// asked for ever. What runs ends when hedge returns.
func hedge(ctx context.Context, servers []*server, ask func(ctx context.Context, s *server, how method) (reply, error)) (reply, error) {
	if len(servers) == 0 {
		return reply{}, errNoServers
	}
	cancel := context.CancelFunc(nil)
	if _, ok := ctx.Deadline(); ok {
		ctx, cancel = context.WithCancel(ctx)
	} else {
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
	}
	defer cancel()
	h := hedging{servers: inOrder(servers), results: make(chan outcome, max(tries, 3*len(servers)))}
	defer h.settle()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if len(h.out) == len(h.servers) && h.running() == 0 {
			return reply{}, errors.Join(h.errs...)
		}
		select {
		case <-timer.C:
			if wait, ok := h.start(ctx, ask); ok {
				timer.Reset(wait)
			}
		case o := <-h.results:
			if errors.Is(o.err, os.ErrDeadlineExceeded) {
				continue // the deadline of its socket is that of ctx, which is over too in a moment
			}
			a := &h.attempts[o.attempt]
			a.over = true
			if o.err == nil {
				h.learn(a)
				return o.reply, nil
			}
			if ctx.Err() == nil {
				h.out = append(h.out, a.to)
				h.errs = append(h.errs, o.err)
				timer.Reset(0)
			}
		case <-ctx.Done():
			return reply{}, h.unanswered(context.Cause(ctx))
		}
	}
}

// hedging is the state of one.
type hedging struct {
	servers  []*server
	out      []*server // of those the ones that said that they cannot help
	next     int       // whose turn it is
	attempts []attempt
	results  chan outcome // has room for all: nobody waits to be heard
	errs     []error
}

// inOrder returns the servers with those at the end that did not answer.
func inOrder(servers []*server) []*server {
	order := slices.Clone(servers)
	if len(order) > 1 {
		dead := make(map[*server]int, len(order))
		for _, s := range order {
			if s.health.dead() {
				dead[s] = 1
			}
		}
		slices.SortStableFunc(order, func(a, b *server) int { return cmp.Compare(dead[a], dead[b]) })
	}
	return order
}

// start puts the next question, where one is left, and returns how long to wait
// before the one after it.
func (h *hedging) start(ctx context.Context, ask func(context.Context, *server, method) (reply, error)) (time.Duration, bool) {
	for len(h.attempts) < cap(h.results) && len(h.out) < len(h.servers) {
		to, how := h.servers[h.next%len(h.servers)], method(h.next/len(h.servers)%methods)
		h.next++
		if slices.Contains(h.out, to) {
			continue
		}
		wait := to.health.patience()
		for range min(len(h.attempts), 8) {
			wait += wait / 2
		}
		number := len(h.attempts)
		h.attempts = append(h.attempts, attempt{to: to, how: how, began: time.Now()})
		go func() {
			reply, err := ask(ctx, to, how)
			h.results <- outcome{number, reply, err}
		}()
		return wait, true
	}
	return 0, false
}

// learn notes that a server answers over TCP and has not over UDP.
func (h *hedging) learn(answered *attempt) {
	if answered.how == overTCP && slices.ContainsFunc(h.attempts, func(a attempt) bool {
		return a.to == answered.to && a.how != overTCP && !a.over
	}) {
		answered.to.preferTCP()
	}
}

func (h *hedging) running() (n int) {
	for _, a := range h.attempts {
		if !a.over {
			n++
		}
	}
	return n
}

// settle tells the servers that were not heard of. One that answered meanwhile,
// or had no time, is not blamed.
func (h *hedging) settle() {
	for _, a := range h.attempts {
		if !a.over {
			a.to.health.miss(a.began)
		}
	}
}

// unanswered names those that were asked in vain.
func (h *hedging) unanswered(cause error) error {
	var silent []string
	for _, a := range h.attempts {
		if name := a.to.name(0); !a.over && !slices.Contains(silent, name) {
			silent = append(silent, name)
		}
	}
	err := fmt.Errorf("no answer from %s: %w", strings.Join(silent, ", "), cause)
	return errors.Join(append(h.errs, err)...)
}
