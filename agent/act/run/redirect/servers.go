//go:build linux

package redirect

import (
	"cmp"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/agent/act/run/stub"
	"github.com/lifeline-go/lifeline/internal/dnsconf"
)

// dnsPort is the one that resolvers ask, whatever resolv.conf says.
const dnsPort = 53

const (
	resolvPath = "/etc/resolv.conf"
	resolvMax  = 1 << 20

	// lookAgain is how often resolv.conf is looked at, by programs that ask: a VPN
	// writes it anew when it comes up. Go's resolver does so each 5 s.
	lookAgain = time.Second
)

// servers are the nameservers of resolv.conf, as it is now.
type servers struct {
	path string

	mu     sync.Mutex
	looked time.Time
	file   os.FileInfo // nil when there was none
	addrs  []netip.Addr
}

// Patience is how long a question may take to be answered so that who asked
// hears of it: less than the resolver of a program waits, by resolv.conf.
func (r *Redirector) Patience() time.Duration {
	resolv := dnsconf.ParseResolv(nil)
	if text, err := readAtMost(r.resolv(), resolvMax); err == nil {
		resolv = dnsconf.ParseResolv(text)
	}
	return min(stub.Within, resolv.Timeout*4/5)
}

func (r *Redirector) resolv() string { return cmp.Or(r.Resolv, resolvPath) }

// list returns the servers in their order; the caller must not change it.
func (s *servers) list() []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.addrs == nil || now.Sub(s.looked) > lookAgain {
		s.looked = now
		s.read()
	}
	return s.addrs
}

func (s *servers) read() {
	info, err := os.Stat(s.path)
	if err != nil {
		info = nil
	}
	if s.addrs != nil && same(info, s.file) {
		return
	}
	s.file = info
	var addrs []netip.Addr
	if text, err := readAtMost(s.path, resolvMax); err == nil {
		for _, addr := range dnsconf.ParseResolv(text).Servers {
			addrs = append(addrs, addr.WithZone("").Unmap())
		}
	}
	if len(addrs) == 0 { // defaultNS in net/dnsconfig.go; libc has the first of them
		addrs = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	s.addrs = addrs
}

// same reports that a file is the one that was read, as far as can be told.
func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func (s *servers) has(addr netip.Addr) bool { return slices.Contains(s.list(), addr) }
