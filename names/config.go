package names

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/internal/dnsconf"
)

const (
	resolvPath   = "etc/resolv.conf"
	switchPath   = "etc/nsswitch.conf"
	hostsPath    = "etc/hosts"
	machinesPath = "run/systemd/machines"
	allowPath    = "etc/mdns.allow"

	dnsPort = 53

	// fresh is how long the configuration is taken to be as it was.
	fresh = 200 * time.Millisecond

	fileMax = 16 << 20 // a hosts file that blocks advertisements has some megabytes
)

// config is what the files say at one time. It does not change.
type config struct {
	resolv  dnsconf.Resolv
	sources []dnsconf.Source
	hosts   dnsconf.Hosts
	servers []*server
	own     string // this machine's name
	getent  Way

	resolved, nscd, machines, mdnsAllow bool // what is there

	stamps [3]stamp
}

// stamp tells two versions of a file apart.
type stamp struct {
	changed time.Time
	size    int64
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{info.ModTime(), info.Size()}
}

// exists reports whether there is such a file.
func exists(root, path string) bool {
	_, err := os.Stat(below(root, path))
	return err == nil
}

func below(root, path string) string { return filepath.Join("/", root, path) }

// readText returns what is in a file; one that cannot be read is empty, as for
// the C library. It does not wait for who would write into a FIFO.
func readText(root, path string) []byte {
	name := below(root, path)
	if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() || info.Size() > fileMax {
		return nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	return text
}

// config returns the configuration of this moment. Whatever was remembered of
// answers is forgotten when it is another one.
func (r *Resolver) config() *config {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.conf != nil && now.Sub(r.looked) < fresh {
		return r.conf
	}
	r.looked = now
	var stamps [3]stamp
	for i, path := range []string{resolvPath, switchPath, hostsPath} {
		stamps[i] = stampOf(below(r.Root, path))
	}
	next := &config{stamps: stamps}
	next.resolved, next.nscd = exists(r.Root, varlinkPath), exists(r.Root, nscdPath)
	next.machines, next.mdnsAllow = exists(r.Root, machinesPath), exists(r.Root, allowPath)
	if old := r.conf; old != nil && old.stamps == stamps {
		if old.resolved == next.resolved && old.nscd == next.nscd && old.machines == next.machines && old.mdnsAllow == next.mdnsAllow {
			return old
		}
		next.resolv, next.sources, next.hosts = old.resolv, old.sources, old.hosts
	} else {
		next.resolv = dnsconf.ParseResolv(readText(r.Root, resolvPath))
		next.sources, _ = dnsconf.ParseSwitch(readText(r.Root, switchPath))
		next.hosts = dnsconf.ParseHosts(readText(r.Root, hostsPath))
	}
	if len(next.sources) == 0 { // as Go and musl have it
		next.sources = []dnsconf.Source{{Name: "files"}, {Name: "dns"}}
	}
	next.getent = Getent()
	next.own, _ = os.Hostname()
	if _, domain, ok := strings.Cut(next.own, "."); ok && next.resolv.Search == nil {
		next.resolv.Search = []string{domain} // as glibc and Go do
	}
	next.servers = r.serversLocked(next.resolv)
	r.conf, r.cache = next, nil
	return next
}

// serversLocked returns the servers to ask, with what is known of those that were
// there before.
func (r *Resolver) serversLocked(resolv dnsconf.Resolv) []*server {
	asked := r.Nameservers
	if asked == nil {
		for _, addr := range resolv.ServersOrDefault() {
			asked = append(asked, netip.AddrPortFrom(addr, dnsPort))
		}
		asked = asked[:min(len(asked), dnsconf.ServersAsked)]
	}
	known := make(map[netip.AddrPort]*server)
	servers := make([]*server, 0, len(asked))
	for _, addr := range asked {
		if known[addr] != nil {
			continue // once is enough: it is asked again anyway
		}
		s := r.servers[addr]
		if s == nil {
			s = &server{addr: addr}
		}
		known[addr] = s
		servers = append(servers, s)
	}
	r.servers = known
	return servers
}

// A role is what plain DNS is beside the ways that speak for the system, for one
// name.
type role int

const (
	// never: the system would not ask a nameserver for this name.
	never role = iota
	// instead: sources that only the system knows come first, and might know the
	// name; the nameservers are asked when the system cannot be.
	instead
	// equal: the system itself would ask the nameservers, and no one before them.
	equal
)

// A plan is how one name is looked up.
type plan struct {
	filesFirst, filesLast bool
	dns                   role
	varlink               bool // systemd-resolved has the first word, and its no is final
}

// plan follows the hosts line of nsswitch.conf for a name without a dot at its
// end, in lower case.
func (c *config) plan(host string) plan {
	var p plan
	hidden, over := false, false // a source that we cannot look into; the search is over
	reached := false             // dns
	for _, source := range c.sources {
		if over {
			break
		}
		switch source.Name {
		case "files":
			p.filesFirst = p.filesFirst || !hidden && !reached
			p.filesLast = p.filesLast || hidden || reached
			over = source.Returns("NOTFOUND")
		case "dns":
			if !reached {
				reached, p.dns = true, equal
				if hidden {
					p.dns = instead
				}
			}
			over = source.Returns("NOTFOUND") && !hidden
		case "resolve":
			if !c.resolved {
				continue // UNAVAIL
			}
			p.varlink = !hidden && !reached && source.Returns("NOTFOUND")
			hidden, over = true, source.Returns("NOTFOUND") && !c.asksResolved()
		default:
			if c.mayKnow(source.Name, host) {
				hidden, over = true, source.Returns("NOTFOUND")
			}
		}
	}
	if len(c.servers) == 0 || isLocalhost(host) || host == "onion" || strings.HasSuffix(host, ".onion") {
		p.dns = never // nobody to ask; RFC 6761 section 6.3, RFC 7686 section 2
	}
	p.filesLast = p.filesLast && !p.filesFirst
	return p
}

// mayKnow reports whether a source that is neither files, dns nor resolve may
// know a name.
func (c *config) mayKnow(source, host string) bool {
	switch {
	case strings.HasPrefix(source, "mdns"): // nss-mdns: names in .local, unless mdns.allow says otherwise
		return strings.HasSuffix(host, ".local") || c.mdnsAllow && !strings.HasSuffix(source, "_minimal")
	case source == "myhostname": // nss-myhostname(8)
		return isLocalhost(host) || host == "_gateway" || host == "_outbound" || host == strings.ToLower(c.own)
	case source == "mymachines":
		return c.machines
	default:
		return true
	}
}

// asksResolved reports that the nameservers are systemd-resolved itself, which
// tells nobody more than its other ways do.
func (c *config) asksResolved() bool {
	return len(c.resolv.Servers) > 0 && !slices.ContainsFunc(c.resolv.Servers, func(addr netip.Addr) bool {
		return addr != netip.AddrFrom4([4]byte{127, 0, 0, 53}) && addr != netip.AddrFrom4([4]byte{127, 0, 0, 54})
	})
}

func isLocalhost(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || host == "localhost.localdomain"
}

// candidates returns the names to ask nameservers for, each with a dot at its
// end, in order: resolv.conf(5) search and ndots.
func (c *config) candidates(host string) []string {
	if strings.HasSuffix(host, ".") {
		return []string{host}
	}
	var names []string
	enough := strings.Count(host, ".") >= c.resolv.NDots
	if enough {
		names = append(names, host+".")
	}
	for _, domain := range c.resolv.Search {
		name := host + "." + strings.TrimSuffix(domain, ".") + "."
		if domain == "." {
			name = host + "."
		}
		if len(name) <= 254 && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if !slices.Contains(names, host+".") {
		names = append(names, host+".")
	}
	return names
}
