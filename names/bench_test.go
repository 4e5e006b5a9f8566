package names_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A lookup of a name that no cache has, A and AAAA, beside package net's; of-net
// is the ratio of the times.
func BenchmarkLookup(b *testing.B) {
	s := serve(b, func(q *asked) [][]byte {
		if q.kind == dnsmessage.TypeA {
			return [][]byte{q.reply(dnsmessage.RCodeSuccess, "127.0.0.1")}
		}
		return [][]byte{q.reply(dnsmessage.RCodeSuccess, "::1")}
	})
	ours := resolver(b, nil, nil, s)
	theirs := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.addr.String())
	}}
	var took [2]time.Duration
	for i := 0; b.Loop(); i++ {
		began := time.Now()
		if _, err := ours.LookupNetIP(b.Context(), "ip", fmt.Sprintf("ours-%d.test.", i)); err != nil {
			b.Fatal(err)
		}
		between := time.Now()
		if _, err := theirs.LookupNetIP(b.Context(), "ip", fmt.Sprintf("net-%d.test.", i)); err != nil {
			b.Fatal(err)
		}
		took[0] += between.Sub(began)
		took[1] += time.Since(between)
	}
	b.ReportMetric(float64(took[0])/float64(took[1]), "of-net")
}
