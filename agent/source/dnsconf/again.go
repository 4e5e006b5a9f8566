//go:build linux

package dnsconf

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/internal/dnsclient"
)

// AskAgain asks those nameservers that gave no good answer to [AskAll] why that
// may be, all at once: the same question again, so that no lost packet looks like
// a dead server, the same without EDNS, which a few servers refuse or drop, and
// over TCP, which a firewall may let through where it drops UDP. It fills in their
// answers within timeout. Unlike AskAll it asks from the network namespace of the
// process, in which the caller must be.
func AskAgain(ctx context.Context, names *fact.Names, timeout time.Duration) {
	askAgain(ctx, names, port, timeout)
}

func askAgain(ctx context.Context, names *fact.Names, port uint16, timeout time.Duration) {
	var wg sync.WaitGroup
	for i := range names.Nameservers {
		s := &names.Nameservers[i]
		if first, asked := s.Answer.Get(); !asked || Good(first) || s.NoRoute != "" {
			continue
		}
		server := netip.AddrPortFrom(s.Addr, port)
		var again fact.Answer
		wg.Go(func() {
			var all sync.WaitGroup
			all.Go(func() { again = ask(ctx, server, dnsclient.UDP, true, timeout) })
			all.Go(func() { s.Plain = fact.Seen(ask(ctx, server, dnsclient.UDP, false, timeout)) })
			all.Go(func() { s.TCP = fact.Seen(ask(ctx, server, dnsclient.TCP, true, timeout)) })
			all.Wait()
			if again.OK { // else what was seen first stays: it took as long, and says the same
				s.Answer = fact.Seen(again)
			}
		})
	}
	wg.Wait()
}

// Good reports an answer that leaves no question open: not one that says nothing
// but that the question had EDNS.
func Good(a fact.Answer) bool { return a.OK && a.RCode != "FORMERR" && a.RCode != "NOTIMP" }
