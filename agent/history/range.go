package history

import (
	"context"
	"database/sql"
	"errors"
	"net/netip"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
)

// MostPoints is how many steps Range returns at most: with more it takes longer ones.
const MostPoints = 2000

// Range returns how many connections the filter's series had together, or how a
// total changed, in steps from from to to, of ten seconds or more; 0 chooses some
// 500 steps. A step in which nothing was written has no count.
func (r *Reader) Range(ctx context.Context, f state.Filter, from, to time.Time, step time.Duration) (line state.TimeLine, err error) {
	if !from.Before(to) {
		return line, errors.New("a time line runs from a time to a later one")
	}
	if step <= 0 {
		step = to.Sub(from) / 500
	}
	step = max(step, (to.Sub(from)+MostPoints-1)/MostPoints, 10*time.Second)
	line = state.TimeLine{From: from, To: to, Step: step.Seconds()}
	for t := from; t.Before(to); t = t.Add(step) {
		line.Points = append(line.Points, state.Point{Time: t})
	}
	err = r.view(ctx, func(v *view) error {
		l := tracer{TimeLine: line, step: step, measure: inMillionths(f.Total)}
		if err := v.matching(ctx, &f, func(id int64) { l.of.put(id).asked = true }); err != nil {
			return err
		}
		return v.each(ctx, func(rows *sql.Rows) error {
			var id, ms int64
			var data sql.RawBytes
			if err := rows.Scan(&id, &ms, &data); err != nil {
				return err
			}
			return l.add(id>>frameBits, time.UnixMilli(ms), data)
		}, `SELECT frame.id, time, data FROM segment JOIN frame ON frame.id >= segment.id << ? AND frame.id < (segment.id + 1) << ?
			WHERE segment.first < ? AND segment.last >= ? ORDER BY frame.id`, frameBits, frameBits, to.UnixMilli(), from.UnixMilli())
	})
	return line, err
}

// matching yields the numbers of the series.
func (v *view) matching(ctx context.Context, f *state.Filter, yield func(id int64)) error {
	peer := clip(f.Peer)
	network, err := netip.ParsePrefix(peer)
	if err == nil {
		peer = ""
	}
	return v.each(ctx, func(rows *sql.Rows) error {
		var id int64
		var of string
		if err := rows.Scan(&id, &of); err != nil {
			return err
		}
		addr, err := netip.ParseAddr(of)
		if !network.IsValid() || err == nil && network.Contains(addr.WithZone("").Unmap()) {
			yield(id)
		}
		return nil
	}, `SELECT id, peer FROM series WHERE total = ?1 AND (?2 = '' OR program = ?2) AND (?3 = '' OR unit = ?3) AND (?4 = '' OR peer = ?4) AND (?5 = '' OR port = ?5)`,
		clip(f.Total), clip(f.Program), clip(f.Unit), peer, clip(f.Port))
}

// tracer is a time line that is being read.
type tracer struct {
	state.TimeLine
	step    time.Duration
	of      paged[traced]
	measure bool // what is not there is unknown, not 0

	segment int64
	there   []*traced // those that were in a record of the segment
	count   int       // those that are there now
	sum     int64
}

// traced is a series.
type traced struct {
	now   int64 // its value
	asked bool  // it matches
	there bool  // it is in the list
}

// add takes the next frame.
func (l *tracer) add(segment int64, at time.Time, data []byte) error {
	if segment != l.segment {
		l.segment, l.sum, l.count = segment, 0, 0
		for _, one := range l.there {
			one.now, one.there = 0, false
		}
		l.there = l.there[:0]
	}
	err := walk(data, func(id, change int64) {
		one := l.of.find(id)
		if one == nil || !one.asked {
			return
		}
		was := one.now
		one.now += change
		l.sum += max(0, one.now-1) - max(0, was-1)
		l.count += truth(one.now != 0) - truth(was != 0)
		if !one.there {
			one.there, l.there = true, append(l.there, one)
		}
	})
	if err != nil || at.Before(l.From) || !at.Before(l.To) || l.measure && l.count == 0 {
		return err
	}
	n := float64(l.sum)
	if l.measure {
		n /= millionth
	}
	p := &l.Points[at.Sub(l.From)/l.step]
	if p.Count == nil {
		least, most := n, n
		p.Least, p.Most = &least, &most
	}
	*p.Least, *p.Most = min(*p.Least, n), max(*p.Most, n)
	p.Count = &n
	return nil
}
