package goroutines

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A goroutine's waitsince does not say when it began to wait. While the
// collector marks, it gives a goroutine that waits, and has none yet, the end of
// the collection before (work.tstart is set in gcMark, at the end of marking).
// All it proves is that the goroutine has waited since the collection that
// followed, up to two minutes later than Go's own stack traces say. When that
// was stands in the runtime's list of its last 256 collections.

// The part of runtime.mstats, runtime/mstats.go, from last_gc_unix to
// last_gc_nanotime, in words. It has been the same since Go 1.18.
const (
	lastUnix   = 0
	pauseEnd   = 2 + mostKept
	numGC      = pauseEnd + mostKept // with numforcedgc in its upper half
	lastNano   = numGC + 2
	statsWords = lastNano + 1

	mostKept = 256 // collections
)

// slack allows for a clock that was adjusted and for the pause between the two
// times that a collection leaves behind.
const slack = time.Second

// timeline is when collections ended, by the clock of the process, ascending.
type timeline []int64

// after returns a time at which a goroutine with this waitsince surely waited,
// 0 when there is none: the first collection after it that is known.
func (l timeline) after(since int64) int64 {
	i, _ := slices.BinarySearch(l, since+1)
	if since <= 0 || i == len(l) {
		return 0
	}
	return l[i]
}

// timeline gathers when collections ended: what the runtime keeps of them, and
// the times that goroutines were given, which are ends of collections too.
func (t *Target) timeline(given []int64, now int64) timeline {
	l := timeline(slices.DeleteFunc(given, func(at int64) bool { return at <= 0 || at > now }))
	if stats := t.stats(now); stats != nil {
		l = append(l, kept(stats, l)...)
	}
	slices.Sort(l)
	return slices.Compact(l)
}

// kept converts the runtime's list to the clock that does not jump. What the
// wall clock says of earlier collections is used only as far back as it agrees
// with the times that goroutines were given.
func kept(stats []uint64, given []int64) (ends []int64) {
	n := stats[numGC] & 0xffffffff
	for i := range min(n, mostKept) {
		wall := stats[pauseEnd+(n-1-i)%mostKept]
		if wall == 0 || wall > stats[lastUnix] {
			break
		}
		ends = append(ends, int64(stats[lastNano])-int64(stats[lastUnix]-wall))
	}
	// A goroutine was given the beginning of a pause, the list has its end: there
	// must be one in the list for each time given that the list reaches back to.
	for _, at := range given {
		near := func(end int64) bool { return end-at > -int64(slack) && end-at < int64(slack) }
		if len(ends) > 0 && at > ends[len(ends)-1] && !slices.ContainsFunc(ends, near) {
			ends = ends[:1] // the clock was set; the newest was not converted
			break
		}
	}
	// The list's end of the very pause that began at a time given is no later
	// collection.
	return slices.DeleteFunc(ends, func(end int64) bool {
		return slices.ContainsFunc(given, func(at int64) bool { return end > at && end-at < int64(slack) })
	})
}

// stats finds the runtime's statistics. They have no symbol in a stripped
// program, but functions that read or write the time of the last collection have
// names, and what lies around it cannot be mistaken: that time comes twice, at a
// place in the list that the number of collections tells.
func (t *Target) stats(now int64) []uint64 {
	var wall unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME, &wall) != nil {
		return nil
	}
	for _, name := range []string{"runtime.gcTrigger.test", "runtime.gcMarkTermination"} {
		entry, end, ok := t.table.Extent(name)
		if !ok || end <= entry {
			continue
		}
		for _, at := range referenced(t.table, entry, t.table.Read(entry, int(min(end-entry, mostCode)))) {
			words, err := t.words(at-8*lastNano, statsWords)
			if err == nil && plausibleStats(words, now, wall.Nano()) {
				return words
			}
		}
	}
	return nil
}

func plausibleStats(w []uint64, now, wall int64) bool {
	const years = 10 * 365 * 24 * time.Hour // no clock is set further
	n := w[numGC] & 0xffffffff
	return n > 0 && w[numGC]>>32 <= n && time.Duration(int64(w[lastUnix])-wall).Abs() < years &&
		w[pauseEnd+(n-1)%mostKept] == w[lastUnix] && w[lastNano] > 0 && w[lastNano] <= uint64(now)
}
