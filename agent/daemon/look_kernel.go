package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

const (
	kernelEvery = 10 * time.Second

	// ratesOver is the time over which rates are taken.
	ratesOver = time.Minute

	// mostEntries is how many entries of connection tracking are read, to find the
	// flows that only pass through: those take 160 bytes each.
	mostEntries = 100_000
)

// countedAt is what the kernel had counted in each network namespace.
type countedAt struct {
	time time.Time
	by   map[uint32]fact.TCPCounts
}

// rates are those of the kernel's counters, a second; nil before there are two
// looks.
type rates struct{ opened, resets, resent *float64 }

// lookCounters reads the kernel's counters.
func (d *Daemon) lookCounters() func(context.Context, *node.Node) (time.Duration, error) {
	var past []countedAt
	var paid purse
	return func(ctx context.Context, n *node.Node) (time.Duration, error) {
		began, used := time.Now(), processor()
		m, err := n.Counts(ctx, d.options.Namespaces)
		if err != nil {
			return 0, err
		}
		now := countedAt{m.Time, make(map[uint32]fact.TCPCounts, len(m.Namespaces))}
		for i := range m.Namespaces {
			if c, ok := m.Namespaces[i].TCP.Get(); ok {
				now.by[m.Namespaces[i].Inode] = c
			}
		}
		for len(past) > 1 && now.time.Sub(past[1].time) >= ratesOver {
			past = past[1:]
		}
		past = append(past, now)
		r := ratesOf(&past[0], &now)
		d.take(func(k *known) {
			k.rates = r
			k.found(m.Time, fromCounters, nil, m.Blind)
		})
		return paid.pay(time.Now(), spent(began, used), censusRest, kernelEvery, rare), nil
	}
}

// ratesOf are the rates between two looks, of the namespaces that both have: what
// a new one counted before is not of that time.
func ratesOf(first, last *countedAt) (r rates) {
	span := last.time.Sub(first.time).Seconds()
	if span <= 0 {
		return r
	}
	var sum fact.TCPCounts
	for netns, now := range last.by {
		was, known := first.by[netns]
		if !known || now.Opened < was.Opened || now.Accepted < was.Accepted { // another one with its number
			continue
		}
		sum.Opened += now.Opened - was.Opened + now.Accepted - was.Accepted
		sum.Reset += now.Reset - min(was.Reset, now.Reset)
		sum.Resent += now.Resent - min(was.Resent, now.Resent)
	}
	rate := func(n uint64) *float64 { per := float64(n) / span; return &per }
	return rates{rate(sum.Opened), rate(sum.Reset), rate(sum.Resent)}
}

// fill puts the rates where they are published.
func (r *rates) fill(t *state.Totals) { t.Opened, t.Resets, t.Resent = r.opened, r.resets, r.resent }

// lookConntrack reads how full connection tracking is, and, as often as that may
// cost, which flows only pass through.
func (d *Daemon) lookConntrack() func(context.Context, *node.Node) (time.Duration, error) {
	var earlier *fact.Machine
	var due time.Time // for the entries
	var paid, entries purse
	return func(ctx context.Context, n *node.Node) (time.Duration, error) {
		looked, used := time.Now(), processor()
		m, err := n.Conntrack(ctx, d.options.Namespaces)
		if err != nil {
			return 0, err
		}
		next := paid.pay(time.Now(), spent(looked, used), censusRest, kernelEvery, rare)
		full := fullest(m.Conntrack)
		m.Earlier = earlier
		found := verdict.Judge(m)
		m.Earlier, earlier = nil, m
		blind, began := m.Blind, time.Now()
		used = processor()
		var flows *fact.Machine
		if began.After(due) {
			flows = &fact.Machine{Namespaces: m.Namespaces}
			if many := entriesOf(m.Conntrack); many <= mostEntries {
				node.Transit(flows)
				due = time.Now().Add(entries.pay(time.Now(), spent(began, used), conntrackRest, 0, rare))
			} else {
				flows.Blind = []fact.Blind{{Source: "conntrack", Error: fmt.Sprintf("flows that only pass through are not read among %s entries: at most %s are", verdict.Number(many), verdict.Number(mostEntries))}}
			}
		}
		d.take(func(k *known) {
			k.full = full
			if flows != nil {
				k.flows = flows
			}
			k.found(m.Time, fromConntrack, found, slices.Concat(blind, k.flows.Blind))
		})
		return next, nil
	}
}

func entriesOf(tables []fact.Conntrack) (n int) {
	for i := range tables {
		count, _ := tables[i].Count.Get()
		n += count
	}
	return n
}

// fullest is how full the fullest table is, nil where none is known.
func fullest(tables []fact.Conntrack) (share *float64) {
	for i := range tables {
		count, counted := tables[i].Count.Get()
		most, limited := tables[i].Max.Get()
		if counted && limited && most > 0 {
			share = greatest(share, float64(count)/float64(most))
		}
	}
	return share
}
