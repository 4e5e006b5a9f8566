package history

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
)

// seriesKey is a series: groups by what they are of, totals by name.
type seriesKey struct {
	total string
	state.Series
}

func (k *seriesKey) hash() int64 {
	h := fnv.New64a()
	for _, part := range []string{k.total, k.Program, k.Unit, k.Peer, k.Port} {
		_, _ = h.Write([]byte(part))
		_, _ = h.Write([]byte{0})
	}
	return int64(h.Sum64())
}

// part is groups or totals of a record. Once the record is written it is never
// changed, so that the next may share it.
type part struct {
	ids    map[seriesKey]int64
	values values
}

type findingKey struct {
	id    string
	first int64
}

// writtenFinding is what decides whether a finding is written again.
type writtenFinding struct {
	last     int64
	resolved bool
	severity string
	count    int
}

// Add writes a record. When it returns nil the record is on the disk. An error
// says what could not be written and why, and nothing that was written before is
// lost; the next Add tries again. ctx bounds the work between two writes, not a
// disk that does not answer.
//
// A record that is not later than the one before it, because the clock went
// back, begins a new segment; where two segments tell of the same time, the one
// that began later counts.
func (s *Store) Add(ctx context.Context, r Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.ready()
	if err == nil {
		err = s.write(ctx, &r)
	}
	if damaged(err) {
		// The file went bad under the agent. What can be saved of it is in the file
		// that was moved aside; this record begins the next.
		if err = cmp.Or(s.moveAside(), s.ready()); err == nil {
			err = s.write(ctx, &r)
		}
	}
	if err == nil {
		s.lost = 0
		return nil
	}
	if s.lost++; s.lost == 1 {
		s.lostFrom = r.Time
	}
	s.lostWhy = err.Error()
	s.segment = 0
	return fmt.Errorf("history: %d records from %s on, of %d groups and %d findings now, could not be written: %w",
		s.lost, s.lostFrom.Format(time.DateTime), len(r.Groups), len(r.Findings), err)
}

// ready opens the file again when it is not open, or is not the one any more that
// the path leads to: whoever removes it begins a new one.
func (s *Store) ready() error {
	if s.db != nil {
		if info, err := os.Stat(s.path); err == nil && os.SameFile(info, s.file) {
			return nil
		}
		if err := s.disconnect(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return err
	}
	return s.connect()
}

func (s *Store) write(ctx context.Context, r *Record) (err error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tx.Rollback() // which fails after a commit that failed
		}
	}()
	w := writer{Store: s, tx: tx, same: !r.Totals.Looked.IsZero() && r.Totals.Looked.Equal(s.looked)}
	if err := w.begin(ctx, r); err != nil {
		return err
	}
	groups, totals, err := w.parts(ctx, r)
	if err != nil {
		return err
	}
	at, data := r.Time.UnixMilli(), w.frame(groups, totals)
	w.size += int64(len(data))
	if _, err := tx.ExecContext(ctx, "INSERT INTO frame (id, time, data) VALUES (?, ?, ?)", w.segment<<frameBits|w.frames, at, data); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "UPDATE segment SET last = ?, frames = ? WHERE id = ?", at, w.frames+1, w.segment); err != nil {
		return err
	}
	written, err := w.findings(ctx, r)
	if err != nil {
		return err
	}
	if err := w.prune(ctx, r.Time); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	s.segment, s.frames, s.size, s.last = w.segment, w.frames+1, w.size, r.Time
	s.groups, s.totals, s.looked, s.written = groups, totals, r.Totals.Looked, written
	return nil
}

// frameBits of the number of a frame are its place in the segment, the rest is
// the segment's number: frames of a segment lie side by side without an index.
const frameBits = 16

// writer is one transaction. Nothing of the Store changes before it is done.
type writer struct {
	*Store
	tx      *sql.Tx
	segment int64
	frames  int64
	size    int64
	same    bool // the census of the record before

	find, insert *sql.Stmt // once there is something to find; tx closes them
}

// begin finds the segment, or begins one.
func (w *writer) begin(ctx context.Context, r *Record) error {
	w.segment, w.frames, w.size = w.Store.segment, w.Store.frames, w.Store.size
	if w.segment != 0 && w.frames < mostFrames && w.size < w.options.MaxBytes/16 && r.Time.UnixMilli() > w.last.UnixMilli() && r.Time.Sub(w.last) <= Recorded {
		return nil
	}
	note := ""
	if w.lost > 0 {
		note = fmt.Sprintf("%d records from %s on could not be written: %s", w.lost, w.lostFrom.Format(time.DateTime), w.lostWhy)
		note = note[:min(len(note), 500)]
	}
	w.frames, w.size = 0, 0
	at := r.Time.UnixMilli()
	result, err := w.tx.ExecContext(ctx, "INSERT INTO segment (first, last, frames, note) VALUES (?, ?, 0, ?)", at, at, note)
	if err != nil {
		return err
	}
	w.segment, err = result.LastInsertId()
	return err
}

