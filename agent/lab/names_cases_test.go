//go:build linux

package lab

import "strings"

// nameserver is what the nameserver of all environments knows.
var nameserver = zone{
	"a.lab.test":             "192.0.2.1",
	"aaaa.lab.test":          "2001:db8::1",
	"both.lab.test":          "192.0.2.2 2001:db8::2",
	"four.lab.test":          "192.0.2.3 192.0.2.4 192.0.2.5 192.0.2.6 2001:db8::3 2001:db8::4",
	"twice.lab.test":         "192.0.2.7 192.0.2.7 2001:db8::7 2001:db8::7",
	"nothing.lab.test":       "", // exists, and has no addresses
	"cname.lab.test":         "CNAME both.lab.test",
	"cname3.lab.test":        "CNAME cname2.lab.test",
	"cname2.lab.test":        "CNAME cname.lab.test",
	"dangling.lab.test":      "CNAME not-there.lab.test",
	"loop.lab.test":          "CNAME loop2.lab.test",
	"loop2.lab.test":         "CNAME loop.lab.test",
	"towild.lab.test":        "CNAME x.wild.lab.test",
	"tonothing.lab.test":     "CNAME nothing.lab.test",
	"*.wild.lab.test":        "192.0.2.10 2001:db8::10",
	"many.lab.test":          "MANY 2001:db8::11",
	"tomany.lab.test":        "CNAME many.lab.test",
	"servfail.lab.test":      "SERVFAIL",
	"refused.lab.test":       "REFUSED",
	"notimp.lab.test":        "NOTIMP",
	"formerr.lab.test":       "FORMERR",
	"lame.lab.test":          "LAME",
	"silent.lab.test":        "SILENT",
	"silent6.lab.test":       "SILENT6 192.0.2.12",
	"silent4.lab.test":       "SILENT4 2001:db8::12",
	"xn--bcher-kva.lab.test": "192.0.2.13",
	"stra\u00dfe.lab.test":   "192.0.2.14", // octets, as some servers have them
	"under_score.lab.test":   "192.0.2.15",
	"_srv.lab.test":          "192.0.2.16",
	"-dash.lab.test":         "192.0.2.17",
	"dash-.lab.test":         "192.0.2.18",
	"123.lab.test":           "192.0.2.19",
	"mapped.lab.test":        "::ffff:192.0.2.20",
	"zero.lab.test":          "0.0.0.0 ::",
	"loopback.lab.test":      "127.0.0.1 ::1",
	"link.lab.test":          "169.254.1.1 fe80::1",
	"short.sub.lab.test":     "192.0.2.30",
	"deep.er.sub.lab.test":   "192.0.2.31",
	"a.sub.lab.test":         "192.0.2.32",
	"host":                   "192.0.2.33",
	"dotted.name":            "192.0.2.34",
	"both.other.test":        "192.0.2.35 2001:db8::35",
	"inhosts.lab.test":       "192.0.2.99", // the file says something else
	"failing.other.test":     "192.0.2.36",
	"failing.lab.test":       "SERVFAIL",
	"absent4.lab.test":       "",
	"absent4.sub.lab.test":   "192.0.2.37",
}

const hostsFile = `# comment
127.0.0.1	localhost
::1		localhost ip6-localhost ip6-loopback
10.0.0.1 one.host.test one   # a comment at the end
10.0.0.2	UPPER.Host.Test	Upper
10.0.0.3 several.host.test
10.0.0.4 several.host.test
fd00::3  several.host.test
fd00::5 six.host.test
  10.0.0.6   spaces.host.test
10.0.0.7 twice.host.test twice.host.test
10.0.0.7 twice.host.test
::ffff:10.0.0.8 mapped.host.test
10.0.0.9 inhosts.lab.test
10.0.0.10 dot.host.test.
10.0.0.11
nonsense bad.host.test
1.2.3 threeparts.host.test
0x0a.0.0.12 hex.host.test
010.0.0.13 octal.host.test
10.0.0.14 12345
10.0.0.15 under_score.host.test -dash.host.test
10.0.0.16 b` + "\u00fc" + `cher.host.test
10.0.0.17 many1 many2 many3 many4 many5 many6 many7 many8 many9
fe80::17 link.host.test
10.0.0.18	tabs.host.test	tabs
10.0.0.19 cr.host.test` + "\r" + `
127.0.1.1 own.host.test own
10.0.0.20 last.host.test`

