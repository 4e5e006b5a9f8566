package lifeline

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/names"
)

const (
	// nextAddress is how long an address has before the next one is tried beside
	// it, where Net.FallbackDelay does not say: that of package net, which RFC 8305
	// section 5 leaves to whoever measures (it recommends 250 ms).
	nextAddress = 300 * time.Millisecond

	// leastShare is what an address gets at least when they are tried one after
	// the other; package net's too.
	leastShare = 2 * time.Second
)

// connect looks the name up and tries its addresses.
func (d *Dialer) connect(ctx context.Context, dialer *net.Dialer, network, address string) (net.Conn, error) {
	kind, _ := strings.CutPrefix(network, "tcp")
	if kind == network {
		kind, _ = strings.CutPrefix(network, "udp")
	}
	host, port, err := net.SplitHostPort(address)
	if dialer.Resolver != nil || err != nil || host == "" || kind != "" && kind != "4" && kind != "6" {
		return dialer.DialContext(ctx, network, address)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return dialer.DialContext(ctx, network, address)
	}
	if dialer.Timeout > 0 {
		within, cancel := context.WithTimeout(ctx, dialer.Timeout)
		defer cancel()
		ctx = within
	}
	if !dialer.Deadline.IsZero() {
		within, cancel := context.WithDeadline(ctx, dialer.Deadline)
		defer cancel()
		ctx = within
	}
	found, err := cmp.Or(d.Names, names.Default).Lookup(ctx, "ip"+kind, host)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Source: dialer.LocalAddr, Err: err}
	}
	addrs := alternate(ofLocal(dialer.LocalAddr, found.Addrs))
	if len(addrs) == 0 {
		return nil, &net.OpError{Op: "dial", Net: network, Source: dialer.LocalAddr, Err: &net.AddrError{Err: "mismatched local address type", Addr: host}}
	}
	tries := make([]string, len(addrs))
	for i, addr := range addrs {
		tries[i] = net.JoinHostPort(addr.String(), port)
	}
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, address)
	}
	if len(tries) == 1 || dialer.FallbackDelay < 0 || strings.HasPrefix(network, "udp") {
		return inTurn(ctx, tries, dial)
	}
	return staggered(ctx, tries, cmp.Or(dialer.FallbackDelay, nextAddress), dial)
}

// ofLocal leaves out those addresses that a packet from local cannot have.
func ofLocal(local net.Addr, addrs []netip.Addr) []netip.Addr {
	var ip net.IP
	switch local := local.(type) {
	case *net.TCPAddr:
		ip = local.IP
	case *net.UDPAddr:
		ip = local.IP
	}
	if ip == nil || ip.IsUnspecified() {
		return addrs
	}
	var fit []netip.Addr
	for _, addr := range addrs {
		if addr.Is4() == (ip.To4() != nil) {
			fit = append(fit, addr)
		}
	}
	return fit
}

// alternate takes addresses of both families in turn, so that one family that
// does not work costs one wait: RFC 8305 section 4.
func alternate(addrs []netip.Addr) []netip.Addr {
	if len(addrs) < 3 {
		return addrs
	}
	var first, second, mixed []netip.Addr
	for _, addr := range addrs {
		if addr.Is4() == addrs[0].Is4() {
			first = append(first, addr)
		} else {
			second = append(second, addr)
		}
	}
	for i := range max(len(first), len(second)) {
		mixed = append(mixed, first[min(i, len(first)):min(i+1, len(first))]...)
		mixed = append(mixed, second[min(i, len(second)):min(i+1, len(second))]...)
	}
	return mixed
}

// inTurn tries one address after the other. Each has its share of the time that
// is left, so that one that does not answer does not keep the others from being
// tried. The error is that of the first, as in package net.
func inTurn(ctx context.Context, tries []string, dial func(context.Context, string) (net.Conn, error)) (net.Conn, error) {
	var failed error
	for i, address := range tries {
		within, cancel := ctx, context.CancelFunc(func() {})
		if deadline, ok := ctx.Deadline(); ok {
			left := time.Until(deadline)
			share := min(max(left/time.Duration(len(tries)-i), leastShare), left)
			within, cancel = context.WithTimeout(ctx, share)
		}
		conn, err := dial(within, address)
		cancel()
		if err == nil {
			return conn, nil
		}
		failed = cmp.Or(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// staggered tries the next address when one fails, and also when it has not
// answered for a while, RFC 8305 section 5. The first connection wins; what else
// comes of the others is closed. The error is that of the first that failed.
func staggered(ctx context.Context, tries []string, wait time.Duration, dial func(context.Context, string) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type end struct {
		conn net.Conn
		err  error
	}
	ends := make(chan end, len(tries)) // nobody waits to be heard
	timer := time.NewTimer(0)
	defer timer.Stop()
	var failed error
	started, over := 0, 0
	for over < len(tries) {
		select {
		case <-timer.C:
			if started < len(tries) && (started == over || ctx.Err() == nil) { // what starts too late says so
				address := tries[started]
				started++
				go func() {
					conn, err := dial(ctx, address)
					ends <- end{conn, err}
				}()
				timer.Reset(wait)
			}
		case e := <-ends:
			over++
			if e.err == nil {
				go func() { // until the others, whose context ends now, are over
					for range started - over {
						if e := <-ends; e.conn != nil {
							e.conn.Close()
						}
					}
				}()
				return e.conn, nil
			}
			failed = cmp.Or(failed, e.err)
			if ctx.Err() != nil && over == started {
				return nil, failed
			}
			timer.Reset(0)
		}
	}
	return nil, failed
}
