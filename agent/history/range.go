package history

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
)

// Filter chooses series: those that are equal in all that is not "". The zero
// Filter takes all connections.
type Filter struct {
	state.Series
	Total string // one number of the totals instead: sockets, peers, tcp/ESTABLISHED, family/ipv4 …
}

// MostPoints is how many steps Range returns at most: with more it takes longer ones.
const MostPoints = 2000

// Range returns how many connections the filter's series had together, in steps
// from from to to, of ten seconds or more. A step in which nothing was written
// has no count.
func (r *Reader) Range(ctx context.Context, f Filter, from, to time.Time, step time.Duration) (points []state.Point, err error) {
	if !from.Before(to) {
		return nil, errors.New("a time line runs from a time to a later one")
	}
	if step <= 0 {
		step = to.Sub(from) / 500
	}
	step = max(step, (to.Sub(from)+MostPoints-1)/MostPoints, 10*time.Second)
	for t := from; t.Before(to); t = t.Add(step) {
		points = append(points, state.Point{Time: t})
	}
	err = r.view(ctx, func(v *view) error {
		l := line{from: from, to: to, step: step, points: points, now: values{}}
		if l.ids, err = v.matching(ctx, &f); err != nil {
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
			WHERE segment.first < ? AND segment.last >= ? ORDER BY segment.first, frame.id`, frameBits, frameBits, to.UnixMilli(), from.UnixMilli())
	})
	return points, err
}

// matching returns the numbers of the series.
func (v *view) matching(ctx context.Context, f *Filter) (map[int64]bool, error) {
	ids := make(map[int64]bool)
	err := v.each(ctx, func(rows *sql.Rows) error {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return err
		}
		ids[id] = true
		return nil
	}, `SELECT id FROM series WHERE total = ?1 AND (?2 = '' OR program = ?2) AND (?3 = '' OR unit = ?3) AND (?4 = '' OR peer = ?4) AND (?5 = '' OR port = ?5)`,
		clip(f.Total), clip(f.Program), clip(f.Unit), clip(f.Peer), clip(f.Port))
	return ids, err
}

// line is a time line that is being read.
type line struct {
	from, to time.Time
	step     time.Duration
	points   []state.Point
	ids      map[int64]bool

	segment int64
	now     values // of the series that match
	sum     int64
}

// add takes the next frame.
func (l *line) add(segment int64, at time.Time, data []byte) error {
	if segment != l.segment {
		l.segment, l.sum = segment, 0
		clear(l.now)
	}
	err := walk(data, func(id, change int64) {
		if !l.ids[id] {
			return
		}
		was := l.now[id]
		l.now[id] = was + change
		l.sum += max(0, l.now[id]-1) - max(0, was-1)
	})
	if err != nil || at.Before(l.from) || !at.Before(l.to) {
		return err
	}
	p, n := &l.points[at.Sub(l.from)/l.step], int(l.sum)
	if p.Count == nil {
		least, most := n, n
		p.Least, p.Most = &least, &most
	}
	*p.Least, *p.Most = min(*p.Least, n), max(*p.Most, n)
	p.Count = &n
	return nil
}
