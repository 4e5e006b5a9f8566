package history

import (
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
)

// Totals are series too: each number of them by its name in JSON. Fractions, rates
// and seconds are kept in millionths.

const (
	mostTotals = 64
	millionth  = 1e6
	took       = "census_seconds"
	looked     = "looked" // how long before its record the census was, in ms
)

// numbers are the whole numbers of totals by name.
func numbers(t *state.Totals) map[string]*int {
	return map[string]*int{"sockets": &t.Sockets, "processes": &t.Processes, "namespaces": &t.Namespaces, "peers": &t.Peers, "links": &t.Links, "sites": &t.Sites}
}

// measures are the numbers that may be unknown.
func measures(t *state.Totals) map[string]**float64 {
	return map[string]**float64{"opened_per_second": &t.Opened, "resets_per_second": &t.Resets, "resent_per_second": &t.Resent,
		"conntrack_fraction": &t.Conntrack, "file_limit_fraction": &t.Files}
}

// inMillionths reports a total that is no whole number, and may be unknown.
func inMillionths(name string) bool { return name == took || measures(new(state.Totals))[name] != nil }

// eachTotal yields the totals of a record that are known, and not below 0.
func eachTotal(r *Record, yield func(name string, v int64)) {
	t := r.Totals
	for name, n := range numbers(&t) {
		yield(name, int64(max(0, *n)))
	}
	for name, m := range measures(&t) {
		if *m != nil && **m >= 0 && **m < 1e12 {
			yield(name, int64(**m*millionth+0.5))
		}
	}
	left := mostTotals - 16
	for prefix, counts := range map[string]map[string]int{"family/": t.Families, "tcp/": t.TCP} {
		for name, n := range counts {
			if left--; left > 0 {
				yield(prefix+name, int64(max(0, n)))
			}
		}
	}
	if t.Took >= 0 && t.Took < 1e6 {
		yield(took, int64(t.Took*millionth))
	}
	if ago := r.Time.Sub(t.Looked); ago >= 0 && ago < 24*time.Hour {
		yield(looked, ago.Milliseconds())
	}
}

// setTotal is the other way.
func setTotal(t *state.Totals, at time.Time, name string, v int64) {
	if n := numbers(t)[name]; n != nil {
		*n = int(v)
		return
	}
	if m := measures(t)[name]; m != nil {
		f := float64(v) / millionth
		*m = &f
		return
	}
	switch prefix, rest, _ := strings.Cut(name, "/"); prefix {
	case "family":
		t.Families[rest] = int(v)
	case "tcp":
		t.TCP[rest] = int(v)
	case took:
		t.Took = float64(v) / millionth
	case looked:
		t.Looked = at.Add(-time.Duration(v) * time.Millisecond)
	}
}
