package daemon

import "time"

const (
	// purseful is how much of a processor a source may take at first, or after it
	// has taken little for long, before it has to rest: the first looks at a machine
	// take more than the later ones.
	purseful = 500 * time.Millisecond

	// rare is how far apart looks are at the most, whatever they take.
	rare = 5 * time.Minute
)

// purse is what a source may take of a processor: what it takes it pays for by a
// rest of so many times as long, except for what is in its purse. The zero purse
// is full. It is for one goroutine.
type purse struct {
	owed time.Duration // what is not there of a full purse
	at   time.Time     // when that was so
}

// pay takes out what a look took that ended now, and returns how long to wait for
// the next one: as long as is usual, or until it is paid for, at most as long as
// most.
func (p *purse) pay(now time.Time, cost time.Duration, rest int, usual, most time.Duration) time.Duration {
	factor := time.Duration(rest)
	if !p.at.IsZero() {
		p.owed -= max(now.Sub(p.at), 0) / factor
	}
	p.at, p.owed = now, max(p.owed, 0)+cost
	p.owed = min(p.owed, purseful+most/factor) // what is more is forgiven
	return min(max(usual, (p.owed-purseful)*factor), most)
}
