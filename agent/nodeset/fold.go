package nodeset

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Fold writes names in the short form: what differs in numbers only becomes
// one term. [Parse] of it gives the same names. The terms are in the order of
// their first names.
func Fold(names []string) string {
	shapes := make(map[string]*shape)
	var order []*shape
	for _, name := range names {
		dims := split(name)
		key := shapeOf(dims)
		s := shapes[key]
		if s == nil {
			s = &shape{}
			shapes[key] = s
			order = append(order, s)
		}
		s.terms = append(s.terms, dims)
	}
	var all []string
	for _, s := range order {
		for i := len(s.terms[0]) - 1; i >= 0; i-- {
			if s.terms[0][i].number {
				s.terms = merge(s.terms, i)
			}
		}
		for _, t := range s.terms {
			all = append(all, t.String())
		}
	}
	return strings.Join(all, ",")
}

// shape is names that differ in numbers at most.
type shape struct{ terms []term }

// A term is the parts of a name: text, and numbers that may be several.
type term []part

type part struct {
	number bool
	values []string
}

func (t term) String() string {
	var b strings.Builder
	for _, p := range t {
		b.WriteString(p.String())
	}
	return b.String()
}

func (p part) String() string {
	if len(p.values) == 1 {
		return p.values[0]
	}
	return "[" + ranges(p.values) + "]"
}

// split cuts a name where digits begin and end. A name with brackets is an
// address, and stays whole.
func split(name string) (t term) {
	if strings.ContainsAny(name, "[]") {
		return term{{values: []string{name}}}
	}
	for name != "" {
		n := 0
		for n < len(name) && isDigit(name[n]) == isDigit(name[0]) {
			n++
		}
		t = append(t, part{number: isNumber(name[:n]), values: []string{name[:n]}})
		name = name[n:]
	}
	return t
}

func shapeOf(t term) string {
	var b strings.Builder
	for _, p := range t {
		if p.number {
			b.WriteByte('[')
		} else {
			b.WriteString(p.values[0])
		}
	}
	return b.String()
}

// merge makes one of all terms that differ in their i-th part only.
func merge(terms []term, i int) (merged []term) {
	rests := make(map[string]int)
	for _, t := range terms {
		rest := t[:i].String() + "\x00" + t[i+1:].String()
		if at, there := rests[rest]; there {
			merged[at][i].values = append(merged[at][i].values, t[i].values...)
			continue
		}
		rests[rest] = len(merged)
		merged = append(merged, t)
	}
	for _, t := range merged {
		slices.SortFunc(t[i].values, byNumber)
		t[i].values = slices.Compact(t[i].values)
	}
	return merged
}

// byNumber sorts what has zeros in front behind the same number without.
func byNumber(a, b string) int {
	m, _ := strconv.Atoi(a)
	n, _ := strconv.Atoi(b)
	return cmp.Or(cmp.Compare(m, n), cmp.Compare(len(a), len(b)))
}

// ranges writes sorted numbers with what follows one another joined.
func ranges(values []string) string {
	var b strings.Builder
	for i := 0; i < len(values); {
		first, _ := strconv.Atoi(values[i])
		width := widthOf(values[i])
		n := 1
		for i+n < len(values) && values[i+n] == pad(first+n, width) {
			n++
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(values[i])
		if n > 1 {
			b.WriteByte('-')
			b.WriteString(values[i+n-1])
		}
		i += n
	}
	return b.String()
}
