// Package names resolves names as the operating system would, within a bound,
// in programs that are built without cgo too.
//
// Such a program has Go's own resolver, which reads resolv.conf and asks the
// servers in it, and nothing else. Where names are known to the operating system
// by other means (a VPN's resolver, systemd-resolved, mDNS, LDAP) it does not
// find them, and where a server of resolv.conf is dead it waits 5 s for it, in
// every lookup.
//
//	defer names.Install()() // net.DefaultResolver, and with it net/http and all else
//
// or, for one lookup that says where its answer comes from:
//
//	answer, err := names.Default.Lookup(ctx, "ip", "db.corp.example")
package names
