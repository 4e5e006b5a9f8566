// Package policy reads the agent's policy file: what it watches, what it leaves
// out, which acts it may do by itself, and where it tells of findings. It is
// pure: bytes in, a [Policy] or errors with line numbers out.
//
// A whole file, every key of which may be left out:
//
//	watch:                       # nothing = everything
//	  peers: [10.0.0.0/8]
//	  processes: [ws-server]
//	  names: [api.example.com]   # asked for again and again, in every way
//	ignore:
//	  peers: [10.9.0.0/16]
//	  processes: [backup]
//	  codes: [S003]
//	acts:                        # nothing = the agent only watches
//	  cut: {on: [S001], per_second: 500}
//	  tune:
//	    - {cgroup: system.slice/ws.service, within: 6s}
//	  evac: {on: shutdown, within: 25s, only: [10.48.0.0/14]}
//	webhook: http://127.0.0.1:9093/api/v2/alerts
package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/verdict"
)

// Policy is what the agent was told. The zero Policy, that of an empty file and
// of none, watches everything and acts on nothing.
type Policy struct {
	Watch   Scope
	Names   []string // looked up again and again in every way; empty = none
	Ignore  Scope
	Codes   []string // of findings that are left out, such as S003
	Cut     *Cut     // nil = cuts nothing
	Tune    []Tune   // empty = tunes nothing
	Evac    *Evac    // nil = resets nothing
	Webhook string   // URL of an Alertmanager's API of version 2, /api/v2/alerts; "" = none
}

// Scope is a choice of connections. Both lists are alternatives to each other:
// a connection is in it when its peer or its process is.
type Scope struct {
	Peers     []netip.Prefix
	Processes []string // names, as in /proc/PID/comm
}

// Cut allows cut by itself: connections to the peer that a finding is about.
type Cut struct {
	On        []string // codes of the findings, of severity fail, that it acts on; never empty
	PerSecond int      // connections; 0 = the pace of act.DefaultRate
}

// Tune allows tune by itself: keepalive of the connections of a cgroup.
type Tune struct {
	Cgroup string        // directory, or path as in /proc/PID/cgroup
	Within time.Duration // how soon a silent peer is to be noticed; 0 = as lifeline tune does
}

// Evac allows evac by itself, when the machine is about to go.
type Evac struct {
	Within time.Duration  // spread over this time; 0 = at once, at the pace of evac
	Only   []netip.Prefix // flows with an end in one of these networks; empty = all
}

// Watches says whether a connection is one that the policy lets the agent look
// at, and so one that it may act on. Peer is the zero Addr and process "" where
// they are not known: what is not known is watched, and not ignored.
func (p *Policy) Watches(peer netip.Addr, process string) bool {
	if p.Ignore.has(peer, process) {
		return false
	}
	unknown := !peer.IsValid() && len(p.Watch.Peers) > 0 || process == "" && len(p.Watch.Processes) > 0
	return p.Watch.empty() || unknown || p.Watch.has(peer, process)
}

// Ignores says whether a finding is to be left out: by its code, or because the
// one peer or the one process that it is about is not watched. A finding about
// several is left out by its code only: the peers and processes that it names
// need not be all.
func (p *Policy) Ignores(f *verdict.Finding) bool {
	if slices.Contains(p.Codes, f.Code) {
		return true
	}
	peer, process := netip.Addr{}, ""
	if v, _ := f.Subject.Get("peer"); v != nil {
		peer = peerOf(fmt.Sprint(v))
	}
	if v, _ := f.Subject.Get("process"); v != nil {
		process = fmt.Sprint(v)
	}
	return !p.Watches(peer, process)
}

// peerOf reads an address, with or without a port; it is the zero Addr for what is
// none, such as the path of a unix socket.
func peerOf(text string) netip.Addr {
	if at, err := netip.ParseAddrPort(text); err == nil {
		return at.Addr()
	}
	addr, _ := netip.ParseAddr(text)
	return addr
}

// Acts says in words what may run by itself, as state.Policy has it. It is
// empty, not nil, when nothing may.
func (p *Policy) Acts() []string {
	acts := []string{}
	if p.Cut != nil {
		text := "cut on " + strings.Join(p.Cut.On, ", ")
		if p.Cut.PerSecond > 0 {
			text += fmt.Sprintf(", %d connections a second", p.Cut.PerSecond)
		}
		acts = append(acts, text)
	}
	for _, t := range p.Tune {
		text := "tune " + t.Cgroup
		if t.Within > 0 {
			text += fmt.Sprintf(" within %v", t.Within)
		}
		acts = append(acts, text)
	}
	if p.Evac != nil {
		text := "evac on shutdown"
		if p.Evac.Within > 0 {
			text += fmt.Sprintf(" within %v", p.Evac.Within)
		}
		acts = append(acts, text)
	}
	return acts
}

func (s *Scope) empty() bool { return len(s.Peers) == 0 && len(s.Processes) == 0 }

func (s *Scope) has(peer netip.Addr, process string) bool {
	peer = peer.Unmap().WithZone("") // networks have no zone
	return slices.ContainsFunc(s.Peers, func(n netip.Prefix) bool { return n.Contains(peer) }) ||
		process != "" && slices.Contains(s.Processes, process)
}
