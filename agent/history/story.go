package history

import (
	"cmp"
	"context"
	"database/sql"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
)

const (
	// UsualShifts is how many shifts a story tells of when nobody says otherwise.
	UsualShifts = 10

	// MostShifts is how many it tells of at most.
	MostShifts = 1000

	// mostPrograms is how many programs a shift names.
	mostPrograms = 8

	// together is how far apart in time may be what belongs together: it takes some
	// records until all connections of a program have ended.
	together = 30 * time.Second
)

// Story returns when the connections that a filter takes changed most between two
// moments, and what was found then: the largest shifts, at most so many; 0 means
// [UsualShifts], and there are [MostShifts] at most. Events that have none of a
// hundredth of the largest are left out. It begins where the history begins
// when from is before that.
func (r *Reader) Story(ctx context.Context, f state.Filter, from, to time.Time, most int) (s state.Story, err error) {
	if most <= 0 {
		most = UsualShifts
	}
	t := teller{most: min(most, MostShifts)}
	err = r.view(ctx, func(v *view) error {
		s, err = v.story(ctx, &f, from, to, &t)
		return err
	})
	return s, err
}

func (v *view) story(ctx context.Context, f *state.Filter, from, to time.Time, t *teller) (s state.Story, err error) {
	before, after, err := v.both(ctx, from, to)
	if err != nil {
		return s, err
	}
	t.from, t.to = before.Time, after.Time
	if err := v.peers(ctx, f, t); err != nil {
		return s, err
	}
	err = v.each(ctx, func(rows *sql.Rows) error {
		var id, ms int64
		var data sql.RawBytes
		if err := rows.Scan(&id, &ms, &data); err != nil {
			return err
		}
		return t.add(id>>frameBits, time.UnixMilli(ms), data)
	}, `SELECT frame.id, time, data FROM segment JOIN frame ON frame.id >= segment.id << ? AND frame.id < (segment.id + 1) << ?
		WHERE segment.first <= ? AND segment.last >= ? ORDER BY frame.id`, frameBits, frameBits, t.to.UnixMilli(), t.from.UnixMilli())
	if err != nil {
		return s, err
	}
	s = state.Story{From: before.Moment, To: after.Moment, Before: t.before, After: t.count, Events: events(t.shifts())}
	found, err := v.findings(ctx, t.from, t.to)
	s.Findings = attach(s.Events, found, f, t.from)
	return s, err
}

// peers finds whose connections count.
func (v *view) peers(ctx context.Context, f *state.Filter, t *teller) error {
	only := *f
	only.Total = ""
	if err := v.matching(ctx, &only, func(id int64) { t.of.put(id).asked = true }); err != nil {
		return err
	}
	t.peers = make(map[string]*peerNow)
	programs := make(map[string]string) // one text for all that have it
	return v.each(ctx, func(rows *sql.Rows) error {
		var id int64
		var total, peer, program string
		if err := rows.Scan(&id, &total, &peer, &program); err != nil {
			return err
		}
		if total != "" {
			t.looked = id
		}
		m := t.of.find(id)
		if m == nil || !m.asked {
			return nil
		}
		if m.peerNow = t.peers[peer]; m.peerNow == nil {
			m.peerNow = &peerNow{name: peer}
			t.peers[peer] = m.peerNow
		}
		if name, known := programs[program]; known {
			program = name
		}
		m.program, programs[program] = program, program
		return nil
	}, "SELECT id, total, peer, program FROM series WHERE total IN ('', ?)", looked)
}

// peerNow is how a peer's connections change.
type peerNow struct {
	name     string
	count    int64
	change   int64    // by the record that is being read
	programs []string // of that change
	shift    shift    // that may go on; none when Begin is zero
}

// shift has the records too, which may be later than their censuses.
type shift struct {
	state.Shift
	first, last time.Time
}

// member is a series.
type member struct {
	*peerNow
	program  string
	now, was int64 // value; that at the end of the segment before
	asked    bool  // it matches
	there    bool  // it is in the list of those that are there
}

