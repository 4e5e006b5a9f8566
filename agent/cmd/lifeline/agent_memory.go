package main

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"time"
)

const (
	// roomAtLeast is what the agent may hold before its collector hurries: enough
	// for a census of 30,000 sockets beside the one before. Its program is some
	// 20 MiB more.
	roomAtLeast = 52 << 20

	// Beyond that as much may be held as is in use between looks and three quarters of
	// it again, which a look takes, or what was in use at both of the last collections
	// and a quarter: one alone may have been in the midst of a look.
	roomBetween = 0.75
	roomLast    = 0.25

	// resizes is how often that is set anew, by what was in use at the last ones
	// at which there had been another collection.
	resizes = 5 * time.Second
	uses    = 6
)

// keepSmall keeps what looks leave behind from piling up, until ctx ends: they are
// rare and leave much, and the collector alone would let that grow to the most that
// a moment ever needed.
func keepSmall(ctx context.Context) error {
	defer debug.SetMemoryLimit(math.MaxInt64)
	collected := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
	tick := time.NewTicker(resizes)
	defer tick.Stop()
	var seen []uint64
	for cycles := uint64(0); ; {
		debug.SetMemoryLimit(room(seen))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		metrics.Read(collected)
		live, now := collected[0].Value, collected[1].Value
		if live.Kind() == metrics.KindUint64 && now.Kind() == metrics.KindUint64 && now.Uint64() != cycles {
			cycles = now.Uint64()
			seen = append(seen, live.Uint64())
			seen = seen[max(len(seen)-uses, 0):]
		}
	}
}

// room is what may be held when so much was in use at the last collections. The
// least of them is what is in use between looks; the lesser of the last two may be
// what is in use from now on.
func room(seen []uint64) int64 {
	if len(seen) == 0 {
		return roomAtLeast
	}
	least, last := slices.Min(seen), slices.Min(seen[max(len(seen)-2, 0):])
	return max(roomAtLeast, int64(float64(least)*(1+roomBetween)), int64(float64(last)*(1+roomLast)))
}
