package names

import (
	"net/netip"
	"time"
)

// Health is how a way has done.
type Health struct {
	Way      string        // its name
	System   bool          // it speaks for the operating system; else it is a file, or a server that the system would ask
	Smoothed time.Duration // how long its answers take, smoothed; 0 when there was none
	Answered time.Time     // when it last answered
	Err      error         // the last that went wrong; nil when nothing did
	Failed   time.Time     // when that was
	Dead     bool          // it does not answer, and is asked after the others until it does
}

// Ways returns how the ways of this resolver have done, in the order in which
// they are asked.
func (r *Resolver) Ways() []Health { return nil }

// Hosts returns the way that reads etc/hosts below root.
func Hosts(root string) Way { return nil }

// NSCD returns the way that asks the name service cache daemon, or NixOS's nsncd,
// by its socket below root.
func NSCD(root string) Way { return nil }

// Varlink returns the way that asks systemd-resolved by its socket below root.
func Varlink(root string) Way { return nil }

// Getent returns the way that starts getent(1), which asks the C library, for
// each lookup.
func Getent() Way { return nil }

// Server returns the way that asks one nameserver: over UDP, again without EDNS
// where the server refuses that, and over TCP where the answer is truncated.
func Server(addr netip.AddrPort) Way { return nil }