// teller finds the largest shifts while it reads records.
type teller struct {
	from, to time.Time
	most     int
	of       paged[member]
	peers    map[string]*peerNow
	count    int // connections now
	before   int // and at from

	segment int64
	there   []*member // those that were in a record of the segment
	looked  int64     // series that says how long before its record a census was
	ago     int64     // value of that
	last    time.Time // record before; zero when there is none
	census  time.Time // of that one
	changed []*peerNow
	largest []shift
	least   int // what is no larger is not one of the largest
}

// add takes the next record.
func (t *teller) add(segment int64, at time.Time, data []byte) error {
	if at.After(t.to) {
		return nil
	}
	var gone []*member // what the segment before had, and this one may not have
	if segment != t.segment {
		t.segment, gone, t.ago = segment, t.there, 0
		t.there = make([]*member, 0, len(gone))
		for _, m := range gone {
			m.was, m.now, m.there = m.now, 0, false
		}
	}
	err := walk(data, func(id, change int64) {
		if id == t.looked {
			t.ago += change
		}
		m := t.of.find(id)
		if m == nil || m.peerNow == nil {
			return
		}
		was := m.now
		if m.was > 0 { // in the first record of a segment
			was, m.was = m.was, 0
		}
		m.now = max(0, m.now+change)
		if !m.there {
			m.there, t.there = true, append(t.there, m)
		}
		t.change(m, max(0, m.now-1)-max(0, was-1))
	})
	if err != nil {
		return err
	}
	for _, m := range gone {
		if m.was > 0 {
			t.change(m, -max(0, m.was-1))
			m.was = 0
		}
	}
	t.settle(at)
	return nil
}

func (t *teller) change(m *member, by int64) {
	if by == 0 {
		return
	}
	if len(m.programs) == 0 {
		t.changed = append(t.changed, m.peerNow)
	}
	m.peerNow.change += by
	m.programs = append(m.programs, m.program)
}

// settle ends a record: what changed begins a shift, or goes on with one.
func (t *teller) settle(at time.Time) {
	census := at.Add(-time.Duration(max(0, t.ago-1)) * time.Millisecond)
	gap := at.Sub(t.last) > Recorded
	if at.Before(t.last) { // the clock went back
		t.last, t.census = at, census
	}
	for _, p := range t.changed {
		from := p.count
		p.count += p.change
		t.count += int(p.change)
		if s := &p.shift; at.After(t.from) && !t.last.IsZero() && p.change != 0 {
			if s.Begin.IsZero() || (s.To > s.From) != (p.change > 0) || gap || s.Gap || census.Sub(s.End) > together {
				t.close(p)
				*s = shift{state.Shift{Change: state.Change{Peer: p.name, From: int(from), Programs: []string{}}, Begin: t.census, Gap: gap}, t.last, at}
			}
			s.To, s.End, s.last = int(p.count), census, at
			for _, program := range p.programs {
				if len(s.Programs) < mostPrograms && !slices.Contains(s.Programs, program) {
					s.Programs = append(s.Programs, program)
				}
			}
		}
		p.change, p.programs = 0, p.programs[:0]
	}
	t.changed = t.changed[:0]
	if t.last, t.census = at, census; !at.After(t.from) {
		t.before = t.count
	}
}

// close ends a shift and keeps it if it is one of the largest.
func (t *teller) close(p *peerNow) {
	if p.shift.Size() > t.least {
		if t.largest = append(t.largest, p.shift); len(t.largest) >= 2*t.most+100 {
			t.trim()
		}
	}
	p.shift = shift{}
}

func (t *teller) trim() {
	slices.SortFunc(t.largest, largestShift)
	if len(t.largest) >= t.most {
		t.largest = t.largest[:t.most]
		t.least = t.largest[t.most-1].Size()
	}
}

func largestShift(a, b shift) int {
	return cmp.Or(cmp.Compare(b.Size(), a.Size()), a.Begin.Compare(b.Begin), cmp.Compare(a.Peer, b.Peer))
}

