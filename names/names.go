package names

import (
	"context"
	"net/netip"
	"slices"
	"sync"
)

// Way is one way to look a name up.
//
// Lookup returns the addresses of host, in the order in which they should be
// tried, or the reason why there are none: a [*net.DNSError] with IsNotFound
// where the way knows that there are none, and any other error where it could
// not find out. Network is "ip", "ip4" or "ip6"; host is as the user wrote it,
// with or without a dot at its end, and never an address. Lookup returns soon
// after ctx is done, and leaves nothing behind. It is called from many
// goroutines at a time.
//
// Name says which way it is, such as "getaddrinfo" or "udp 10.0.0.53".
type Way interface {
	Name() string
	Lookup(ctx context.Context, network, host string) ([]netip.Addr, error)
}

var registered struct {
	sync.Mutex
	ways []Way
}

// Register adds a way that speaks for the operating system: what it says is
// what every program says that asks the C library. Packages that bring one call
// it where they are imported, as drivers of database/sql do; every [Resolver]
// asks it then. A way with the name of one that is registered takes its place.
func Register(way Way) {
	registered.Lock()
	defer registered.Unlock()
	ways := slices.Clone(registered.ways) // whoever has the old list keeps it
	if i := slices.IndexFunc(ways, func(w Way) bool { return w.Name() == way.Name() }); i >= 0 {
		ways[i] = way
	} else {
		ways = append(ways, way)
	}
	registered.ways = ways
}

// Registered returns the ways that were given to [Register].
func Registered() []Way {
	registered.Lock()
	defer registered.Unlock()
	return slices.Clip(registered.ways)
}
