//go:build !linux

package names

import (
	"context"
	"net"
	"net/netip"
)

// system returns the ways that speak for the operating system: package net asks
// it on macOS and Windows, without cgo too.
func (r *Resolver) system(*config, plan) []Way {
	if r.System != nil {
		return r.System
	}
	return append(Registered(), systemWay{})
}

// planFor leaves all to the system, unless nameservers were named: resolv.conf
// is not how names are resolved here.
func (r *Resolver) planFor(c *config, host string) plan {
	if r.left() {
		return plan{}
	}
	return c.plan(host)
}

// left reports whether all is left to package net.
func (r *Resolver) left() bool { return r.Nameservers == nil && r.Root == "" && r.System == nil }

// systemWay is package net's resolver.
type systemWay struct{}

func (systemWay) Name() string { return "system" }

func (systemWay) Lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	addrs, err := new(net.Resolver).LookupNetIP(ctx, network, host)
	return ofNetwork("ip", addrs), err
}
