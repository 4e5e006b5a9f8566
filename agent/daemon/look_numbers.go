package daemon

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
)

const (
	// numbersEvery is how often the kernel is asked how many sockets there are in each
	// namespace, where that takes less than one part in numbersRest of a processor;
	// and sooner, at the same price, when at one of the looks at their sum, which are
	// totalEvery apart, many have come or gone.
	numbersEvery = 500 * time.Millisecond
	numbersRest  = 1000
	totalEvery   = 250 * time.Millisecond

	// A change is worth a census when it is more than some times what comes and goes
	// anyway, and one part in worthShare of all sockets. So many such censuses may
	// follow each other, each for a change worthMore times as large as the one
	// before, and each is paid for by hurriedRest times what it takes of a processor.
	worthNoise  = 4
	worthShare  = 2000
	worthMore   = 10
	hurriedMost = 3
	hurriedRest = 400

	// recountRest is by how many times as long a rest a recount is paid for. A burst of
	// thousands of connections takes three or four of them, and five bursts in a minute
	// and a half are to be shown within a second each, also on a busy machine.
	recountRest = 200

	// newsShare: a namespace is counted again when it has one part in so many of
	// what came or went: each costs the kernel a walk through the tables of all.
	newsShare = 20

	// noiseGrows is how many times as large what comes and goes may be than before,
	// and noiseLeast more, to be taken for more of the same: a jump is no noise.
	noiseGrows, noiseLeast = 4, 40
)

// watchNumbers has the sockets counted again within a second when many connections
// have come or gone, and a census taken as soon as that is paid for: the kernel
// tells for next to nothing how many there are. It goes on until ctx ends, and notes
// when it looked last.
func (d *Daemon) watchNumbers(looked *atomic.Pointer[time.Time]) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		var (
			h        hurry
			counts   counting
			paid     purse     // for recounts
			recounts time.Time // when the next may be
		)
		kernel, tick := node.Populations{Of: d.options.Namespaces, Spaces: &d.spaces}, time.NewTicker(totalEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-tick.C:
			}
			began, used := time.Now(), processor()
			looked.Store(&began)
			d.mu.Lock()
			shown := d.known.counts
			d.mu.Unlock()
			if shown.population == nil || !counts.due(began, kernel.Total(), h.noise, shown.population.all) {
				continue
			}
			now := kernel.Count()
			counts.pay(time.Now(), spent(began, used))
			worth := h.worth(began, now, shown.population, shown.cost)
			if of := h.news(now, shown.shown); of != nil && !began.Before(recounts) {
				used = processor()
				d.recount(&kernel, of, now, &shown)
				recounts = time.Now().Add(paid.pay(time.Now(), spent(began, used), recountRest, 0, rare))
			}
			if worth {
				d.hurry(fromCensus)
			}
		}
	}
}

// counting decides when the kernel is asked for the numbers of each namespace.
type counting struct {
	next   time.Time // when they are asked for anyway
	sooner time.Time // when they may be, if many have come or gone
	total  int       // of all when they were last asked for
	now    int       // at the last look at that
	purse  purse     // for what is asked sooner
	early  bool
}

// due is asked with how many there are in all now, negative where that is not known,
// what comes and goes anyway, and of how many.
func (c *counting) due(at time.Time, total int, noise float64, all int) bool {
	change := 0
	if total >= 0 && c.total >= 0 {
		change = abs(total - c.total)
	}
	c.now = total
	c.early = at.Before(c.next)
	return !c.early || change > 0 && change >= all/worthShare && float64(change) >= worthNoise*noise && !at.Before(c.sooner)
}

// pay takes note of what asking took.
func (c *counting) pay(now time.Time, cost time.Duration) {
	c.total, c.next = c.now, now.Add(max(numbersEvery, cost*numbersRest))
	if c.early {
		c.sooner = now.Add(c.purse.pay(now, cost, numbersRest, 0, rare))
	}
}

// hurry decides whether a census is worth its cost before its time.
type hurry struct {
	before map[uint32]int
	noise  float64     // what comes and goes between two counts, smoothed
	of     *population // of the census that was the last when another was asked for
	full   time.Time   // when all are paid for
}

// worth is asked with what the kernel counts now, what the last census did, and what
// that took of a processor.
func (h *hurry) worth(at time.Time, now map[uint32]int, last *population, cost time.Duration) bool {
	if h.before == nil {
		h.before = now
		return false
	}
	h.noise += (min(float64(apart(now, h.before)), noiseGrows*h.noise+noiseLeast) - h.noise) / 8
	h.before = now
	if h.of == last { // one is under way
		return false
	}
	change, paid := apart(now, last.by), max(cost*hurriedRest, 1)
	if change == 0 || float64(change) < worthNoise*h.noise {
		return false
	}
	if h.full.Before(at) {
		h.full = at
	}
	unpaid := int((h.full.Sub(at) + paid - 1) / paid)
	if unpaid >= hurriedMost {
		return false
	}
	share := worthShare
	for range unpaid {
		share /= worthMore
	}
	if change < last.all/share {
		return false
	}
	h.full, h.of = h.full.Add(paid), last
	return true
}

// news are the namespaces in which so many sockets came or went since they were
// counted for what is shown that it is to be counted anew; nil when there are none.
// It is asked after worth.
func (h *hurry) news(now, shown map[uint32]int) (of []uint32) {
	all, change := 0, 0
	for _, n := range shown {
		all += n
	}
	for netns, n := range now { // one that is not in it is gone, or could not be read
		change += abs(n - shown[netns])
	}
	if change == 0 || float64(change) < worthNoise*h.noise || change < all/worthShare {
		return nil
	}
	for netns, n := range now {
		if part := abs(n - shown[netns]); part > 0 && part*newsShare >= change {
			of = append(of, netns)
		}
	}
	return of
}

func abs(n int) int { return max(n, -n) }

// apart is how many sockets came or went, by namespace.
func apart(a, b map[uint32]int) (n int) {
	for netns, count := range a {
		n += max(count-b[netns], b[netns]-count)
	}
	for netns, count := range b {
		if _, both := a[netns]; !both {
			n += count
		}
	}
	return n
}

// population is how many TCP sockets a census found, those in TIME_WAIT left out.
type population struct {
	by  map[uint32]int
	all int
}

func populationOf(m *fact.Machine) *population {
	p := &population{by: make(map[uint32]int, len(m.Namespaces))}
	for i := range m.Namespaces {
		p.by[m.Namespaces[i].Inode] = 0
	}
	for i := range m.Sockets {
		if s := &m.Sockets[i]; s.Protocol == fact.TCP && s.State != fact.TimeWait && s.State != fact.NewSynRecv {
			p.by[s.Netns]++
			p.all++
		}
	}
	return p
}
