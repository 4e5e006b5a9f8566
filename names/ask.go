package names

import (
	"context"
	"errors"
	"strings"
	"time"
)

// errEmpty is of a way that breaks its contract.
var errEmpty = errors.New("neither addresses nor an error")

// ask asks one contender and notes how it did.
func (r *Resolver) ask(ctx context.Context, c *config, x *race, one *contender) finish {
	began := time.Now()
	f := finish{contender: one}
	if one.system() {
		one.health.busy.Add(1)
		defer one.health.busy.Add(-1)
		f.found, f.err = askSystem(ctx, one, x.network, x.host, x.plan.dns != equal)
	} else {
		host := x.host
		if x.whole {
			host = strings.TrimSuffix(host, ".") + "."
		}
		f.found, f.err = r.lookupDNS(ctx, c, x.network, host)
		sortAddrs(f.found.addrs)
	}
	switch {
	case f.err == nil, isNotFound(f.err), errors.Is(f.err, errVague):
		one.health.did(time.Since(began))
	case ctx.Err() == nil:
		one.health.failedBy(f.err)
	}
	return f
}

// probeWay asks a way of the system that did not answer whether it is back, when
// it is time to: for the name that it is about to be asked for anyway.
func (r *Resolver) probeWay(way Way, network, host string) {
	h := r.healthOf(way.Name())
	if !h.due() {
		return
	}
	r.background(r.timeout(), func(ctx context.Context) {
		began := time.Now()
		if _, err := way.Lookup(ctx, network, host); err == nil || isNotFound(err) || errors.Is(err, errVague) {
			h.did(time.Since(began))
		}
	})
}

// askSystem asks a way of the system. The C library waits for the addresses of
// IPv6 as long as it takes, so where nobody else can be asked instead, and it is
// late, it is asked for those of IPv4 alone too.
func askSystem(ctx context.Context, one *contender, network, host string, alone bool) (found, error) {
	if network != "ip" || !alone {
		return askWay(ctx, one, network, host)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type half struct {
		found
		err error
	}
	both, four := make(chan half, 1), make(chan half, 1)
	ask := func(network string, to chan<- half) {
		f, err := askWay(ctx, one, network, host)
		to <- half{f, err}
	}
	go ask("ip", both)
	timer := time.NewTimer(max(one.health.patience(), lateness))
	defer timer.Stop()
	var partial *half
	for started := false; ; {
		select {
		case h := <-both:
			if h.err != nil && partial != nil && !isNotFound(h.err) {
				return partial.found, nil
			}
			return h.found, h.err
		case h := <-four:
			if h.err == nil {
				h.partial = true
				partial = &h
				timer.Reset(lateness)
			}
		case <-timer.C:
			if partial != nil {
				return partial.found, nil
			}
			if !started {
				started = true
				go ask("ip4", four)
			}
		}
	}
}

func askWay(ctx context.Context, one *contender, network, host string) (found, error) {
	addrs, err := one.way.Lookup(ctx, network, host)
	if addrs = ofNetwork(network, addrs); err == nil && len(addrs) == 0 {
		err = errEmpty
	}
	return found{addrs: addrs}, err
}
