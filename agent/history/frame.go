package history

import (
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

// encode returns the frame that leads from one record to the next.
func encode(from, to values) []byte {
	var changed []int64
	for id, v := range to {
		if from[id] != v {
			changed = append(changed, id)
		}
	}
	for id := range from {
		if _, stays := to[id]; !stays {
			changed = append(changed, id)
		}
	}
	slices.Sort(changed)
	data, last := make([]byte, 0, 3*len(changed)), int64(0)
	for _, id := range changed {
		data = binary.AppendUvarint(data, uint64(id-last))
		data = binary.AppendVarint(data, to[id]-from[id])
		last = id
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