// environments returns the machines of TestNamesAgree.
func environments() map[string]environment {
	const impatient = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"
	label := strings.Repeat("x", 63)
	octets := func(n int) string { // a name of n octets below the wildcard, without a dot at the end
		const domain = ".wild.lab.test"
		long := label + "." + label + "." + label + "."
		return long + strings.Repeat("y", n-len(long)-len(domain)) + domain
	}
	short := "short a a.sub sub host host. dotted.name deep.er both both.other.test many nothing cname both.lab.test both.lab.test. absent4 nowhere x.wild localhost"
	table := "vpn.corp.test 127.0.0.42\n*.corp.test 127.0.0.43 fd00::43\nsix.vpn.test fd00::44\nmany.vpn.test 10.9.0.1 10.9.0.2 10.9.0.3 10.9.0.4\na.lab.test 10.9.0.9\none.host.test 10.9.0.10\nempty.vpn.test\n"
	inModule := "vpn.corp.test VPN.corp.TEST vpn.corp.test. any.corp.test corp.test six.vpn.test many.vpn.test a.lab.test both.lab.test one.host.test empty.vpn.test nowhere.test"
	return map[string]environment{
		"dns": {names: `a.lab.test A.LAB.Test a.lab.test. aaaa.lab.test both.lab.test both.lab.test. four.lab.test twice.lab.test nothing.lab.test
			cname.lab.test cname3.lab.test dangling.lab.test loop.lab.test towild.lab.test tonothing.lab.test wild.lab.test x.wild.lab.test x.y.wild.lab.test
			many.lab.test tomany.lab.test xn--bcher-kva.lab.test under_score.lab.test _srv.lab.test -dash.lab.test dash-.lab.test 123.lab.test
			mapped.lab.test zero.lab.test loopback.lab.test link.lab.test not-there.lab.test nowhere nowhere. nowhere.test host dotted.name
			` + label + ".wild.lab.test " + label + "x.wild.lab.test " + octets(252) + " " + octets(253) + " " + octets(253) + ". " + octets(254) + " " + octets(255) + ` localhost ip6-localhost`, hosts: "127.0.0.1 localhost\n"},
		"failures":             {slow: true, resolv: impatient, names: "servfail.lab.test refused.lab.test notimp.lab.test formerr.lab.test lame.lab.test silent.lab.test silent6.lab.test silent4.lab.test"},
		"failures in a search": {slow: true, resolv: "search lab.test other.test\n" + impatient, names: "a\\\\.lab.test failing failing.lab failing.lab.test"},
		"octets":               {names: "b\u00fccher.lab.test stra\u00dfe.lab.test b\u00fccher.host.test a..lab.test .a.lab.test a.lab.test.. . .. a%lo", hosts: hostsFile},
		"numbers": {names: `127.0.0.1 127.0.0.1. 127.1 127.1.2 0x7f.1 0x7f000001 0177.0.0.1 2130706433 4294967295 4294967296 0 1 1.2.3.4.5 256.1.1.1 1.256 1.2.3.256
			0x 0xg 08 1.2.3. 1.2.3.x ::1 :: ::ffff:1.2.3.4 ::1.2.3.4 fe80::1%lo fe80::1%1 fe80::1%nosuch fe80::1% 2001:db8::1%lo ::g 1::2::3 [::1] 1:2:3:4:5:6:7:8:9 0:0:0:0:0:0:0:1`},
		"hosts": {hosts: hostsFile, names: `localhost LOCALHOST localhost. ip6-localhost one.host.test one ONE.Host.test one.host.test. upper.host.test UPPER several.host.test six.host.test
			spaces.host.test twice.host.test mapped.host.test inhosts.lab.test dot.host.test dot.host.test. bad.host.test threeparts.host.test hex.host.test octal.host.test
			under_score.host.test -dash.host.test many1 many9 link.host.test tabs.host.test tabs cr.host.test own last.host.test both.lab.test localhost.localdomain foo.localhost`},
		"no hosts":                  {names: "localhost localhost. foo.localhost localhost.localdomain ip6-localhost a.lab.test"},
		"search":                    {resolv: "search sub.lab.test lab.test\nnameserver 127.0.0.1\n", hosts: "127.0.0.1 localhost\n", names: short},
		"ndots":                     {resolv: "search sub.lab.test lab.test\nnameserver 127.0.0.1\noptions ndots:3\n", names: short},
		"ndots 0":                   {resolv: "search lab.test\nnameserver 127.0.0.1\noptions ndots:0\n", names: "host both short nowhere dotted.name"},
		"domain":                    {resolv: "domain lab.test\nnameserver 127.0.0.1\n", names: "a both host short nowhere"},
		"no search":                 {slow: true, resolv: "search .\nnameserver 127.0.0.1\noptions timeout:3 attempts:1\n", names: "a host a.lab.test nowhere"},
		"comments":                  {resolv: "; one\n# two\nnonsense here\nsearch lab.test # three\nnameserver 127.0.0.1 # four\noptions no-such-option\n", names: "a both host a.lab.test"},
		"no server":                 {resolv: "# none, so the one on this host\n", names: "a.lab.test both.lab.test nowhere.test"},
		"server by IPv6":            {resolv: "nameserver ::1\n", names: "a.lab.test both.lab.test nowhere.test many.lab.test"},
		"server that refuses first": {resolv: "nameserver 127.0.0.9\nnameserver 127.0.0.1\n", names: "a.lab.test both.lab.test nowhere.test many.lab.test"},
		"tcp":                       {resolv: "nameserver 127.0.0.1\noptions use-vc\n", names: "a.lab.test both.lab.test nowhere.test many.lab.test"},
		"edns":                      {resolv: "nameserver 127.0.0.1\noptions edns0\n", names: "a.lab.test both.lab.test nowhere.test many.lab.test"},
		"module":                    {nsswitch: "hosts: files lab dns\n", module: table, hosts: hostsFile, names: inModule},
		"module first":              {nsswitch: "hosts: lab files dns\n", module: table, hosts: hostsFile, names: inModule},
		"module alone":              {nsswitch: "hosts: lab\n", module: table, hosts: hostsFile, names: inModule},
		"module is final":           {nsswitch: "hosts: files lab [NOTFOUND=return] dns\n", module: table, hosts: hostsFile, names: inModule},
		"module not built":          {nsswitch: "hosts: files nosuch dns\n", hosts: hostsFile, names: "a.lab.test one.host.test nowhere.test"},
		"dns first":                 {nsswitch: "hosts: dns files\n", hosts: hostsFile, names: "inhosts.lab.test one.host.test both.lab.test nowhere.test"},
		"files alone":               {nsswitch: "hosts: files\n", hosts: hostsFile, names: "inhosts.lab.test one.host.test both.lab.test nowhere.test"},
		"files are final":           {nsswitch: "hosts: files [NOTFOUND=return] dns\n", hosts: hostsFile, names: "inhosts.lab.test one.host.test both.lab.test nowhere.test"},
		"nsswitch is empty":         {nsswitch: "# nothing\n", hosts: hostsFile, names: "inhosts.lab.test one.host.test both.lab.test nowhere.test"},
	}
}