// parts numbers the groups and totals of a record. Groups of the census before
// are those of the record before, and nothing is done for them.
func (w *writer) parts(ctx context.Context, r *Record) (groups, totals part, err error) {
	if groups = w.groups; !w.same {
		n := numbering{writer: w, before: w.groups.ids, part: newPart(len(r.Groups))}
		for _, g := range fold(r.Groups) {
			if g.Count >= 0 {
				n.add(ctx, seriesKey{Series: short(g.Series)}, int64(g.Count))
			}
		}
		if groups = n.part; n.err != nil {
			return groups, totals, n.err
		}
	}
	n := numbering{writer: w, before: w.totals.ids, part: newPart(mostTotals)}
	eachTotal(r, func(name string, v int64) { n.add(ctx, seriesKey{total: clip(name)}, v) })
	if totals, err = n.part, n.err; err != nil || w.frames > 0 {
		return groups, totals, err
	}
	for _, p := range []part{groups, totals} { // the segment needs them all, and no older one alone may keep them
		if _, err := w.tx.ExecContext(ctx, "UPDATE series SET segment = ? WHERE id IN (SELECT value FROM json_each(?))", w.segment, list(p.values)); err != nil {
			return groups, totals, err
		}
	}
	return groups, totals, nil
}

// frame is what leads from the record before to this one.
func (w *writer) frame(groups, totals part) []byte {
	switch {
	case w.frames == 0:
		return encode(changes(changes(nil, nil, groups.values), nil, totals.values))
	case w.same:
		return encode(changes(nil, w.totals.values, totals.values))
	}
	return encode(changes(changes(nil, w.groups.values, groups.values), w.totals.values, totals.values))
}

// numbering makes a part.
type numbering struct {
	*writer
	before map[seriesKey]int64 // numbers of the record before
	part   part
	err    error // the first; after it nothing is added
}

func newPart(size int) part {
	return part{make(map[seriesKey]int64, size), make(values, size)}
}

func (n *numbering) add(ctx context.Context, key seriesKey, count int64) {
	id, known := n.part.ids[key]
	if !known && n.err == nil {
		if id, known = n.before[key]; !known {
			id, n.err = n.id(ctx, &key)
		}
	}
	if n.err != nil {
		return
	}
	n.part.ids[key] = id
	if n.part.values[id] == 0 {
		n.part.values[id] = 1
	}
	n.part.values[id] += count
}

func list(v values) string {
	text, first := []byte{'['}, true
	for id := range v {
		if !first {
			text = append(text, ',')
		}
		text, first = fmt.Append(text, id), false
	}
	return string(append(text, ']'))
}

// fold keeps the largest groups, always the same of those that are equal, and
// makes one of the rest.
func fold(groups []state.Group) []state.Group {
	if len(groups) <= mostGroups {
		return groups
	}
	groups = slices.Clone(groups)
	slices.SortFunc(groups, func(a, b state.Group) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), compareSeries(&a.Series, &b.Series))
	})
	rest := state.Group{Series: state.Series{Peer: Others}}
	for _, g := range groups[mostGroups:] {
		rest.Count += g.Count
	}
	return append(groups[:mostGroups], rest)
}

func compareSeries(a, b *state.Series) int {
	return cmp.Or(cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Program, b.Program), cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Port, b.Port))
}

func short(s state.Series) state.Series {
	return state.Series{Program: clip(s.Program), Unit: clip(s.Unit), Peer: clip(s.Peer), Port: clip(s.Port)}
}

func clip(text string) string { return text[:min(len(text), mostText)] }

// id is the number of a series that the record before did not have.
func (w *writer) id(ctx context.Context, key *seriesKey) (id int64, err error) {
	if w.find == nil {
		if w.find, err = w.tx.PrepareContext(ctx, "SELECT id FROM series WHERE hash = ? AND total = ? AND program = ? AND unit = ? AND peer = ? AND port = ?"); err != nil {
			return 0, err
		}
		if w.insert, err = w.tx.PrepareContext(ctx, "INSERT INTO series (hash, segment, total, program, unit, peer, port) VALUES (?, ?, ?, ?, ?, ?, ?)"); err != nil {
			return 0, err
		}
	}
	hash := key.hash()
	err = w.find.QueryRowContext(ctx, hash, key.total, key.Program, key.Unit, key.Peer, key.Port).Scan(&id)
	switch {
	case err == nil:
		_, err = w.tx.ExecContext(ctx, "UPDATE series SET segment = ? WHERE id = ? AND segment <> ?", w.segment, id, w.segment)
	case errors.Is(err, sql.ErrNoRows):
		var result sql.Result
		if result, err = w.insert.ExecContext(ctx, hash, w.segment, key.total, key.Program, key.Unit, key.Peer, key.Port); err == nil {
			id, err = result.LastInsertId()
			w.size += 2 * mostText
		}
	}
	return id, err
}

