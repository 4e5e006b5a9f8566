//go:build linux

package guard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

const (
	// heldFor is how long what was left alone for now is left alone.
	heldFor = 5 * time.Second

	// mostNamed is how many programs are named.
	mostNamed = 3
)

var (
	errNotBegun  = errors.New("it was not begun")
	errForbidden = errors.New("the policy does not allow it any more")
	errOthers    = errors.New("the same address is another machine on another interface: cut it by hand")
)

// occurrence is a finding each time that it comes, or all times that it flaps.
type occurrence struct {
	id    string
	times int
}

// flaps is the occurrence of what comes and goes.
const flaps = 0

func (o occurrence) is(f *state.Finding) bool {
	return f.ID == o.id && (f.Times == o.times || o.times == flaps && f.Flapping)
}

// attempt is what was made of one.
type attempt struct {
	over bool // it is not tried again
	why  string
	next time.Time
}

// followFindings cuts what findings ask for, one after the other, until ctx ends.
func (g *Guard) followFindings(ctx context.Context) {
	tried := make(map[occurrence]attempt)
	for seq := uint64(0); ; {
		s, err := g.options.Agent.Wait(ctx, seq)
		if err != nil {
			return
		}
		seq = s.Seq
		for i := range s.Findings {
			if f := g.current(s.Findings[i].ID); f != nil {
				g.consider(ctx, f, tried)
			}
		}
		s = g.options.Agent.State() // a cut takes its time, and what was tried may be newer than its beginning
		for o := range tried {
			if !slices.ContainsFunc(s.Findings, func(f state.Finding) bool { return o.is(&f) }) {
				delete(tried, o)
			}
		}
	}
}

// current is the finding as it is now, nil when it is over.
func (g *Guard) current(id string) *state.Finding {
	s := g.options.Agent.State()
	i := slices.IndexFunc(s.Findings, func(f state.Finding) bool { return f.ID == id && f.Resolved == nil })
	if i < 0 {
		return nil
	}
	return &s.Findings[i]
}

// consider cuts the connections that a finding is about, when the policy says so,
// it stands by itself, is sure, and was not dealt with yet.
func (g *Guard) consider(ctx context.Context, f *state.Finding, tried map[occurrence]attempt) {
	p := g.policy.Load()
	if !mayCut(p, f) || f.Cause != "" || ctx.Err() != nil {
		return
	}
	if f.Flapping {
		if key := (occurrence{f.ID, flaps}); !tried[key].over {
			tried[key] = attempt{over: true}
			g.leave(state.Act{Act: "cut", By: "policy", Why: f.ID, Target: f.Title, Left: f.Count},
				fmt.Sprintf("left alone: it comes and goes, %d times so far; by hand: lifeline cut --peer %s --while-silent --yes", f.Times, peerOf(f)))
		}
		return
	}
	key := occurrence{f.ID, f.Times}
	was := tried[key]
	if was.over || time.Now().Before(was.next) {
		return
	}
	now := attempt{next: time.Now().Add(heldFor)}
	now.over, now.why = g.cutFor(ctx, p, f, was.why)
	tried[key] = now
}

func mayCut(p *policy.Policy, f *state.Finding) bool {
	return p.Cut != nil && f.Severity == verdict.Fail && slices.Contains(p.Cut.On, f.Code)
}

// cutFor cuts for a finding. It is over unless it is to be tried again later;
// what was said before is not said again.
func (g *Guard) cutFor(ctx context.Context, p *policy.Policy, f *state.Finding, said string) (over bool, why string) {
	t, err := g.aim(ctx, p, f)
	if err == nil && len(t.sockets) == 0 {
		return true, "" // whom it was about is gone, or not watched
	}
	if err == nil {
		err = t.ownLink(ctx)
	}
	if err != nil {
		if why = "left alone: " + err.Error(); why != said && ctx.Err() == nil {
			g.leave(state.Act{Act: "cut", By: "policy", Why: f.ID, Target: f.Title, Left: f.Count}, why)
		}
		return errors.Is(err, errOthers), why
	}
	err = g.cut(ctx, t, state.Act{By: "policy", Why: f.ID}, nil)
	if err != nil {
		why = err.Error()
	}
	return !errors.Is(err, errNotBegun) && !errors.Is(err, errForbidden), why
}

