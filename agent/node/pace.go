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
	// 0.8 %, and 0.025 % where the kernel tells when to look, so that looks are only
	// for what it does not tell. It does not tell who is back, nor that the one
	// namespace that is watched is gone: for that they may take 0.2 %.
	calm   = 125
	told   = 4000
	untold = 500

	// budget is what they may take in the long run: 1 %.
	budget = 100

	// How far apart looks are at the most, in these cases. The second is for what the
	// kernel told of and was lost.
	slowest       = 3 * time.Second
	slowestTold   = 5 * time.Minute
	slowestUntold = time.Minute

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

// shown is what a look was, and what came of it.
type shown struct {
	narrow     bool // it was one at the sockets of some peers
	untold     bool // something may come of which the kernel does not tell
	suspicious bool
}

// next returns how long to wait after a look that took cost of a processor, and
// came so long after the one before.
func (p *pace) next(since, cost time.Duration, look shown) time.Duration {
	usual := &p.cost
	if look.narrow {
		usual = &p.narrow
	}
	if *usual == 0 {
		*usual = cost
	}
	*usual += (cost - *usual) / 4
	p.saved = min(p.saved+since/budget-cost, purse)
	if look.suspicious {
		return max(p.affordable(*usual), min(*usual*spread, spreadMost), quickest)
	}
	switch {
	case !p.told:
		return min(max(p.cost*calm, quickest), slowest)
	case look.untold:
		return min(max(*usual*untold, quickest), slowestUntold)
	}
	return min(max(p.cost*told, quickest), slowestTold)
}

// affordable is how long it takes until a look of that cost before its time is
// paid for.
func (p *pace) affordable(cost time.Duration) time.Duration { return max(cost-p.saved, 0) * budget }

// soonest is the same for a look that the kernel asked for.
func (p *pace) soonest() time.Duration { return p.affordable(cmp.Or(p.narrow, p.cost)) }
