package fact

import (
	"net/netip"
	"time"
)

// Lookup is what came of asking for one name in every way there is.
type Lookup struct {
	Name  string // as it was given
	Asked string // as DNS has it: in ASCII, with its final dot where the name had one
	Ways  []Way
}

// Way is one way to ask for a name, and what came of it.
type Way struct {
	Kind      WayKind
	Family    AddressFamily
	Server    netip.Addr // where the way is a question to one server
	Transport Transport  // the same
	Answer    WayAnswer
	Addresses []netip.Addr
	RCode     string        // of an answer of DNS: NOERROR, NXDOMAIN, FORMERR …
	Truncated bool          // the answer says that there is more of it
	Took      time.Duration // until the answer, or until it was given up
	Error     string        // why there was no answer; "" where there was one
}

// String is whom the way asks and how: getaddrinfo, nameserver 10.0.0.53 udp.
func (w *Way) String() string {
	name := w.Kind.String()
	if w.Server.IsValid() {
		name += " " + w.Server.String() + " " + w.Transport.String()
	}
	return name
}

// WayKind is whom a way asks.
type WayKind uint8

// The ways, in the order in which they are shown.
const (
	WayHosts   WayKind = iota + 1 // the file of names
	WayLibc                       // getaddrinfo: what the operating system answers
	WayGo                         // Go's own resolver with this machine's configuration
	WayServer                     // a nameserver of resolv.conf
	WayStub                       // the stub of systemd-resolved, where resolv.conf does not name it
	WayVarlink                    // systemd-resolved over varlink
	WayDBus                       // systemd-resolved over D-Bus
	WayNSCD                       // nscd or nsncd
	WayGetent                     // the program getent, where getaddrinfo is not to be had
	WayAddress                    // the name is an address: nobody is asked
)

var wayNames = [...]string{"unknown", "hosts", "getaddrinfo", "go", "nameserver", "resolved-stub", "resolved-varlink", "resolved-dbus", "nscd", "getent", "address"}

func (k WayKind) String() string { return nameOf(wayNames[:], int(k)) }

// System reports a way by which the operating system answers.
func (k WayKind) System() bool {
	return k == WayLibc || k == WayVarlink || k == WayDBus || k == WayNSCD || k == WayGetent
}

// AddressFamily is which addresses were asked for.
type AddressFamily uint8

// The families. The zero value is both at once.
const (
	BothFamilies AddressFamily = iota
	OnlyIPv4                   // A
	OnlyIPv6                   // AAAA
)

var addressFamilyNames = [...]string{"both", "A", "AAAA"}

func (f AddressFamily) String() string { return nameOf(addressFamilyNames[:], int(f)) }

// Transport is how a question goes to a nameserver.
type Transport uint8

// The transports.
const (
	TransportNone Transport = iota
	UDPWithEDNS             // as Go asks, and other resolvers of these days
	PlainUDP                // as glibc asks unless it is told otherwise
	OverTCP
	OverTLS // RFC 7858; the server's certificate is not checked
)

var transportNames = [...]string{"", "udp", "udp without EDNS", "tcp", "tls"}

func (t Transport) String() string { return nameOf(transportNames[:], int(t)) }

// WayAnswer is what came of one way.
type WayAnswer uint8

// The answers. The zero value is that nothing was asked.
const (
	NotAsked  WayAnswer = iota
	Addresses           // there are some
	NoName              // the name does not exist: NXDOMAIN
	NoData              // it exists and has no address of the family
	Refused             // an answer came, and it is of no use: SERVFAIL, REFUSED, FORMERR
	Failed              // it could not be asked: no route, connection refused
	Silent              // nothing came in time
)

var answerNames = [...]string{"not asked", "addresses", "no such name", "no address", "refused", "failed", "silent"}

func (a WayAnswer) String() string { return nameOf(answerNames[:], int(a)) }

// Heard reports that somebody answered, whatever it was.
func (a WayAnswer) Heard() bool { return a == Addresses || a == NoName || a == NoData || a == Refused }
