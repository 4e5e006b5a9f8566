package verdict

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

const (
	// A finding that went flapTimes times within flapWindow says the same thing
	// again and again: a peer at the edge of a threshold, a nameserver that
	// answers every other question. It is held open until it neither came nor went
	// for flapRest. Three times in ten minutes is more than a restart with one
	// relapse makes, and whatever changes less often can be read as it comes; five
	// minutes are longer than the gaps between three ends in ten minutes are on
	// average, so that a finding at that pace stays held.
	flapTimes  = 3
	flapWindow = 10 * time.Minute
	flapRest   = 5 * time.Minute

	// rememberFor is how long a finding that is over is still listed, and how long
	// one that comes back is the same one.
	rememberFor = time.Hour

	// mostLives bounds memory: a few hundred bytes each, some 10 MB in all.
	mostLives = 10_000
)

// Life is a finding over time.
type Life struct {
	Finding            // as it was told last; by several sources, the most severe
	ID       string    // what the finding is about, see [Identity]
	First    time.Time // when it was first told
	Last     time.Time // when it was last told
	Resolved fact.Known[time.Time]
	Times    int    // how often it came: 1, and more when it came back
	Flapping bool   // it comes and goes, and is held open until it rests
	Cause    string // ID of the finding that explains it, itself explained by none; "" = none does
	Hides    int    // how many findings have this one as their Cause
	Count    int    // of its subject: connections, or what else its title counts; 0 = it counts nothing
}

// Lives follows findings from look to look. Sources are told apart: each has its
// own pace, and only who told a finding can end it. The zero Lives has seen
// nothing. It is not safe for concurrent use.
//
// Moments with a monotonic clock reading, as time.Now has, are right when the
// wall clock jumps.
type Lives struct {
	all     map[string]*life
	dropped int
}

type life struct {
	Life
	told    map[string]Finding // by source: those that see it now
	went    []time.Time        // its latest ends, at most flapTimes
	changed time.Time          // when it last came or went
}

// Look tells what one source found, all of it: what the source told before and
// does not tell now is over as far as it goes. A look that failed tells nothing,
// so that its findings stay; a source that is no longer looked at ends with an
// empty look.
func (l *Lives) Look(now time.Time, source string, found []Finding) {
	l.settle(now)
	if l.all == nil {
		l.all = make(map[string]*life)
	}
	told := make(map[string]bool, len(found))
	for i := range found {
		id := Identity(&found[i])
		if told[id] && found[i].Severity <= l.all[id].told[source].Severity {
			continue // a look that says a thing twice means the worse
		}
		told[id] = true
		l.tell(now, source, id, found[i])
	}
	for id, a := range l.all {
		if _, did := a.told[source]; did && !told[id] {
			a.untell(now, source)
		}
	}
	l.trim()
	l.explain()
}

// List returns the findings that are open, the worst first, then those that were
// resolved within the last hour, the latest first.
func (l *Lives) List(now time.Time) []Life {
	l.settle(now)
	l.explain()
	list := make([]Life, 0, len(l.all))
	for _, a := range l.sorted() {
		list = append(list, a.Life)
	}
	return list
}

// Dropped is how many findings were forgotten because there were more than
// 10,000: those resolved longest ago, then the least.
func (l *Lives) Dropped() int { return l.dropped }

func (l *Lives) tell(now time.Time, source, id string, f Finding) {
	a := l.all[id]
	switch {
	case a == nil:
		a = &life{Life: Life{ID: id, First: now, Times: 1}, told: make(map[string]Finding, 1), changed: now}
		l.all[id] = a
	case len(a.told) == 0:
		a.Times++
		a.changed, a.Resolved = now, fact.Known[time.Time]{}
	}
	a.told[source], a.Last = f, now
	a.choose()
}

// choose takes the most severe of what sources tell; of equals, that of the
// source whose name is first.
func (a *life) choose() {
	for i, source := range slices.Sorted(maps.Keys(a.told)) {
		if f := a.told[source]; i == 0 || f.Severity > a.Severity {
			a.Finding = f
		}
	}
	a.Count = a.Finding.counted()
}

func (a *life) untell(now time.Time, source string) {
	delete(a.told, source)
	if len(a.told) > 0 {
		a.choose()
		return
	}
	a.changed = now
	a.went = append(a.went[max(0, len(a.went)-flapTimes+1):], now)
	if len(a.went) == flapTimes && now.Sub(a.went[0]) <= flapWindow {
		a.Flapping = true
	}
	if !a.Flapping {
		a.Resolved = fact.Seen(now)
	}
}

// settle lets flapping findings rest and forgets those that are over for long.
func (l *Lives) settle(now time.Time) {
	for id, a := range l.all {
		if a.Flapping && now.Sub(a.changed) >= flapRest {
			a.Flapping, a.went = false, nil
			if len(a.told) == 0 {
				a.Resolved = fact.Seen(a.changed) // it went then, and did not come back
			}
		}
		if when, over := a.Resolved.Get(); over && now.Sub(when) > rememberFor {
			delete(l.all, id)
		}
	}
}

// trim drops what List would show last.
func (l *Lives) trim() {
	if len(l.all) <= mostLives {
		return
	}
	for _, a := range l.sorted()[mostLives:] {
		delete(l.all, a.ID)
		l.dropped++
	}
}

func (l *Lives) sorted() []*life {
	return slices.SortedFunc(maps.Values(l.all), func(a, b *life) int { return order(&a.Life, &b.Life) })
}

// order is that of [Judge], open findings before those that are over, and the
// same for the same findings whatever the order they were told in.
func order(a, b *Life) int {
	switch {
	case a.Resolved.OK && b.Resolved.OK:
		if late := b.Resolved.Value.Compare(a.Resolved.Value); late != 0 {
			return late
		}
	case a.Resolved.OK:
		return 1
	case b.Resolved.OK:
		return -1
	}
	return cmp.Or(cmp.Compare(b.Severity, a.Severity), cmp.Compare(a.Promise, b.Promise), cmp.Compare(a.Code, b.Code),
		cmp.Compare(b.weight, a.weight), cmp.Compare(b.Count, a.Count), cmp.Compare(a.ID, b.ID))
}

// explain gives each open finding the root of its causes. One that is over keeps
// the cause that it had, for as long as that is known.
func (l *Lives) explain() {
	open := make([]*Life, 0, len(l.all))
	for _, a := range l.all {
		a.Hides = 0
		if !a.Resolved.OK {
			open = append(open, &a.Life)
		}
	}
	slices.SortFunc(open, order)
	findings := make([]*Finding, len(open))
	for i := range open {
		findings[i] = &open[i].Finding
	}
	for i, root := range roots(findings) {
		open[i].Cause = ""
		if root >= 0 {
			open[i].Cause = open[root].ID
		}
	}
	for _, a := range l.all {
		if cause := l.all[a.Cause]; cause != nil {
			cause.Hides++
		} else {
			a.Cause = ""
		}
	}
}
