package node

import (
	"errors"
	"io/fs"
	"slices"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/conntrack"
	"github.com/lifeline-go/lifeline/agent/source/netns"
	"github.com/lifeline-go/lifeline/agent/source/route"
)

// Transit adds to a look what its namespaces forward: their own addresses, and
// the connection tracking tables with the flows that only pass through. What
// cannot be read is in Blind. It takes about a second for a million entries.
func Transit(m *fact.Machine) {
	m.Conntrack = nil
	for i := range m.Namespaces {
		ns := &m.Namespaces[i]
		if err := netns.Do(*ns, func() error { forwarded(m, ns); return nil }); err != nil {
			m.Blind = append(m.Blind, netns.Blindness("conntrack", err))
		}
	}
}

// forwarded reads one namespace, on a thread that is in it. One that tracks no
// connections translates none, and remembers none that it could forget.
func forwarded(m *fact.Machine, ns *fact.Namespace) {
	local, err := route.Local()
	if err != nil {
		m.Blind = append(m.Blind, fact.Blind{Source: "routes", Error: err.Error()})
	}
	ns.Local = local
	delivered, err := route.Delivered()
	if err != nil {
		m.Blind = append(m.Blind, fact.Blind{Source: "routes", Error: err.Error()})
		return // without it every flow would look as if it only passed through
	}
	table, err := conntrack.Read(ns.Inode, delivered)
	if err == nil || table.Count.OK {
		m.Conntrack = append(m.Conntrack, table)
	}
	if err == nil || errors.Is(err, errors.ErrUnsupported) && !table.Count.OK {
		return
	}
	blind := fact.Blind{Source: "conntrack", Error: err.Error()}
	if errors.Is(err, fs.ErrPermission) {
		blind.Needs = "CAP_NET_ADMIN"
	} else if errors.Is(err, errors.ErrUnsupported) {
		blind.Needs = "the kernel module nf_conntrack_netlink"
	}
	if !slices.Contains(m.Blind, blind) { // once, however many namespaces there are
		m.Blind = append(m.Blind, blind)
	}
}
