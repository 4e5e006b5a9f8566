package fleet

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Share is a number of hosts, or a percentage of all of them. The zero value is
// none given.
type Share struct {
	given   bool
	hosts   int
	percent float64 // where it is one
}

// ParseShare reads 3 or 10%.
func ParseShare(text string) (Share, error) {
	if number, ok := strings.CutSuffix(text, "%"); ok {
		percent, err := strconv.ParseFloat(number, 64)
		if err != nil || !(percent > 0 && percent <= 100) {
			return Share{}, fmt.Errorf("%q is no percentage: take one above 0%% and up to 100%%", text)
		}
		return Share{given: true, percent: percent}, nil
	}
	hosts, err := strconv.Atoi(text)
	if err != nil || hosts < 0 {
		return Share{}, fmt.Errorf("%q is neither a number of hosts nor a percentage: take 3 or 10%%", text)
	}
	return Share{given: true, hosts: hosts}, nil
}

// of returns how many of all hosts it is, and whether it was given. A percentage
// is rounded up where one host at least is meant.
func (s Share) of(all int, up bool) (hosts int, given bool) {
	if s.percent == 0 {
		return s.hosts, s.given
	}
	exact := float64(all) * s.percent / 100
	if up {
		return int(math.Ceil(exact)), true
	}
	return int(exact), true
}
