//go:build linux && (amd64 || arm64)

package getaddrinfo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/names"
)

//go:generate env CGO_ENABLED=0 GOOS=linux GOARCH=amd64 GOAMD64=v1 GOEXPERIMENT= GOFLAGS= GOWORK=off go build -C asker -trimpath -buildvcs=false -ldflags "-s -w -buildid=" -o ../asker_amd64.elf .
//go:generate env CGO_ENABLED=0 GOOS=linux GOARCH=arm64 GOARM64=v8.0 GOEXPERIMENT= GOFLAGS= GOWORK=off go build -C asker -trimpath -buildvcs=false -ldflags "-s -w -buildid=" -o ../asker_arm64.elf .

// System is the way that importing this package registers: with the loader of
// this system's own programs, and with all bounds as recommended.
var System = new(Way)

func init() { names.Register(System) }

// ErrUnavailable is the error where the program that asks cannot be run, such as
// where vm.memfd_noexec is 2, /proc is not mounted, or there is no dynamic
// loader. The text around it says which. It is an [errors.ErrUnsupported], and
// is remembered for 10 s.
var ErrUnavailable error = unavailable{}

type unavailable struct{}

func (unavailable) Error() string        { return "getaddrinfo cannot be asked from here" }
func (unavailable) Is(target error) bool { return target == errors.ErrUnsupported }

const (
	recommendedIdle  = 10 * time.Second
	recommendedLimit = 30 * time.Second

	retryAfter  = 10 * time.Second
	mostDeaths  = 3       // of processes that a question was asked, and as many in a row that never lived
	longestName = 1 << 10 // NI_MAXHOST of netdb.h, which is 1025 with the NUL
)

// A Way asks getaddrinfo. The zero value is ready for use, by any number of
// goroutines. A Way must not be copied.
type Way struct {
	// Loader is the dynamic loader that starts the program which asks, and so
	// chooses the C library: /lib/ld-musl-x86_64.so.1, say. Empty means the one
	// that /usr/bin/getent or /bin/sh names, else glibc's or musl's where they
	// usually are.
	Loader string

	// Idle is for how long the program stays without a question; 0 means 10 s.
	Idle time.Duration

	// Limit bounds each question beside its context; 0 means 30 s. By itself
	// getaddrinfo of glibc may take 15 s for each dead nameserver and each entry of
	// a search list.
	Limit time.Duration

	mu        sync.Mutex
	running   *process // nil, or the last one, which may have ended
	failed    error    // why none can be started
	failedAt  time.Time
	stillborn int // processes in a row that died without a sign of life
}

// Name returns "getaddrinfo".
func (w *Way) Name() string { return "getaddrinfo" }

// Lookup returns the addresses that getaddrinfo finds, each once and in its
// order; network is "ip", "ip4" or "ip6". It returns when ctx is done, or after
// w.Limit.
//
// An error is a [*net.DNSError] that says what getaddrinfo said: IsNotFound for
// EAI_NONAME, EAI_NODATA and EAI_ADDRFAMILY, which are a definite no; IsTemporary
// for EAI_AGAIN. It is IsTimeout, and wraps the error of ctx, when there was no
// answer in time. Where nothing can be asked it wraps [ErrUnavailable], and
// after [Way.Close] [net.ErrClosed].
//
// A question that nobody waits for any more may keep one of the 64 threads of
// the program. It is killed when all threads are taken and half of them in that
// way, when nobody waits for any question and one is older than a second, and
// when it gives no sign of life for a second; those who wait still ask the next
// one. A question has failed when the program died of itself three times while it
// was asked.
func (w *Way) Lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	family, ok := families[network]
	if !ok {
		return nil, &net.DNSError{Err: `the network must be "ip", "ip4" or "ip6", not ` + network, Name: host}
	}
	if host == "" || len(host) > longestName || strings.IndexByte(host, 0) >= 0 {
		return nil, &net.DNSError{Err: noSuchHost, Name: host, IsNotFound: true}
	}
	ctx, cancel := context.WithTimeout(ctx, orElse(w.Limit, recommendedLimit))
	defer cancel()
	start := time.Now()
	for deaths := 0; ; {
		p, err := w.process()
		if err != nil {
			return nil, failure(host, err)
		}
		answer, err := p.ask(ctx, family, host)
		switch {
		case err == nil:
			return answer.result(host)
		case ctx.Err() != nil:
			return nil, tooLate(host, time.Since(start), ctx.Err())
		case errors.Is(err, net.ErrClosed):
			return nil, failure(host, err)
		case errors.Is(err, errIdle), errors.Is(err, errStuck), errors.Is(err, errFrozen): // through no fault of this question
			continue
		}
		if deaths++; deaths == mostDeaths {
			return nil, failure(host, err)
		}
	}
}

// Close ends the program that asks, if it runs, and waits until it is gone.
// Whoever waits for an answer gets [net.ErrClosed]. A later Lookup starts the
// program again.
func (w *Way) Close() error {
	w.mu.Lock()
	p := w.running
	w.mu.Unlock()
	if p != nil {
		p.end(net.ErrClosed)
		<-p.gone
	}
	return nil
}

// process returns the one to ask, and starts it when there is none.
func (w *Way) process() (*process, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.running; p != nil {
		if !p.ended() {
			return p, nil
		}
		w.bury(p)
	}
	if w.failed != nil {
		if time.Since(w.failedAt) < retryAfter {
			return nil, w.failed
		}
		w.failed = nil
	}
	w.running = newProcess(w.Loader, orElse(w.Idle, recommendedIdle))
	return w.running, nil
}

// bury learns from a process that has ended whether another can do better. One
// that could not be started says so; one that died young may have been unlucky
// once.
func (w *Way) bury(p *process) {
	w.running = nil
	cause, lived := p.epitaph()
	switch {
	case errors.Is(cause, ErrUnavailable):
	case lived || errors.Is(cause, net.ErrClosed):
		w.stillborn = 0
		return
	default:
		if w.stillborn++; w.stillborn < mostDeaths {
			return
		}
		cause = fmt.Errorf("%w: %w", ErrUnavailable, cause)
	}
	w.failed, w.failedAt, w.stillborn = cause, time.Now(), 0
}

func orElse(d, recommended time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return recommended
}
