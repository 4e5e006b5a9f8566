package main

import (
	"math"
	"slices"
)

// A middle is the median of values that scatter, and the range in which the true
// one lies in 95 of 100 cases: by ranks, so that it holds for any distribution.
type middle struct{ at, low, high float64 }

func middleOf(values []float64) middle {
	if len(values) == 0 {
		return middle{math.NaN(), math.NaN(), math.NaN()}
	}
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	n := len(sorted)
	rank := max(int(float64(n)/2-1.96*math.Sqrt(float64(n))/2), 0)
	return middle{sorted[n/2], sorted[rank], sorted[n-1-rank]}
}
