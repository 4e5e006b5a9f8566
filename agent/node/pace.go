package node

import (
	"cmp"
	"time"
)

const (
	// quickest is how far apart looks are when they cost nothing, and when
	// something is suspicious.
	quickest = 125 * time.Millisecond

	// What looks may take of a processor when all is well, one part in so many:
	// 0.8 %, and 0.05 % where the kernel tells when to look, so that looks are only
	// for what it does not tell.
	calm = 125
	told = 2000

	// budget is what they may take in the long run: 1 %.
	budget = 100

	// How far apart looks are at the most, in both cases. The second is for what the
	// kernel told of and was lost.
	slowest     = 3 * time.Second
	slowestTold = 5 * time.Minute

	// spread is how many times what a look costs the next one is away at the least
	// while something is suspicious: a verdict needs looks over a second or so, and
	// where each costs much, those that are saved for would be over before it. It is
	// no longer than spreadMost.
	spread     = 4
	spreadMost = 500 * time.Millisecond

	// purse is the processor time that a watch may have saved up for moments in
	// which something is suspicious: that of a few minutes.
	purse = 500 * time.Millisecond
)

// pace decides when to look next, so that a watch takes at most 1 % of a
// processor in the long run, and looks quickly all the same when it matters. The
// zero pace has saved nothing.
type pace struct {
	told  bool // the kernel says when there is something to see
	saved time.Duration

	// What a look costs, smoothed: at all sockets, and at those of some peers.
	cost, narrow time.Duration
}

// next returns how long to wait after a look at all sockets, or at those of some
// peers, that took cost of a processor, and came so long after the one before.
func (p *pace) next(since, cost time.Duration, narrow, suspicious bool) time.Duration {
	usual := &p.cost
	if narrow {
		usual = &p.narrow
	}
	if *usual == 0 {
		*usual = cost
	}
	*usual += (cost - *usual) / 4
	p.saved = min(p.saved+since/budget-cost, purse)
	if suspicious {
		return max(p.affordable(*usual), min(*usual*spread, spreadMost), quickest)
	}
	share, longest := time.Duration(calm), slowest
	if p.told {
		share, longest = told, slowestTold
	}
	return min(max(p.cost*share, quickest), longest)
}

// affordable is how long it takes until a look of that cost before its time is
// paid for.
func (p *pace) affordable(cost time.Duration) time.Duration { return max(cost-p.saved, 0) * budget }

// soonest is the same for a look that the kernel asked for.
func (p *pace) soonest() time.Duration { return p.affordable(cmp.Or(p.narrow, p.cost)) }
