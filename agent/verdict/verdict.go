// Package verdict says what facts mean: rules that judge one look at a machine
// and return findings. It is pure: no I/O, no clock (the time is a fact), so
// every rule is tested by scenarios in testdata, written as text.
//
// A finding of severity Fail must be earned: on a healthy busy machine there is
// none. What was not seen accuses nobody.
package verdict

//go:generate go run ./gen

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Rule is one thing that Lifeline looks for. Its text is the documentation:
// docs/findings.md is made from it.
type Rule struct {
	Code    string
	Promise Promise
	Title   string
	Worst   Severity // no finding of this rule is more severe
	Sees    []string // the sources it needs, as fact.Blind names them
	Meaning string   // what it says, when it is raised, and the reasons for its thresholds
	Wrong   string   // how it can be wrong, or miss something
	Watch   bool     // it judges what a [LeakWatch] saw over time: [JudgeSites] applies it, and no look alone
	Fix     []string // what to do; findings put their own PEER, PID, LIMIT and MAX in

	judge func(*view) []Finding
}

// Rules are all rules, by promise and code.
var Rules = []Rule{
	silentNameserver,
	hiddenSource,
	refusedEDNS,
	onlyTCP,
	failingPrograms,
	lostOnGo,
	neverAAAA,
	splitDNS,
	stuckSystem,
	unresolved,
	cutOff,
	unansweredCall,
	hungGoroutine,
	silentPeer,
	longSilence,
	keepAliveOff,
	oneLostProbe,
	conntrackFull,
	fileLimit,
	idleCrowd,
	closeWait,
	leakingCode,
}

// Judge applies every rule to one look at a machine and returns what they
// found: the most severe first, then by promise, code and weight. It only reads
// m. No finding is an empty list. The same facts give the same list.
func Judge(m *fact.Machine) []Finding {
	if m == nil {
		return []Finding{}
	}
	return Read(m).Judge()
}

// Reading is a look with the groupings that all questions about it need, made
// once: who asks several of them reads it first. The facts must not change
// meanwhile. It is for one goroutine.
type Reading struct {
	view  *view
	peers []Peer // nil before they were asked for
}

// Read makes a Reading of a look, which must not be nil.
func Read(m *fact.Machine) *Reading { return &Reading{view: newView(m)} }

// Judge is what the function [Judge] returns.
func (r *Reading) Judge() []Finding { return judgeBy(r.view, Rules...) }

// Peers is what the function [Peers] returns. It must not be changed.
func (r *Reading) Peers() []Peer {
	if r.peers == nil {
		r.peers = r.view.describeAll()
	}
	return r.peers
}

// Unanswered is what the function [Unanswered] returns.
func (r *Reading) Unanswered(least time.Duration) []Waiting { return r.view.waitingFor(least) }

func judgeBy(v *view, rules ...Rule) []Finding {
	findings := []Finding{}
	for i := range rules {
		rule := &rules[i]
		for _, f := range rule.judge(v) {
			f.Code, f.Promise = rule.Code, rule.Promise
			f.Severity = min(f.Severity, rule.Worst)
			f.Fix = filled(rule.Fix, f.fill)
			// Names come from anybody on the machine, and titles go to terminals.
			f.Title, f.Why = fact.Printable(f.Title), fact.Printable(f.Why)
			findings = append(findings, f)
		}
	}
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(b.Severity, a.Severity),
			cmp.Compare(a.Promise, b.Promise),
			cmp.Compare(a.Code, b.Code),
			cmp.Compare(b.weight, a.weight),
		)
	})
	return findings
}

// filled is the rule's advice with the finding's own values in it.
func filled(fix, pairs []string) []string {
	replace := strings.NewReplacer(pairs...)
	own := make([]string, len(fix))
	for i := range fix {
		own[i] = replace.Replace(fix[i])
	}
	return own
}

// apart splits groups, largest first, into those that get a finding each and
// those that share one, so that a machine with 5,000 peers does not print 5,000
// findings. One alone is never folded away.
func apart[T any](groups []T, most int) (each, folded []T) {
	if len(groups) <= most+1 {
		return groups, nil
	}
	return groups[:most], groups[most:]
}

// byWeight sorts the heaviest first and keeps the order of equals, so that
// output does not depend on the iteration order of a map.
func byWeight[T any](groups []T, weight func(T) int) {
	slices.SortStableFunc(groups, func(a, b T) int { return cmp.Compare(weight(b), weight(a)) })
}
