//go:build linux

// Package dnsconf reports how names are resolved on this machine:
// resolv.conf, nsswitch.conf, /etc/hosts, the way to each nameserver and, when
// asked to, whether it answers.
//
// Where resolvers differ it says what at least one of glibc and Go makes of a
// file; it does not ask which program uses which.
package dnsconf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/route"
	"github.com/lifeline-go/lifeline/internal/dnsconf"
)

// source is the name that blind spots are reported under.
const source = "names"

// The files, below the root, and the most that is read of each. Lists that
// block advertisements make hosts files of several megabytes; the other two
// have a few lines.
const (
	resolvPath = "etc/resolv.conf"
	switchPath = "etc/nsswitch.conf"
	hostsPath  = "etc/hosts"

	configMax = 1 << 20
	hostsMax  = 16 << 20
)

// Read reads the configuration below root, "" or "/" for this machine's own
// and /proc/PID/root for that of a container. Symbolic links stay below root,
// which needs Linux 5.6 for roots other than /. The routes are those of the
// calling thread's network namespace, which the caller chooses to fit. A file
// system whose server is gone holds Read up for as long as the kernel waits.
//
// A file that does not exist is known to be empty. One that cannot be read, or
// is not read to its end, leaves its fact unknown or incomplete and is named in
// the blind spots; so is one that is no text, although resolvers do read it.
func Read(root string) (fact.Names, []fact.Blind) {
	var (
		names fact.Names
		blind blindness
	)
	if text, ok := blind.read(root, resolvPath, configMax); ok {
		parsed := dnsconf.ParseResolv(text)
		resolv := resolvFact(parsed)
		resolv.Path = filepath.Join("/", root, resolvPath)
		names.Resolv = fact.Seen(resolv)
		if !parsed.Understood() && bytes.IndexByte(text, 0) < 0 {
			blind.add(resolv.Path+": no line that a resolver understands", "")
		}
		names.Nameservers = nameservers(resolv)
	}
	if text, ok := blind.read(root, switchPath, configMax); ok {
		sources, err := dnsconf.ParseSwitch(text)
		if err != nil {
			blind.add(filepath.Join("/", root, switchPath)+": "+err.Error(), "")
		}
		names.Switch = fact.Seen(switchFact(sources))
	}
	if text, ok := blind.read(root, hostsPath, hostsMax); ok {
		names.Hosts = fact.Seen(dnsconf.CountHosts(text))
	}
	for i := range names.Nameservers {
		blind.findRoute(&names.Nameservers[i])
	}
	return names, blind
}

// blindness is what could not be looked at.
type blindness []fact.Blind

func (b *blindness) add(err, needs string) {
	*b = append(*b, fact.Blind{Source: source, Error: err, Needs: needs})
}

// read returns what is in a file, as far as it goes, and reports whether that
// is enough to be parsed.
func (b *blindness) read(root, path string, most int) (text []byte, ok bool) {
	text, err := readFile(root, path, most)
	shown := filepath.Join("/", root, path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, true
	case errors.Is(err, errTooLong):
		b.add(shown+": "+err.Error(), "")
		return text, path != hostsPath // a part of the names is no count of them
	case errors.Is(err, errors.ErrUnsupported):
		b.add(shown+": "+err.Error(), "Linux 5.6")
		return nil, false
	case errors.Is(err, fs.ErrPermission):
		b.add(shown+": "+err.Error(), "the right to read "+shown)
		return nil, false
	case err != nil:
		b.add(shown+": "+err.Error(), "")
		return nil, false
	}
	if at := bytes.IndexByte(text, 0); at >= 0 {
		b.add(fmt.Sprintf("%s: not a text file: byte %d is zero", shown, at), "")
	}
	return text, true
}

func (b *blindness) findRoute(server *fact.Nameserver) {
	hop, err := route.To(server.Addr)
	var none *route.NoRouteError
	switch {
	case errors.As(err, &none):
		server.NoRoute = none.Reason()
	case err != nil:
		b.add("nameserver "+server.Addr.String()+": "+err.Error(), "")
	default:
		server.Interface, server.Gateway = hop.Interface, hop.Gateway
	}
}
