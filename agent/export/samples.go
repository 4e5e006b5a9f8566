package export

import (
	"maps"
	"slices"
	"strings"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// other is the label for what is in none of the lists that bound a label.
const other = "other"

// mostSources bounds the label source; there are about ten.
const mostSources = 32

func (s sampler) agent(now *state.State) {
	a := &now.Agent
	s.set("lifeline_build_info", 1, strings.ToValidUTF8(a.Version, "?"))
	s.moment("lifeline_start_time_seconds", a.Started)
	s.moment("lifeline_state_timestamp_seconds", now.Time)
	s.set("lifeline_acts_allowed", float64(len(a.Policy.Acts)))
	s.set("lifeline_policy_valid", one(a.Policy.Error == ""))
	if a.Policy.Path != "" {
		s.moment("lifeline_policy_loaded_timestamp_seconds", a.Policy.Loaded)
	}
	if a.History != "" {
		s.set("lifeline_history_written", one(a.NotStored == ""))
	}
}

// acts adds all acts and outcomes that there are, also those that did not come
// yet, so that the first is seen as an increase.
func (s sampler) acts(all []state.Tally) {
	type key struct{ act, outcome string }
	count, connections := make(map[key]int), make(map[string]int)
	for _, act := range acts {
		connections[act] = 0
		for _, outcome := range outcomes {
			count[key{act, outcome}] = 0
		}
	}
	for _, t := range all {
		act, outcome := t.Act, string(t.Outcome)
		if !slices.Contains(acts, act) {
			act = other
		}
		if !slices.Contains(outcomes, outcome) {
			outcome = other
		}
		count[key{act, outcome}] += t.Count
		connections[act] += t.Connections
	}
	for k, n := range count {
		s.set("lifeline_acts_total", float64(n), k.act, k.outcome)
	}
	for act, n := range connections {
		s.set("lifeline_act_connections_total", float64(n), act)
	}
}

// key is what findings are counted by.
type key struct {
	promise  verdict.Promise
	code     string
	severity verdict.Severity
}

func (s sampler) promises(now *state.State) {
	looked := make(map[verdict.Promise]bool)
	for i := range now.Promises {
		p := &now.Promises[i]
		if _, twice := looked[p.Promise]; twice {
			continue
		}
		looked[p.Promise] = p.Status != state.Unknown
		for _, status := range []state.Status{state.Kept, state.Warned, state.Broken, state.Unknown} {
			s.set("lifeline_promise_status", one(p.Status == status), p.Promise.String(), string(status))
		}
		if p.Looked != nil {
			s.moment("lifeline_promise_looked_timestamp_seconds", *p.Looked, p.Promise.String())
		}
	}
	s.findings(now.Findings, looked)
}

// findings counts open findings. Each rule has a sample for each severity that
// it may have, also when there is none, so that a query need not know what was
// there before; but not where nobody could look.
func (s sampler) findings(all []state.Finding, looked map[verdict.Promise]bool) {
	found, connections := make(map[key]int), make(map[key]int)
	hidden, flapping := make(map[verdict.Promise]int), make(map[verdict.Promise]int)
	promiseOf := make(map[string]verdict.Promise, len(verdict.Rules))
	for i := range verdict.Rules {
		rule := &verdict.Rules[i]
		promiseOf[rule.Code] = rule.Promise
		if looked[rule.Promise] {
			connections[key{rule.Promise, rule.Code, 0}] = 0
			for severity := verdict.Info; severity <= rule.Worst; severity++ {
				found[key{rule.Promise, rule.Code, severity}] = 0
			}
		}
	}
	for promise, seen := range looked {
		if seen {
			hidden[promise], flapping[promise] = 0, 0
		}
	}
	for i := range all {
		f := &all[i]
		if f.Resolved != nil || f.Promise > verdict.Leaks {
			continue
		}
		code := f.Code
		if promise, ok := promiseOf[code]; !ok || promise != f.Promise {
			code = other
		}
		if f.Flapping {
			flapping[f.Promise]++
		}
		if f.Cause != "" {
			hidden[f.Promise]++
			continue
		}
		found[key{f.Promise, code, min(f.Severity, verdict.Fail)}]++
		connections[key{f.Promise, code, 0}] += f.Count
	}
	for k, n := range found {
		s.set("lifeline_findings", float64(n), k.promise.String(), k.code, k.severity.String())
	}
	for k, n := range connections {
		s.set("lifeline_finding_connections", float64(n), k.promise.String(), k.code)
	}
	for promise, n := range hidden {
		s.set("lifeline_findings_hidden", float64(n), promise.String())
	}
	for promise, n := range flapping {
		s.set("lifeline_findings_flapping", float64(n), promise.String())
	}
}

// totals adds nothing before the first census: zero sockets would be a lie.
func (s sampler) totals(t *state.Totals) {
	if t.Looked.IsZero() {
		return
	}
	for family, n := range bounded(t.Families, families) {
		s.set("lifeline_sockets", float64(n), family)
	}
	for name, n := range bounded(t.TCP, tcpStates) {
		s.set("lifeline_tcp_sockets", float64(n), name)
	}
	s.set("lifeline_processes", float64(t.Processes))
	s.set("lifeline_namespaces", float64(t.Namespaces))
	s.set("lifeline_peers", float64(t.Peers))
	s.set("lifeline_links", float64(t.Links))
	s.set("lifeline_leak_sites", float64(t.Sites))
	s.known("lifeline_opened_connections_per_second", t.Opened)
	s.known("lifeline_resets_per_second", t.Resets)
	s.known("lifeline_retransmitted_segments_per_second", t.Resent)
	s.known("lifeline_conntrack_used_ratio", t.Conntrack)
	s.known("lifeline_file_limit_used_ratio", t.Files)
	s.moment("lifeline_census_timestamp_seconds", t.Looked)
	s.set("lifeline_census_duration_seconds", t.Took)
}

// lists adds what the State has one by one: peers and the like. Each list is
// bounded and has the worst first, so a sum over it is of the worst.
func (s sampler) lists(now *state.State) {
	if !now.Totals.Looked.IsZero() {
		peers, connections := 0, 0
		for i := range now.Peers {
			if now.Peers[i].Verdict == "silent" {
				peers, connections = peers+1, connections+now.Peers[i].Count
			}
		}
		s.set("lifeline_silent_peers", float64(peers))
		s.set("lifeline_silent_connections", float64(connections))
	}
	if seen(now, verdict.Leaks) {
		leaked := 0
		for i := range now.Leaks {
			if now.Leaks[i].Verdict == "leak" {
				leaked += now.Leaks[i].Open
			}
		}
		s.set("lifeline_leaked_sockets", float64(leaked))
	}
	if seen(now, verdict.Calls) {
		waiting, oldest := 0, 0.0
		for i := range now.Calls {
			waiting, oldest = waiting+now.Calls[i].Count, max(oldest, now.Calls[i].Since)
		}
		s.set("lifeline_unanswered_requests", float64(waiting))
		s.set("lifeline_unanswered_oldest_seconds", oldest)
	}
	if n := now.Names; n != nil {
		silent := 0
		for i := range n.Servers {
			if ok := n.Servers[i].OK; ok != nil && !*ok {
				silent++
			}
		}
		failing := 0
		for i := range n.Names {
			if slices.ContainsFunc(n.Names[i].Ways, func(w state.Way) bool { return !w.OK }) {
				failing++
			}
		}
		s.set("lifeline_nameservers", float64(len(n.Servers)))
		s.set("lifeline_nameservers_silent", float64(silent))
		s.set("lifeline_names_watched", float64(len(n.Names)))
		s.set("lifeline_names_failing", float64(failing))
	}
}

// seen says whether somebody could look whether a promise is kept.
func seen(now *state.State, promise verdict.Promise) bool {
	return slices.ContainsFunc(now.Promises, func(p state.Promise) bool {
		return p.Promise == promise && p.Status != state.Unknown
	})
}

func (s sampler) sources(now *state.State) {
	seen := make(map[string]bool)
	for i := range now.Sources {
		src := &now.Sources[i]
		name := strings.ToValidUTF8(src.Name, "?")
		if src.Off != "" || seen[name] || len(seen) == mostSources {
			continue
		}
		seen[name] = true
		if src.Last != nil || src.Error != "" || src.Late { // else its first look is under way
			s.set("lifeline_source_up", one(src.Error == "" && !src.Late), name)
		}
		if src.Last != nil {
			s.moment("lifeline_source_last_success_timestamp_seconds", *src.Last, name)
		}
		s.known("lifeline_source_duration_seconds", src.Took, name)
	}
	blind := make(map[string]int)
	for i := range now.Blind {
		name := strings.ToValidUTF8(now.Blind[i].Source, "?")
		if _, ok := blind[name]; !ok && len(blind) >= mostSources {
			name = other
		}
		blind[name]++
	}
	for name, n := range blind {
		s.set("lifeline_blind_spots", float64(n), name)
	}
}

// These are all values of labels, with other.
var (
	acts      = []string{"cut", "tune", "evac"}
	outcomes  = []string{string(state.Whole), string(state.Partly), string(state.Failed), string(state.LeftAlone)}
	families  = []string{fact.IPv4.String(), fact.IPv6.String(), fact.Unix.String()}
	tcpStates = namesOfStates()
)

func namesOfStates() (names []string) {
	for st := fact.Established; st <= fact.NewSynRecv; st++ {
		if name := label(st.String()); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// label writes a name as labels have it: close_wait for CLOSE_WAIT and
// close-wait.
func label(name string) string { return strings.ReplaceAll(strings.ToLower(name), "-", "_") }

// bounded sums counts by label; what is not in the list is other. All of the
// list are there, since a census that met none counted none.
func bounded(counts map[string]int, list []string) map[string]int {
	sum := make(map[string]int)
	for _, name := range list {
		sum[name] = 0
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		at := label(name)
		if !slices.Contains(list, at) {
			at = other
		}
		sum[at] += counts[name]
	}
	return sum
}