// findings writes those that are new or ended, whose severity or count changed,
// and the others once a minute.
func (w *writer) findings(ctx context.Context, r *Record) (map[findingKey]writtenFinding, error) {
	written := make(map[findingKey]writtenFinding)
	for i := range r.Findings[:min(len(r.Findings), mostFindings)] {
		f := &r.Findings[i]
		key := findingKey{clip(f.ID), f.First.UnixMilli()}
		is := writtenFinding{last: f.Last.UnixMilli(), resolved: f.Resolved != nil, severity: fmt.Sprint(f.Severity), count: f.Count}
		was, known := w.written[key]
		if ago := time.Duration(is.last-was.last) * time.Millisecond; known && ago.Abs() < Recorded { // the clock may have gone back
			if as := was; as.resolved == is.resolved && as.severity == is.severity && as.count == is.count {
				written[key] = was
				continue
			}
		}
		doc, err := json.Marshal(f.Finding)
		if err != nil {
			return nil, err
		}
		var resolved *int64
		if f.Resolved != nil {
			ms := f.Resolved.UnixMilli()
			resolved = &ms
		}
		if _, err := w.tx.ExecContext(ctx, `INSERT OR REPLACE INTO finding (id, first, last, resolved, code, severity, title, count, cause, doc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			key.id, key.first, is.last, resolved, f.Code, is.severity, f.Title, f.Count, f.Cause, doc); err != nil {
			return nil, err
		}
		written[key] = is
	}
	return written, nil
}

// settled is how many records a segment has before anything is too old, a quarter
// of an hour: a clock that was wrong for a while must not decide that.
const settled = 90

// prune drops what is too old, at most one segment each time, and what is too
// much.
func (w *writer) prune(ctx context.Context, now time.Time) error {
	keep := w.options.Keep.Milliseconds()
	var old int64
	if w.frames < settled {
		return w.shrink(ctx)
	}
	err := w.tx.QueryRowContext(ctx, "SELECT id FROM segment WHERE (last < ? OR first > ?) AND id <> ? ORDER BY id LIMIT 1",
		now.UnixMilli()-keep, now.UnixMilli()+keep, w.segment).Scan(&old)
	if err == nil {
		err = w.drop(ctx, old)
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return w.shrink(ctx)
}

// shrink drops the oldest until the file is within its bound.
func (w *writer) shrink(ctx context.Context) error {
	for {
		var old int64
		over, err := w.over(ctx)
		if err != nil || !over {
			return err
		}
		err = w.tx.QueryRowContext(ctx, "SELECT id FROM segment WHERE id <> ? ORDER BY id LIMIT 1", w.segment).Scan(&old)
		if errors.Is(err, sql.ErrNoRows) { // one segment alone is far below: it is the findings
			result, err := w.tx.ExecContext(ctx, "DELETE FROM finding WHERE rowid IN (SELECT rowid FROM finding ORDER BY last LIMIT 1000)")
			if err != nil {
				return err
			}
			if n, err := result.RowsAffected(); n == 0 {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := w.drop(ctx, old); err != nil {
			return err
		}
	}
}

// over reports that the file takes more than it may.
func (w *writer) over(ctx context.Context) (bool, error) {
	var pages, free, size int64
	err := w.tx.QueryRowContext(ctx, "SELECT page_count, freelist_count, page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size").Scan(&pages, &free, &size)
	return (pages-free)*size > w.options.MaxBytes-2*w.options.wal(), err
}

// drop removes a segment, the series and the findings that nothing after it has.
func (w *writer) drop(ctx context.Context, segment int64) error {
	for _, q := range []struct {
		text string
		args []any
	}{
		{"DELETE FROM frame WHERE id >= ? AND id < ?", []any{segment << frameBits, (segment + 1) << frameBits}},
		{"DELETE FROM segment WHERE id = ?", []any{segment}},
		{"DELETE FROM series WHERE segment < (SELECT min(id) FROM segment)", nil},
		{"DELETE FROM finding WHERE last < (SELECT min(first) FROM segment)", nil},
		{"PRAGMA incremental_vacuum(256)", nil},
	} {
		if _, err := w.tx.ExecContext(ctx, q.text, q.args...); err != nil {
			return err
		}
	}
	return nil
}
