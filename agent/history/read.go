package history

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
)

// Reader reads a history, also while an agent writes it. Its methods may be
// called by several goroutines.
type Reader struct {
	path string
	mu   sync.Mutex
	db   *sql.DB
}

// Read opens the history at path for reading. It writes nothing into it.
func Read(ctx context.Context, path string) (*Reader, error) {
	if err := readable(path); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", dsn(path, "ro"))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(2)
	if err := ping(ctx, db); err != nil {
		return nil, errors.Join(fmt.Errorf("history %s: %w", path, err), db.Close())
	}
	r := &Reader{path: path}
	r.set(db)
	return r, nil
}

// readable says what SQLite would say in words that do not help.
func readable(path string) error {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no history at %s: lifeline agent writes one; --history names another file", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("history: %w: only the user that runs the agent may read it, root as a rule", err)
	case err != nil:
		return fmt.Errorf("history: %w", err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > 0 && !isSQLite(path) {
		return fmt.Errorf("history %s: it is something else: name the file that lifeline agent writes", path)
	}
	return nil
}

func (r *Reader) set(db *sql.DB) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.db = db
}

// Close closes the file.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.db.Close()
}

// view runs f on the history as it is at one moment.
func (r *Reader) view(ctx context.Context, f func(*view) error) error {
	r.mu.Lock()
	db := r.db
	r.mu.Unlock()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("history %s: %w", r.path, err)
	}
	defer tx.Rollback() //nolint:errcheck // there is nothing to undo
	if err := f(&view{tx}); err != nil {
		var early *state.BeforeError
		if errors.As(err, &early) || ctx.Err() != nil {
			return err
		}
		return fmt.Errorf("history %s: %w", r.path, err)
	}
	return nil
}

// At returns the census at t: the last record at or before it. It is a
// [state.BeforeError] when there is none.
func (r *Reader) At(ctx context.Context, t time.Time) (past state.Past, err error) {
	err = r.view(ctx, func(v *view) error {
		past, err = v.at(ctx, t)
		return err
	})
	return past, err
}

// Diff returns what changed from one moment to another, by peer. It begins with the
// first record when the history does not reach back to from, but to to.
func (r *Reader) Diff(ctx context.Context, from, to time.Time) (d state.Difference, err error) {
	err = r.view(ctx, func(v *view) error {
		before, after, err := v.both(ctx, from, to)
		if err != nil {
			return err
		}
		d = difference(&before, &after)
		d.Findings, err = v.findings(ctx, from, to)
		return err
	})
	return d, err
}

// Findings returns those that were open at any time between the two, the first
// thousand of them.
func (r *Reader) Findings(ctx context.Context, from, to time.Time) (list []state.PastFinding, err error) {
	err = r.view(ctx, func(v *view) error {
		list, err = v.findings(ctx, from, to)
		return err
	})
	return list, err
}

// Span returns what the history holds.
func (r *Reader) Span(ctx context.Context) (s state.Span, err error) {
	err = r.view(ctx, func(v *view) error {
		var first, last sql.NullInt64
		if err := v.tx.QueryRowContext(ctx, `SELECT min(first), max(last), total(frames),
			(SELECT page_count * page_size FROM pragma_page_count, pragma_page_size) FROM segment`).Scan(&first, &last, &s.Records, &s.Bytes); err != nil {
			return err
		}
		if first.Valid {
			from, to := time.UnixMilli(first.Int64), time.UnixMilli(last.Int64)
			s.First, s.Last = &from, &to
		}
		return nil
	})
	return s, err
}

// view is a history at one moment.
type view struct {
	tx *sql.Tx
}

// each runs f for every row.
func (v *view) each(ctx context.Context, f func(*sql.Rows) error, query string, args ...any) error {
	rows, err := v.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (v *view) at(ctx context.Context, t time.Time) (state.Past, error) {
	past := state.Past{Moment: state.Moment{Asked: t}, Groups: []state.Group{}}
	var segment int64
	// Of those that tell of that time the one that was written last; else the one
	// that ended last before it.
	err := v.tx.QueryRowContext(ctx, `SELECT id FROM segment WHERE first <= ?1 ORDER BY last + ?2 >= ?1 DESC,
		iif(last + ?2 >= ?1, id, last) DESC, id DESC LIMIT 1`, t.UnixMilli(), Recorded.Milliseconds()).Scan(&segment)
	if errors.Is(err, sql.ErrNoRows) {
		return past, v.before(ctx, t)
	}
	if err != nil {
		return past, err
	}
	now, next := values{}, sql.NullInt64{}
	err = v.each(ctx, func(rows *sql.Rows) error {
		var ms int64
		var data sql.RawBytes
		if err := rows.Scan(&ms, &data); err != nil {
			return err
		}
		past.Time = time.UnixMilli(ms)
		return now.apply(data)
	}, "SELECT time, data FROM frame WHERE id >= ? AND id < ? AND time <= ? ORDER BY id", segment<<frameBits, (segment+1)<<frameBits, t.UnixMilli())
	if err != nil {
		return past, err
	}
	err = v.tx.QueryRowContext(ctx, `SELECT min(t) FROM (SELECT min(time) AS t FROM frame WHERE id >= ? AND id < ? AND time > ?
		UNION ALL SELECT min(first) FROM segment WHERE first > ?)`, segment<<frameBits, (segment+1)<<frameBits, t.UnixMilli(), t.UnixMilli()).Scan(&next)
	if err != nil {
		return past, err
	}
	end := t
	if next.Valid {
		end = time.UnixMilli(next.Int64)
		past.Next = &end
	}
	past.Gap = end.Sub(past.Time) > Recorded && t.After(past.Time)
	if past.Gap && next.Valid {
		if err := v.tx.QueryRowContext(ctx, "SELECT note FROM segment WHERE first = ?", next.Int64).Scan(&past.Note); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return past, err
		}
	}
	return past, v.name(ctx, now, &past)
}

