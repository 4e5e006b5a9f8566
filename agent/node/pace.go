package node

import "time"

const (
	// quickest is how far apart looks are when they cost nothing, and when
	// something is suspicious.
	quickest = 125 * time.Millisecond

	// slowest is how far apart they are at the most. Only where a look takes
	// over 24 ms does a watch cost more than it should.
	slowest = 3 * time.Second

	// calm is the share of a processor that looks may take when all is well, one
	// part in so many: 0.8 %. Together with refill it is 1 %.
	calm   = 125
	refill = 500

	// Where looks can come no quicker than seldom, they take 0.2 % and glimpses
	// between them 0.6 %. Glimpses that are short, as with a few thousand sockets,
	// take 1.2 %: the kernel walks through the table of the whole machine for each,
	// and the first sign of a silence is to be seen soon.
	seldom    = 300 * time.Millisecond
	calmLook  = 500
	calmPeek  = 167
	shortPeek = 8 * time.Millisecond
	calmShort = 80

	// purse is the processor time that a watch may have saved up for moments in
	// which something is suspicious: a quarter of an hour of refill at most.
	purse = 500 * time.Millisecond
)

// pace decides when to look next, so that a watch takes at most 1 % of a
// processor in the long run, and looks quickly all the same when it matters.
type pace struct {
	saved time.Duration
	cost  time.Duration // of a look, smoothed
	peek  time.Duration // of a glimpse, smoothed
}

func newPace() pace { return pace{saved: purse} }

// next returns how long to wait after a look that took cost of a processor.
func (p *pace) next(cost time.Duration, suspicious bool) time.Duration {
	if p.cost == 0 {
		p.cost = cost
	}
	p.cost += (cost - p.cost) / 4
	pause := min(max(p.cost*calm, quickest), slowest)
	if pause > seldom {
		pause = min(p.cost*calmLook, slowest)
	}
	if suspicious && p.saved > p.cost {
		pause = quickest
	}
	p.saved = min(p.saved+pause/refill+pause/calm-cost, purse)
	return pause
}

// spared takes back what was credited for a part of a pause that was not waited
// for.
func (p *pace) spared(rest time.Duration) {
	if rest > 0 {
		p.saved -= rest/refill + rest/calm
	}
}

// affords reports whether a look before its time is paid for.
func (p *pace) affords() bool { return p.saved > p.cost }

// glimpse returns how long to wait for the next glimpse in a pause of which so
// much is left. Where that is as good as a look, there is none before it.
func (p *pace) glimpse(left time.Duration) time.Duration {
	if left <= seldom {
		return left + slowest
	}
	share := time.Duration(calmPeek)
	if p.peek < shortPeek {
		share = calmShort
	}
	return min(max(p.peek*share, quickest), slowest)
}

// glimpsed notes what a glimpse took of a processor.
func (p *pace) glimpsed(cost time.Duration) {
	if p.peek == 0 {
		p.peek = cost
	}
	p.peek += (cost - p.peek) / 4
}
