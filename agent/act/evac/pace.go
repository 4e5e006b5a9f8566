//go:build linux

package evac

import "time"

// pace says how many are due. It has no clock: the time is given.
type pace struct {
	last   time.Time // when due was asked last
	end    time.Time // by when all should be done; zero: at Rate
	credit float64   // what is due and was not taken, less than one beside a burst
}

// due returns how many of the left are due now. With an end, what is left is
// spread evenly over the time that is left, so more that come later make it
// faster, and being asked late does not make it late. Without, they are due at
// Rate, up to mostAtOnce at a time.
func (p *pace) due(now time.Time, left int) int {
	elapsed := now.Sub(p.last)
	p.last = now
	switch rest := p.end.Sub(now); {
	case left == 0:
		p.credit = 0
		return 0
	case p.end.IsZero():
		p.credit = min(p.credit+Rate*elapsed.Seconds(), mostAtOnce)
	case rest <= 0:
		return left
	default:
		p.credit += (float64(left) - p.credit) * float64(elapsed) / float64(elapsed+rest)
	}
	n := min(int(p.credit), left)
	p.credit -= float64(n)
	return n
}