// target is what a finding is about, as one look shows it.
type target struct {
	policy  *policy.Policy // by which it was chosen
	finding *state.Finding
	peer    netip.Addr
	netns   uint32
	m       *fact.Machine
	sockets []*fact.Socket // may be cut
	since   time.Time      // of the silence: a sign of life after it is one
	rate    act.Rate
}

// aim finds the connections that a finding is about, of those that the policy
// lets the agent touch.
func (g *Guard) aim(ctx context.Context, p *policy.Policy, f *state.Finding) (*target, error) {
	t := &target{policy: p, finding: f, since: silentSince(f), rate: act.Rate(p.Cut.PerSecond)}
	var err error
	if t.peer, err = netip.ParseAddr(peerOf(f)); err != nil {
		return t, fmt.Errorf("it is not about one peer: cut it by hand")
	}
	netns, _ := f.Subject.Get("netns")
	if _, err := fmt.Sscan(fmt.Sprint(netns), &t.netns); err != nil {
		return t, fmt.Errorf("it names no network namespace: cut it by hand")
	}
	n := node.New()
	defer n.Close()
	if t.m, err = n.Look(ctx, node.Want{Sockets: sockdiag.Want{TCP: true}, Namespaces: g.options.Of}); err != nil {
		return t, err
	}
	var interfaces []uint32
	for _, s := range act.Select(t.m, census.Filter{Peer: netip.PrefixFrom(t.peer, t.peer.BitLen())}, g.self) {
		if s.Netns != t.netns || !touches(p, t.m, s) {
			continue
		}
		if t.sockets = append(t.sockets, s); !slices.Contains(interfaces, s.Interface) && t.peer.IsLinkLocalUnicast() {
			interfaces = append(interfaces, s.Interface)
		}
	}
	if len(interfaces) > 1 {
		return t, errOthers
	}
	return t, nil
}

// touches says whether the policy lets the agent touch a socket: one that somebody
// holds whose name is not known only where it names no process.
func touches(p *policy.Policy, m *fact.Machine, s *fact.Socket) bool {
	if len(s.Owners) == 0 {
		return touchesProcess(p, s, "")
	}
	return !slices.ContainsFunc(s.Owners, func(o fact.Owner) bool { return !touchesProcess(p, s, nameOf(m, o.PID)) })
}

func touchesProcess(p *policy.Policy, s *fact.Socket, name string) bool {
	if name == "" && len(p.Watch.Processes)+len(p.Ignore.Processes) > 0 {
		return false
	}
	return p.Watches(s.Remote.Addr(), name)
}

// forbidden returns an error when the policy in force by now does not let the agent
// cut all of what is left.
func (g *Guard) forbidden(t *target, left []*fact.Socket) error {
	p := g.policy.Load()
	if p == t.policy {
		return nil
	}
	if !mayCut(p, t.finding) || slices.ContainsFunc(left, func(s *fact.Socket) bool { return !touches(p, t.m, s) }) {
		return errForbidden
	}
	return nil
}

func nameOf(m *fact.Machine, pid int32) string {
	if p := m.Process(pid); p != nil {
		return p.Name
	}
	return ""
}

// peerOf is the one peer that a finding is about, "" when it is about none, or
// about the clients of a port that come and go.
func peerOf(f *state.Finding) string {
	if _, clients := f.Subject.Get("port"); clients {
		return ""
	}
	v, _ := f.Subject.Get("peer")
	text, _ := v.(string)
	return text
}

