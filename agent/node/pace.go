package node

import "time"

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
	cost  time.Duration // of a look, smoothed
}

// next returns how long to wait after a look that took cost of a processor, and
// came so long after the one before.
func (p *pace) next(since, cost time.Duration, suspicious bool) time.Duration {
	if p.cost == 0 {
		p.cost = cost
	}
	p.cost += (cost - p.cost) / 4
	p.saved = min(p.saved+since/budget-cost, purse)
	if suspicious {
		return max(p.affordable(), min(p.cost*spread, spreadMost), quickest)
	}
	share, longest := time.Duration(calm), slowest
	if p.told {
		share, longest = told, slowestTold
	}
	return min(max(p.cost*share, quickest), longest)
}

// affordable is how long it takes until a look before its time is paid for.
func (p *pace) affordable() time.Duration { return max(p.cost-p.saved, 0) * budget }
