//go:build linux

// Package run starts an unmodified program so that its names resolve as the
// operating system resolves them, with no right and no change to the machine.
//
// There are two processes beside the program. The front is the one that the user
// started: it waits, passes on signals, stops when the program stops and ends as
// it ends. Its child, the keeper, starts the program, and answers its system
// calls and its DNS questions; it is an ancestor of all that the program starts,
// since Yama lets only those look into a program, and it stays for as long as one
// of these lives. Each has all that the other works with. When the keeper dies,
// the front goes on in its place, without a call being lost; when the front dies,
// the keeper ends the program, as its death would have been the program's own. Who
// is left starts another to stand by. How both begin is package launch.
//
// Where the system calls of programs cannot be had, the program is told by
// HTTPS_PROXY of a proxy that resolves names for it; see package proxy.
package run

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run/launch"
	"github.com/lifeline-go/lifeline/agent/act/run/redirect"
)

// Way is how a program is helped.
type Way string

const (
	Auto    Way = ""        // Seccomp, and Proxy where that is not to be had
	Seccomp Way = "seccomp" // its DNS questions are redirected
	Proxy   Way = "proxy"   // HTTPS_PROXY leads it to a proxy
	Nested  Way = "nested"  // it is helped already: by a lifeline run around this one
)

// Program is what to run, and how.
type Program struct {
	Path string   // of the executable
	Args []string // the first is its name, as typed
	Env  []string

	Via    Way
	All    bool // whatever goes to port 53, and not only to nameservers of resolv.conf
	Report bool // tell what became of what it asked

	Keeper *launch.Keeper // with arguments that end in Args
}

// Resolver is how the operating system resolves names.
type Resolver interface {
	// Exchange answers a DNS message with one question; the error is that of one
	// that cannot be answered.
	Exchange(ctx context.Context, query []byte) ([]byte, error)
	// LookupNetIP is as that of net.Resolver.
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Report is what became of what a program and those that it started asked.
type Report struct {
	Way      Way
	Why      string // why it is not seccomp; "" when it is
	Answered int64  // questions by the stub, or connections by the proxy
	Refused  int64  // questions and connections that were not the program's
	Counts   []redirect.Count
	Lost     bool // the keeper was killed, and what it had counted before
}

// Status is how a program ended.
type Status struct {
	Code   int         // its exit code, unless
	Signal unix.Signal // it died of a signal
}

// The errors of [Front].
type (
	// StartError is the error of a program that could not be started.
	StartError = launch.StartError
	// UnsupportedError says why a program cannot be helped in the way that was asked
	// for.
	UnsupportedError = launch.UnsupportedError
)

const (
	// standbyPause is the least time between two processes that are started to
	// stand by, should something kill each.
	standbyPause = time.Second

	// adoption bounds waiting for the program to become a child of the front when
	// its keeper has died.
	adoption = 2 * time.Second
)
