// Package sockdiag reports the TCP, UDP and unix sockets of one network
// namespace, as the kernel tells them over NETLINK_SOCK_DIAG.
//
// [Read] looks at the namespace of the calling thread, at all of it, and [Get] at
// single sockets of TCP there; to look at another, call them inside netns.Do. No privilege is needed, save that the mark of a socket is
// only told to who has CAP_NET_ADMIN.
//
// What to know about the facts:
//
//   - Addresses of an IPv6 socket that speaks IPv4 are folded to IPv4 with
//     Mapped set. Every Go listener on ":port" accepts such sockets.
//   - A connection that waits in an accept queue has inode 0, and so has one in
//     TIME_WAIT or SYN_RECV, or that was closed with data still to send.
//   - A connection in SYN_SENT never heard from its peer: the ages in its
//     fact.Conn count from the kernel's boot and mean nothing.
//   - The kernel's byte counts include a SYN or FIN as one byte: who dialled and
//     sent nothing has Acked 1, and a CLOSE_WAIT has Received at least 1. The
//     segment counts are exact.
//   - A Multipath TCP connection shows as its subflows, each a TCP socket with
//     the inode of the connection that owns it, exactly as ss -t shows them.
//     Its own queues and counters (ss -M) are not read.
//   - TCP sockets that are bound and neither listen nor connect are not listed,
//     neither here nor by ss.
package sockdiag

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Want selects protocols, all where none is named. The zero Want means all
// sockets.
type Want struct {
	TCP, UDP, Unix bool

	// Held leaves out connections in TIME_WAIT, which no program holds any more:
	// where many connections come and go there are more of these than of all
	// others. [TimeWait] counts them.
	Held bool

	// Peers are the addresses to which a TCP connection must be, [MostPeers] at the
	// most; with none it may be to any. Of others the kernel writes nothing, which
	// is most of what a look costs.
	Peers []netip.Addr
}

// Read appends the sockets of the calling thread's network namespace to dst
// and returns it; netns, the inode of that namespace, is noted on each. Owners
// and Options are not filled in, they come from other sources.
//
// The room beyond dst is used again, and so is each fact.Conn that its sockets
// have: nobody may use them any more.
//
// An error does not mean that nothing was read: each protocol that failed is
// one [*Error] of a joined error, and the sockets of the others are there.
// [Blind] says it as facts. Read gives up on a kernel that says nothing for
// five seconds.
func Read(dst []fact.Socket, netns uint32, want Want) ([]fact.Socket, error) {
	used := readUse()
	if len(want.Peers) == 0 {
		dst = slices.Grow(dst, used.expected(want.Held))
	}
	r := &reader{sockets: dst, netns: netns, dump: dump}
	err := each(want, func(q query, buf []byte) error {
		if used.none(q) {
			if again := readUse(); again.none(q) { // it adds up what may move meanwhile
				return nil
			}
		}
		return r.query(q, buf)
	})
	return r.sockets, err
}

// Drain asks for the same sockets as [Read] and throws the answers away. It is
// the floor that Read is measured against: the time that the kernel takes.
// It returns how many sockets came, in how many bytes.
func Drain(want Want) (messages, bytes int, err error) {
	err = each(want, func(q query, buf []byte) error {
		n, err := dump(q.request, buf, func([]byte) { messages++ })
		bytes += n
		return err
	})
	return messages, bytes, err
}

// A query is one dump.
type query struct {
	protocol string      // tcp, udp, unix
	family   fact.Family // unknown for both IPv4 and IPv6
	request  []byte
	parse    func(*reader, []byte) error
	held     bool   // TCP: not what is in TIME_WAIT
	states   uint32 // TCP: bits of those that are asked for
}

// heldStates are those of sockets that a program holds.
const heldStates = allStates &^ (1 << fact.TimeWait)

var (
	tcpQueries  = []query{{"tcp", fact.FamilyUnknown, tcpRequest(allStates), (*reader).tcp, false, allStates}}
	heldQueries = []query{{"tcp", fact.FamilyUnknown, tcpRequest(heldStates), (*reader).tcp, true, heldStates}}
	udpQueries  = []query{
		{"udp", fact.IPv4, udpRequest(unix.AF_INET), (*reader).udp, false, 0},
		{"udp", fact.IPv6, udpRequest(unix.AF_INET6), (*reader).udp, false, 0},
	}
	unixQueries = []query{{"unix", fact.Unix, unixRequest(), (*reader).unix, false, 0}}
)