// both returns the censuses of two moments, of the first record in place of an
// earlier moment.
func (v *view) both(ctx context.Context, from, to time.Time) (before, after state.Past, err error) {
	before, err = v.at(ctx, from)
	if early := new(state.BeforeError); errors.As(err, &early) && !early.Begin.IsZero() && early.Begin.Before(to) {
		if before, err = v.at(ctx, early.Begin); err == nil {
			before.Asked = from
		}
	}
	if err == nil {
		after, err = v.at(ctx, to)
	}
	return before, after, err
}

func (v *view) before(ctx context.Context, t time.Time) error {
	var first sql.NullInt64
	if err := v.tx.QueryRowContext(ctx, "SELECT min(first) FROM segment").Scan(&first); err != nil {
		return err
	}
	e := &state.BeforeError{Asked: t}
	if first.Valid {
		e.Begin = time.UnixMilli(first.Int64)
	}
	return e
}

// name turns numbers into groups and totals.
func (v *view) name(ctx context.Context, now values, past *state.Past) error {
	past.Totals = state.Totals{Families: map[string]int{}, TCP: map[string]int{}}
	err := v.each(ctx, func(rows *sql.Rows) error {
		var id int64
		var k seriesKey
		if err := rows.Scan(&id, &k.total, &k.Program, &k.Unit, &k.Peer, &k.Port); err != nil {
			return err
		}
		if k.total != "" {
			setTotal(&past.Totals, past.Time, k.total, now[id]-1)
			return nil
		}
		past.Groups = append(past.Groups, state.Group{Series: k.Series, Count: int(now[id] - 1)})
		past.Count += int(now[id] - 1)
		past.All++
		return nil
	}, "SELECT id, total, program, unit, peer, port FROM series WHERE id IN (SELECT value FROM json_each(?))", list(now))
	slices.SortFunc(past.Groups, func(a, b state.Group) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), compareSeries(&a.Series, &b.Series))
	})
	return err
}

func (v *view) findings(ctx context.Context, from, to time.Time) ([]state.PastFinding, error) {
	list := []state.PastFinding{}
	err := v.each(ctx, func(rows *sql.Rows) error {
		var f state.PastFinding
		var first, last int64
		var resolved sql.NullInt64
		var doc []byte
		if err := rows.Scan(&f.ID, &first, &last, &resolved, &f.Code, &f.Severity, &f.Title, &f.Count, &f.Cause, &doc); err != nil {
			return err
		}
		f.First, f.Last, f.Finding = time.UnixMilli(first), time.UnixMilli(last), doc
		if resolved.Valid {
			end := time.UnixMilli(resolved.Int64)
			f.Resolved = &end
		}
		list = append(list, f)
		return nil
	}, `SELECT id, first, last, resolved, code, severity, title, count, cause, doc FROM finding
		WHERE min(first, last) <= ? AND max(first, coalesce(resolved, last + ?)) >= ? ORDER BY first, id LIMIT ?`, to.UnixMilli(), Recorded.Milliseconds(), from.UnixMilli(), mostFindings)
	return list, err
}

// difference compares two censuses by peer.
func difference(before, after *state.Past) state.Difference {
	d := state.Difference{From: before.Moment, To: after.Moment, Before: before.Count, After: after.Count, Came: []state.Change{}, Went: []state.Change{}, Grew: []state.Change{}, Shrank: []state.Change{}}
	peers, programs := make(map[string]*state.Change), make(map[string]map[string]bool)
	of := func(g *state.Group) *state.Change {
		c := peers[g.Peer]
		if c == nil {
			c = &state.Change{Peer: g.Peer}
			peers[g.Peer], programs[g.Peer] = c, make(map[string]bool)
		}
		if g.Count > 0 {
			programs[g.Peer][g.Program] = true
		}
		return c
	}
	for i := range before.Groups {
		of(&before.Groups[i]).From += before.Groups[i].Count
	}
	for i := range after.Groups {
		of(&after.Groups[i]).To += after.Groups[i].Count
	}
	for peer, c := range peers {
		c.Programs = slices.Sorted(maps.Keys(programs[peer]))
		switch {
		case c.From == c.To:
			d.Same++
		case c.From == 0:
			d.Came = append(d.Came, *c)
		case c.To == 0:
			d.Went = append(d.Went, *c)
		case c.From < c.To:
			d.Grew = append(d.Grew, *c)
		default:
			d.Shrank = append(d.Shrank, *c)
		}
	}
	for _, list := range [][]state.Change{d.Came, d.Went, d.Grew, d.Shrank} {
		slices.SortFunc(list, func(a, b state.Change) int {
			return cmp.Or(cmp.Compare(max(b.To-b.From, b.From-b.To), max(a.To-a.From, a.From-a.To)), cmp.Compare(a.Peer, b.Peer))
		})
	}
	return d
}