// shifts ends all, and returns the largest.
func (t *teller) shifts() []shift {
	for _, p := range t.peers {
		t.close(p)
	}
	t.trim()
	return t.largest
}

// events puts together the shifts that begin and end at about the same time. Beside
// one in which 4,224 went, those in which a few did are only in the way.
func events(largest []shift) []state.Event {
	list := []state.Event{}
	for _, s := range largest {
		i := slices.IndexFunc(list, func(e state.Event) bool {
			first := e.Shifts[0]
			return s.Begin.Sub(first.Begin).Abs() <= together && s.End.Sub(first.End).Abs() <= together
		})
		if i < 0 {
			i = len(list)
			list = append(list, state.Event{Begin: s.first, End: s.last, Findings: []state.PastFinding{}})
		}
		e := &list[i]
		e.Shifts = append(e.Shifts, s.Shift)
		if s.first.Before(e.Begin) {
			e.Begin = s.first
		}
		if s.last.After(e.End) {
			e.End = s.last
		}
	}
	list = slices.DeleteFunc(list, func(e state.Event) bool { return e.Shifts[0].Size()*100 < largest[0].Size() })
	slices.SortStableFunc(list, func(a, b state.Event) int { return a.Begin.Compare(b.Begin) })
	return list
}

// attach gives each event the findings that began or ended when it did, or that
// are about one of its peers; the latter come first, of each the most severe. It
// returns the others that began or ended after from, of those that are about what
// the filter asks for.
func attach(list []state.Event, found []state.PastFinding, f *state.Filter, from time.Time) []state.PastFinding {
	others := []state.PastFinding{}
	for _, finding := range found {
		attached := false
		for i := range list {
			if e := &list[i]; belongs(&finding, e) {
				e.Findings, attached = append(e.Findings, finding), true
			}
		}
		if !attached && asked(&finding, f) && (finding.First.After(from) || finding.Resolved != nil) {
			others = append(others, finding)
		}
	}
	for i := range list {
		e := &list[i]
		slices.SortStableFunc(e.Findings, func(a, b state.PastFinding) int {
			return cmp.Or(truth(concerns(&b, e))-truth(concerns(&a, e)), cmp.Compare(gravity(b.Severity), gravity(a.Severity)))
		})
	}
	return others
}

// asked reports a finding about what a filter takes.
func asked(finding *state.PastFinding, f *state.Filter) bool {
	network, err := netip.ParsePrefix(f.Peer)
	fits := f.Peer == "" || about(finding, "peer", f.Peer)
	for _, part := range strings.Fields(finding.ID) {
		addr, is := netip.ParseAddr(strings.TrimPrefix(part, "peer="))
		fits = fits || err == nil && is == nil && network.Contains(addr)
	}
	return fits && (f.Program == "" || about(finding, "process", f.Program))
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

func gravity(severity string) int { return slices.Index([]string{"info", "warn", "fail"}, severity) }

// belongs reports a finding that began or ended when an event was, or that was open
// then and is about it.
func belongs(f *state.PastFinding, e *state.Event) bool {
	begin, end := e.Span()
	begin, end = begin.Add(-together), end.Add(together)
	near := func(t time.Time) bool { return !t.Before(begin) && !t.After(end) }
	short := end.Sub(begin) <= 6*together // else all that happens meanwhile is near
	if short && (near(f.First) || f.Resolved != nil && near(*f.Resolved)) {
		return true
	}
	last := f.Last
	if f.Resolved != nil {
		last = *f.Resolved
	}
	return !f.First.After(end) && !last.Before(begin) && concerns(f, e)
}

// concerns reports a finding that is about a peer of an event.
func concerns(f *state.PastFinding, e *state.Event) bool {
	return slices.ContainsFunc(e.Shifts, func(s state.Shift) bool { return about(f, "peer", s.Peer) })
}

// about reports that the ID of a finding names this: see verdict.Identity.
func about(f *state.PastFinding, key, value string) bool {
	return slices.Contains(strings.Fields(f.ID), key+"="+value)
}