// bufferSize is twice the most that the kernel puts into one read of a dump,
// 32 KiB (netlink_recvmsg, net/netlink/af_netlink.c). More does not make it
// faster, it only leaves the processor's cache.
const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// each calls do for every query that want selects and joins what fails.
func each(want Want, do func(query, []byte) error) error {
	all, tcp := !want.TCP && !want.UDP && !want.Unix, tcpQueries
	if want.Held {
		tcp = heldQueries
	}
	if len(want.Peers) > MostPeers {
		return fmt.Errorf("%d peers, more than %d", len(want.Peers), MostPeers)
	}
	if len(want.Peers) > 0 {
		tcp = slices.Clone(tcp)
		for i := range tcp {
			tcp[i].request = peersRequest(tcp[i].states, want.Peers)
		}
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	var failed failures
	for _, group := range []struct {
		wanted  bool
		queries []query
	}{{want.TCP, tcp}, {want.UDP, udpQueries}, {want.Unix, unixQueries}} {
		if !all && !group.wanted {
			continue
		}
		for _, q := range group.queries {
			if err := do(q, buf[:]); err != nil {
				failed = append(failed, &Error{Protocol: q.protocol, Family: q.family, Err: err})
			}
		}
	}
	return failed.join()
}

// reader collects the sockets of one namespace.
type reader struct {
	sockets []fact.Socket
	netns   uint32
	dump    func(request, buf []byte, each func(body []byte)) (bytes int, err error)
	spare   *fact.Conn        // of a socket that was in the room of the last one
	conns   []fact.Conn       // allocated ahead, to be handed out
	slab    int               // size of the last allocation of conns
	paths   map[string]string // one copy of each unix path, however many sockets have it
}

// query runs q, again when the kernel says that the table changed so much that
// rows may be missing or doubled, or that it ran out of buffers.
func (r *reader) query(q query, buf []byte) error {
	const attempts = 3
	start := len(r.sockets)
	for attempt := 1; ; attempt++ {
		var malformed error
		_, err := r.dump(q.request, buf, func(body []byte) {
			if err := q.parse(r, body); err != nil {
				malformed = err
			}
		})
		switch {
		case err == nil:
			return malformed
		case !again(err) || attempt == attempts:
			return err
		}
		clear(r.sockets[start:])
		r.sockets = r.sockets[:start]
	}
}

// socket returns a zeroed socket at the end of the list.
func (r *reader) socket() *fact.Socket {
	n := len(r.sockets)
	if n == cap(r.sockets) {
		// Doubling copies each socket once at most; append would grow by a
		// quarter at these sizes and copy them several times.
		r.sockets = slices.Grow(r.sockets, max(n, 64))
	}
	r.sockets = r.sockets[:n+1]
	s := &r.sockets[n]
	r.spare = s.Conn
	*s = fact.Socket{Netns: r.netns}
	return s
}

// drop takes back the socket returned last.
func (r *reader) drop() {
	n := len(r.sockets) - 1
	r.sockets[n] = fact.Socket{}
	r.sockets = r.sockets[:n]
}

// conn returns a zeroed fact.Conn for the last socket: the one that was in its
// room, or a new one. These are allocated in slabs that grow with the namespace,
// so that one with a single connection costs little.
func (r *reader) conn() *fact.Conn {
	const smallest, largest = 16, 512
	if c := r.spare; c != nil {
		r.spare = nil
		*c = fact.Conn{}
		return c
	}
	if len(r.conns) == 0 {
		r.slab = min(max(2*r.slab, smallest), largest)
		r.conns = make([]fact.Conn, r.slab)
	}
	c := &r.conns[0]
	r.conns = r.conns[1:]
	return c
}

// path returns b as a string, the same string for the same bytes: thousands of
// accepted sockets carry the path of their listener.
func (r *reader) path(b []byte) string {
	if s, ok := r.paths[string(b)]; ok {
		return s
	}
	if r.paths == nil {
		r.paths = make(map[string]string)
	}
	s := fact.Printable(string(b)) // any process chooses its own
	r.paths[string(b)] = s
	return s
}