// silentSince is a moment in the silence that a finding tells of. The last sign of
// life came before it, even if the finding was told late.
func silentSince(f *state.Finding) time.Time {
	const least = 200 * time.Millisecond
	quiet, _ := f.Evidence.Get("last_ack_seconds")
	seconds, _ := quiet.(float64)
	return f.Last.Add(-max(time.Duration(seconds*float64(time.Second))/2, least))
}

// ownLink returns an error when it may be this machine that is cut off.
func (t *target) ownLink(ctx context.Context) error {
	silent := verdict.Peer{Netns: t.netns, Addr: t.peer}
	for _, s := range t.sockets {
		if t.peer.IsLinkLocalUnicast() {
			silent.Interface = s.Interface
		}
		if s.Conn == nil || s.State == fact.SynSent {
			continue
		}
		if quiet := s.Conn.Heard(); !silent.Quiet.OK || quiet < silent.Quiet.Value {
			silent.Quiet = fact.Seen(quiet)
		}
	}
	heard, others := verdict.Others(t.m, &silent)
	if heard || len(others) == 0 || node.AnyAnswers(ctx, t.m, others) {
		return nil
	}
	return node.ErrOwnLink
}

// inWords says what a cut would touch.
func (t *target) inWords() string {
	count := make(map[string]int)
	for _, s := range t.sockets {
		for _, o := range s.Owners {
			if name := nameOf(t.m, o.PID); name != "" {
				count[name]++
				break
			}
		}
	}
	names := make([]string, 0, len(count))
	for name := range count {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if count[a] != count[b] {
			return count[b] - count[a]
		}
		return strings.Compare(a, b)
	})
	text := fmt.Sprintf("%s to %s", connections(len(t.sockets)), t.peer)
	if len(names) == 0 {
		return text
	}
	if left := len(names) - mostNamed; left > 0 {
		names = append(names[:mostNamed], fmt.Sprintf("%d others", left))
	}
	return fact.Printable(text + " of " + strings.Join(names, ", "))
}

func connections(n int) string {
	if n == 1 {
		return "1 connection"
	}
	return verdict.Number(n) + " connections"
}

// cut cuts, as the act a, and calls shown, if it is not nil, with how it stands. The
// error is what stopped it; what came of it is written down.
func (g *Guard) cut(ctx context.Context, t *target, a state.Act, shown func(state.Act)) error {
	select {
	case g.cutting <- struct{}{}:
		defer func() { <-g.cutting }()
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errNotBegun, context.Cause(ctx))
	}
	if shown == nil {
		shown = func(state.Act) {}
	}
	a.Act, a.Target, a.Left = "cut", t.inWords(), len(t.sockets)
	a, err := g.begin(a)
	shown(a)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotBegun, err)
	}
	still := act.StillSilent(t.m, t.since)
	start := time.Now()
	report, stopped := act.Cut(ctx, t.m, t.sockets, act.CutOptions{Rate: t.rate,
		Before: func(ctx context.Context, left []*fact.Socket) error {
			if err := g.forbidden(t, left); err != nil {
				return err
			}
			return still(ctx, left)
		},
		After: func(r act.CutReport) {
			a.Done, a.Left = len(r.Cut), len(r.Left)
			shown(a)
			g.progress(a)
		}})
	a.Done, a.Left = len(report.Cut), len(report.Left)
	text, failed := came(&report, time.Since(start), stopped)
	shown(g.end(a, text, failed))
	return stopped
}

// came is what came of a cut, in words.
func came(r *act.CutReport, took time.Duration, stopped error) (text string, err error) {
	text = fmt.Sprintf("%s cut in %s", connections(len(r.Cut)), bound.Format(took))
	if n := len(r.Gone); n > 0 {
		text += fmt.Sprintf(", %s gone before", verdict.Number(n))
	}
	if n := len(r.Failed); n > 0 {
		text += fmt.Sprintf(", %s failed", verdict.Number(n))
		err = r.Failed[0].Err
	}
	if stopped != nil {
		text += fmt.Sprintf("; stopped, %s left alone", verdict.Number(len(r.Left)))
		err = stopped
	}
	return text, err
}
