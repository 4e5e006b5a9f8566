//go:build linux

package tune

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"slices"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/fact"
)

// UndoOptions say what to undo. The zero UndoOptions undo every tune.
type UndoOptions struct {
	Only func(*fact.Socket) bool // nil takes all
	Dir  string                  // of the file with the old options; "" means [DefaultDir]
	Way  Way
	// Reach is used instead of Way, and left open; nil means that Undo opens one.
	Reach *Reach
}

// UndoReport is what became of the connections that were tuned.
type UndoReport struct {
	Restored []*fact.Socket // every option is as it was before the first tune
	Same     []*fact.Socket // were so already: a tune was cut short before it came to them
	Changed  []*fact.Socket // their programs changed them since, so they stay as they are
	Failed   []act.Failure  // stay tuned, and known
	Gone     int            // connections that have ended
	Left     int            // in namespaces that the look did not show: they stay tuned, and known

	Way   Way
	NoBPF error // why BPF was not used; nil when it was, or was not asked for
}

// Kept counts the connections that Undo would look at: those of m that are there,
// and how many have ended or are in namespaces that m does not show. It changes
// nothing.
func Kept(m *fact.Machine, o UndoOptions) (there []*fact.Socket, elsewhere int, err error) {
	k, err := loadKept(filepath.Join(cmp.Or(o.Dir, DefaultDir), fileName))
	if err != nil {
		return nil, 0, err
	}
	jobs, gone, left := k.jobs(m, o.Only)
	for i := range jobs {
		there = append(there, jobs[i].socket)
	}
	return there, len(gone) + left, nil
}

// Undo gives connections back the options that they had before they were first
// tuned, in all namespaces that m, a look at all TCP sockets, shows. It forgets
// what it is done with. After an error it may be called again.
func Undo(ctx context.Context, m *fact.Machine, o UndoOptions) (UndoReport, error) {
	var r UndoReport
	store, err := openStore(ctx, cmp.Or(o.Dir, DefaultDir))
	if err != nil {
		return r, err
	}
	defer store.close()
	k, err := store.load()
	if err != nil {
		return r, err
	}
	jobs, gone, left := k.jobs(m, o.Only)
	r.Gone, r.Left = len(gone), left
	var failed error
	if len(jobs) > 0 {
		reach, end, err := o.Reach.orOpen(o.Way)
		if err != nil {
			return r, err
		}
		defer end()
		r.Way, r.NoBPF = reach.way, reach.noBPF
		for i := range jobs {
			jobs[i].outcome, jobs[i].err = outcomeFailed, errNotReached
		}
		failed = touchAll(m, reach.hand, jobs)
		r.sort(jobs, gone)
	}
	k.drop(func(e *entry) bool { return gone[e.Cookie] })
	return r, errors.Join(failed, store.save(k))
}

// jobs returns what restores the sockets of m that are kept, by namespace; those
// that are gone, by cookie; and how many m does not tell about.
func (k *kept) jobs(m *fact.Machine, only func(*fact.Socket) bool) (jobs []job, gone map[uint64]bool, left int) {
	sockets := make(map[uint64]*fact.Socket, len(k.Sockets))
	for i := range m.Sockets {
		if s := &m.Sockets[i]; s.Protocol == fact.TCP && k.find(s.Cookie) != nil {
			sockets[s.Cookie] = s
		}
	}
	hidden := slices.ContainsFunc(m.Blind, func(b fact.Blind) bool { return b.Source == "namespaces" || b.Source == "sockets" })
	gone = make(map[uint64]bool)
	for i := range k.Sockets {
		e := &k.Sockets[i]
		switch s := sockets[e.Cookie]; {
		case s != nil && (only == nil || only(s)):
			jobs = append(jobs, job{socket: s, wish: e.restore()})
		case s != nil:
		case m.Namespace(e.Netns) == nil && hidden:
			left++
		case only == nil:
			gone[e.Cookie] = true
		}
	}
	slices.SortStableFunc(jobs, func(a, b job) int { return cmp.Compare(a.socket.Netns, b.socket.Netns) })
	return jobs, gone, left
}

// sort puts each socket into its list, and marks in done those that need not be
// known any more.
func (r *UndoReport) sort(jobs []job, done map[uint64]bool) {
	for i := range jobs {
		j := &jobs[i]
		done[j.socket.Cookie] = true
		switch j.outcome {
		case outcomeSet:
			r.Restored = append(r.Restored, j.socket)
		case outcomeSame:
			r.Same = append(r.Same, j.socket)
		case outcomeChanged:
			r.Changed = append(r.Changed, j.socket)
		case outcomeGone, outcomeState:
			r.Gone++
		default:
			delete(done, j.socket.Cookie)
			r.Failed = append(r.Failed, act.Failure{Socket: j.socket, Err: j.failure()})
		}
	}
}
