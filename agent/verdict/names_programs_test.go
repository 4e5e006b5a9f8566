package verdict

import (
	"strings"
	"testing"
)

// Who resolves the names of which program, on a machine whose nameserver does
// not answer and whose nsswitch.conf has another source.
func TestPrograms(t *testing.T) {
	const machine = "resolv 10.0.0.53\nnameserver 10.0.0.53 silent=\"timed out\" plain=\"timed out\"\nnsswitch files %s dns\n"
	for _, c := range []struct {
		program  string
		source   string // of nsswitch.conf
		more     string // facts
		resolver Resolver
		here     Resolver
		fails    string
		reason   string
	}{
		{"go=go1.23.8 cgo=no net=yes binding=no static", "", "", ByGo, ByGo, "yes", "Go 1.23.8, CGO_ENABLED=0, static: getaddrinfo is not linked in"},
		{"go=go1.23.8 cgo=yes net=yes binding=no tags=netgo,osusergo static", "", "", ByGo, ByGo, "yes", "tag netgo, tag osusergo"},
		{"go=go1.23.8 cgo=no net=yes binding=no netdns=cgo static", "", "", ByGo, ByGo, "yes", "its netdns=cgo does nothing"},
		{"go=go1.23.8 cgo=no net=no binding=no static", "", "", ByNobody, ByNobody, "no", "no code that looks names up"},
		{"go=go1.23.8 cgo=no net=unknown binding=unknown static", "", "", ByGo, ByGo, "yes", ""},
		{"go=go1.23.8 cgo=yes net=unknown binding=unknown loader=/ld.so", "", "", ByUnknown, ByUnknown, "", "table of functions"},
		{"go=go1.23.8 cgo=yes net=yes binding=yes loader=/ld.so asks=getaddrinfo libc=glibc", "", "", ByEither, ByGo, "yes", "here Go's own"},
		{"go=go1.23.8 cgo=yes net=yes binding=yes loader=/ld.so libc=glibc", "ldap", "", ByEither, BySystem, "", "here getaddrinfo, as nsswitch.conf names ldap"},
		{"go=go1.23.8 cgo=yes net=yes binding=yes loader=/ld.so libc=glibc", "mdns4_minimal [NOTFOUND=return]", "", ByEither, ByGo, "yes", ""},
		{"go=go1.23.8 cgo=yes net=yes binding=yes loader=/ld.so libc=glibc", "", "environment libc=RES_OPTIONS", ByEither, BySystem, "yes", "as RES_OPTIONS is set"},
		{"go=go1.23.8 cgo=yes net=yes binding=yes loader=/ld.so libc=glibc", "ldap", "environment netdns=go", ByEither, ByGo, "yes", "GODEBUG says netdns=go"},
		{"go=go1.23.8 cgo=yes net=yes binding=yes netdns=go loader=/ld.so libc=glibc", "", "", ByGo, ByGo, "yes", "go:debug netdns=go"},
		{"go=go1.23.8 cgo=yes net=yes binding=yes tags=netcgo loader=/ld.so libc=glibc", "ldap", "", BySystem, BySystem, "", "set to getaddrinfo"},
		{"go=go1.24.3 cgo=yes net=yes binding=yes tags=netcgo static libc=musl", "ldap", "", ByItself, ByItself, "yes", "musl"},
		{"loader=/ld.so asks=getaddrinfo libc=glibc", "ldap", "", BySystem, BySystem, "", "dynamic: getaddrinfo"},
		{"loader=/ld.so asks=getaddrinfo:libcurl.so.4 libc=glibc", "", "", BySystem, BySystem, "yes", "getaddrinfo by way of libcurl.so.4"},
		{"loader=/ld.so asks=getaddrinfo own=res_query libc=glibc", "", "", BySystem, BySystem, "yes", ""},
		{"loader=/ld.so asks=getaddrinfo own=libcares.so.2 libc=glibc", "", "", ByEither, ByEither, "", "libcares.so.2"},
		{"loader=/ld.so own=libcares.so.2 libc=glibc", "ldap", "", ByItself, ByItself, "yes", "libcares.so.2 asks nameservers itself"},
		{"loader=/ld.so own=res_nquery:libkrb5.so.3 libc=glibc", "", "", ByNobody, ByNobody, "no", ""},
		{"loader=/ld-musl.so asks=getaddrinfo libc=musl", "ldap", "", ByItself, ByItself, "yes", "musl"},
		{"loader=/ld.so libc=glibc loads", "", "", ByUnknown, ByUnknown, "", "may load libraries"},
		{"loader=/ld.so libc=glibc part", "", "", ByUnknown, ByUnknown, "", "could not be read"},
		{"loader=/ld.so libc=glibc", "", "", ByNobody, ByNobody, "no", ""},
		{"static asks=getaddrinfo libc=musl", "ldap", "", ByItself, ByItself, "yes", "static, with musl's getaddrinfo"},
		{"static asks=getaddrinfo libc=glibc", "ldap", "", BySystem, BySystem, "", "loads what nsswitch.conf names"},
		{"static own=resolv.conf", "", "", ByUnknown, ByUnknown, "", "speaks of /etc/resolv.conf"},
		{"static", "", "", ByNobody, ByNobody, "no", ""},
		{"static packed", "", "", ByUnknown, ByUnknown, "", "UPX"},
		{"unreadable=\"permission denied\"", "", "", ByUnknown, ByUnknown, "", "permission denied"},
	} {
		m, _, err := parse(strings.Replace(machine, "%s", c.source, 1) + c.more + "\nprogram /usr/bin/x " + c.program)
		if err != nil {
			t.Fatal(err)
		}
		p := Programs(m)[0]
		fails := map[bool]string{true: "yes", false: "no"}[p.Fails.Value]
		if !p.Fails.OK {
			fails = ""
		}
		if p.Resolver != c.resolver || p.Here != c.here || fails != c.fails || !strings.Contains(p.Reason, c.reason) || (p.Why != "") != (fails == "yes") {
			t.Errorf("%s: %s, here %s, fails %q (%s): %s", c.program, p.Resolver, p.Here, fails, p.Why, p.Reason)
		}
	}
}
