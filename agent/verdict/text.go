package verdict

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/bound"
)

// seconds is a duration as documents carry it: to the millisecond.
func seconds(d time.Duration) float64 {
	return math.Round(d.Seconds()*1000) / 1000
}

// rounded keeps two digits after the point: rates over a second have no more.
func rounded(f float64) float64 { return math.Round(f*100) / 100 }

// percent is the share of n in of, rounded down.
func percent(n, of int) int { return int(float64(n) / float64(of) * 100) }

// above reports that n is more than so many per cent of of.
func above(n, of, percents int) bool { return float64(n)*100 > float64(of)*float64(percents) }

// span writes a duration that bad facts may have made negative.
func span(d time.Duration) string { return bound.Format(max(d, 0)) }

// Number writes 4224 as 4,224.
func Number(n int) string {
	if n < 0 {
		return strconv.Itoa(n)
	}
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// count writes a number with its noun: 1 connection, 4,224 connections.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return Number(n) + " " + noun + "s"
}

// choose returns one when n is 1, many otherwise.
func choose(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// upTo writes the longest of n durations.
func upTo(n int, longest time.Duration) string { return choose(n, "", "up to ") + span(longest) }

// capital makes the first letter of a sentence large.
func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
