package names

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// getentPaths is where getent(1) is: in Debian and all others, in old ones, in
// NixOS. PATH is not asked, for it may lead anywhere.
var getentPaths = []string{"/usr/bin/getent", "/bin/getent", "/run/current-system/sw/bin/getent"}

// children is how many getent may run at a time, of all resolvers.
var children = make(chan struct{}, 16)

// errVague is a no that may as well be a failure.
var errVague = errors.New("found nothing, and does not say whether there is nothing")

// Getent returns the way that starts getent(1), which asks the C library, for
// each lookup. At the end of its context the child is killed.
func Getent() Way {
	for _, path := range getentPaths {
		if _, err := os.Stat(path); err == nil {
			return getentWay{path}
		}
	}
	return getentWay{}
}

type getentWay struct{ path string }

func (getentWay) Name() string { return "getent" }

func (w getentWay) Lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	database, ok := map[string]string{"ip": "ahosts", "ip4": "ahostsv4", "ip6": "ahostsv6"}[network]
	switch {
	case w.path == "":
		return nil, fmt.Errorf("getent: not in any of %s", strings.Join(getentPaths, ", "))
	case !ok:
		return nil, net.UnknownNetworkError(network)
	case strings.HasPrefix(host, "-") || strings.ContainsRune(host, 0):
		return nil, notFound(host, "getent", "no such host") // getent would take it for an option
	}
	select {
	case children <- struct{}{}:
		defer func() { <-children }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	command := exec.CommandContext(ctx, w.path, database, host)
	command.WaitDelay = time.Second // for a grandchild that keeps the pipe open
	var out limited
	command.Stdout = &out
	err := command.Run()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == 2: // getent(1): one or more keys were not found
		return nil, &net.DNSError{Err: errVague.Error(), UnwrapErr: errVague, Name: host, Server: "getent", IsTemporary: true}
	case err != nil:
		return nil, fmt.Errorf("getent: %w", err)
	}
	addrs := ofNetwork(network, parseGetent(out.text))
	if len(addrs) == 0 {
		return nil, notFound(host, "getent", "no address of this kind")
	}
	return addrs, nil
}

// parseGetent returns the addresses of lines such as
//
//	10.0.0.1        STREAM db.example
//
// each once, in their order, which is that of getaddrinfo.
func parseGetent(text []byte) (addrs []netip.Addr) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		word, _, _ := strings.Cut(lines.Text(), " ")
		if addr, err := netip.ParseAddr(strings.TrimSpace(word)); err == nil {
			if addr = addr.Unmap(); !slices.Contains(addrs, addr) {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs
}

// limited keeps the beginning of what is written to it.
type limited struct{ text []byte }

func (l *limited) Write(text []byte) (int, error) {
	const most = 1 << 20
	if len(l.text)+len(text) > most {
		return 0, io.ErrShortBuffer
	}
	l.text = append(l.text, text...)
	return len(text), nil
}
