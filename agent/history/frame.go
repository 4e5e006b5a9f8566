package history

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"slices"
)

// A frame is the difference between two records: for each series whose value
// changed, in the order of their numbers, how far its number is from the one
// before, and the change, both as varints. A value is the count plus one, and 0
// is a series that is not there, so that a count of 0 and no count at all are
// told apart. The first frame of a segment is the difference from nothing.

// mostValues is how many series a record may have: mostGroups, those that were
// folded, and the totals.
const mostValues = mostGroups + 1 + mostTotals

// values are the series of a record by their numbers.
type values map[int64]int64

var errFrame = errors.New("a record of the history makes no sense")

// change is how a series differs between two records.
type change struct{ id, by int64 }

// changes adds to list how to differs from from.
func changes(list []change, from, to values) []change {
	for id, v := range to {
		if from[id] != v {
			list = append(list, change{id, v - from[id]})
		}
	}
	for id, v := range from {
		if _, stays := to[id]; !stays {
			list = append(list, change{id, -v})
		}
	}
	return list
}

// encode returns the frame that makes these changes.
func encode(list []change) []byte {
	slices.SortFunc(list, func(a, b change) int { return cmp.Compare(a.id, b.id) })
	data, last := make([]byte, 0, 3*len(list)), int64(0)
	for _, c := range list {
		data = binary.AppendUvarint(data, uint64(c.id-last))
		data = binary.AppendVarint(data, c.by)
		last = c.id
	}
	return data
}

// walk calls yield with each change of a frame. What makes no sense is an
// error, and what came before it has been yielded.
func walk(data []byte, yield func(id, change int64)) error {
	id := int64(0)
	for count := 0; len(data) > 0; count++ {
		gap, n := binary.Uvarint(data)
		if n <= 0 || gap == 0 || gap > math.MaxInt64-uint64(id) || count == 2*mostValues {
			return errFrame
		}
		change, m := binary.Varint(data[n:])
		if m <= 0 {
			return errFrame
		}
		id += int64(gap)
		yield(id, change)
		data = data[n+m:]
	}
	return nil
}

// apply changes v by a frame. After an error v is of no use.
func (v values) apply(data []byte) error {
	bad := false
	err := walk(data, func(id, change int64) {
		was := v[id]
		now := was + change
		switch {
		case now < 0 || change > 0 && now < was:
			bad = true
		case now == 0:
			delete(v, id)
		default:
			v[id] = now
		}
	})
	if err != nil || bad || len(v) > mostValues {
		return errFrame
	}
	return nil
}
