package goroutines

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Which connection a goroutine waits for.
//
// One that waits for the poller has the runtime's record of its descriptor
// (pollDesc, runtime/netpoll.go) in the innermost frames of its stack, and that
// record names the goroutine which waits: where both name each other, there is
// no doubt. One that waits for another goroutine of an SSH connection has the
// connection's mux or channel there, which lead to the transport that the
// connection's reader has in its stack. Nothing else is concluded: of all others
// the connection is unknown.

const (
	mostWords = 512  // of a stack that are looked at, from the innermost frame
	mostPolls = 2000 // goroutines of one program whose descriptor is looked for
)

// pollers are how pollDesc began, in the versions of Go since 1.18.
var pollers = [][]string{{"_", "link", "fd", "fdseq"}, {"_", "link", "fd", "atomicInfo"}, {"link", "fd", "fdseq"}, {"link", "fd", "atomicInfo"}, {"link", "lock", "fd"}}

const (
	sshPackage = "golang.org/x/crypto/ssh."
	sshReader  = sshPackage + "(*handshakeTransport).readLoop"
)

// connections finds the connections of goroutines.
type connections struct {
	t       *Target
	fd      uint64 // offsets in pollDesc
	rg, wg  uint64
	polls   bool   // the offsets are known
	left    int    // goroutines that may still be looked at
	conn    uint64 // offset of the transport in golang.org/x/crypto/ssh.mux
	mux     uint64 // offset of the mux in its channel
	hasSSH  bool
	readers map[uint64][]uint32 // sockets by what the stacks of their SSH readers hold
	waiters []waiter            // of SSH
}

// waiter is a goroutine that waits for a reader.
type waiter struct {
	index int // in the list of parked goroutines
	words []uint64
}

func newConnections(t *Target) *connections {
	c := &connections{t: t, left: mostPolls, readers: make(map[uint64][]uint32)}
	for _, first := range pollers {
		l, err := t.table.Struct(first...)
		if err != nil {
			continue
		}
		rg, r := l["rg"]
		wg, w := l["wg"]
		c.fd, c.rg, c.wg, c.polls = l["fd"].Offset, rg.Offset, wg.Offset, r && w && max(rg.Offset, wg.Offset) < 1024
		break
	}
	mux, err := t.table.Struct("conn", "chanList", "incomingChannels")
	channel, failed := t.table.Struct("chanType", "extraData", "localId", "remoteId")
	if at, found := channel["mux"]; err == nil && failed == nil && found {
		c.conn, c.mux, c.hasSSH = mux["conn"].Offset, at.Offset, true
	}
	return c
}

// stack reads the innermost words of a goroutine's stack.
func (c *connections) stack(r *record) []uint64 {
	words, err := c.t.words(r.sp, int(min((r.hi-r.sp)/8, mostWords)))
	if err != nil {
		return nil
	}
	return words
}

// polled returns the socket that a goroutine waits for in the poller.
func (c *connections) polled(r *record, words []uint64) fact.Known[uint32] {
	if !c.polls || c.left == 0 {
		return fact.Known[uint32]{}
	}
	c.left--
	size := int(max(c.fd, c.rg, c.wg))/8 + 1
	tried := make(map[uint64]bool)
	for _, at := range words {
		if at%8 != 0 || at < 1<<16 || at >= 1<<48 || at >= r.lo && at < r.hi || tried[at] {
			continue
		}
		tried[at] = true
		desc, err := c.t.words(at, size)
		if err != nil || desc[c.rg/8] != r.g && desc[c.wg/8] != r.g {
			continue
		}
		socket := c.t.socket(desc[c.fd/8])
		again, err := c.t.words(at, size) // or the descriptor may be another's by now
		if err != nil || again[c.fd/8] != desc[c.fd/8] || again[c.rg/8] != r.g && again[c.wg/8] != r.g {
			break
		}
		return socket
	}
	return fact.Known[uint32]{}
}

// socket returns the inode of the socket at a descriptor of the process.
func (t *Target) socket(fd uint64) fact.Known[uint32] {
	link, err := os.Readlink("/proc/" + strconv.Itoa(int(t.pid)) + "/fd/" + strconv.FormatUint(fd, 10))
	if err != nil {
		return fact.Known[uint32]{}
	}
	text, isSocket := strings.CutPrefix(strings.TrimSuffix(link, "]"), "socket:[")
	inode, err := strconv.ParseUint(text, 10, 32)
	if !isSocket || err != nil {
		return fact.Known[uint32]{}
	}
	return fact.Seen(uint32(inode))
}

// see looks at a goroutine that waits. It is to be called before the goroutine
// is known to have stayed so.
func (c *connections) see(r *record, t *trace) (words []uint64, socket fact.Known[uint32]) {
	switch {
	case t.state == "IO wait":
		socket = c.polled(r, c.stack(r))
	case c.hasSSH && r.status == waiting && slices.ContainsFunc(t.calls, ofSSH):
		words = c.stack(r)
	}
	return words, socket
}

// ofSSH reports a function that has a mux or a channel.
func ofSSH(f fact.Call) bool {
	return strings.HasPrefix(f.Func, sshPackage+"(*mux).") || strings.HasPrefix(f.Func, sshPackage+"(*channel).")
}

// read finds the readers of SSH connections among goroutines that waited in the
// last look; they may have run since, as those of a living connection do.
func (c *connections) read(last []record) {
	entry, end, ok := c.t.table.Extent(sshReader)
	if !ok {
		return
	}
	for i := range last {
		r := &last[i]
		if r.status != waiting || !r.waits() || c.left == 0 {
			continue
		}
		words := c.stack(r)
		if !slices.ContainsFunc(words, func(pc uint64) bool { return pc > entry && pc < end }) {
			continue
		}
		socket, found := c.polled(r, words).Get()
		if !found {
			continue
		}
		for _, w := range words {
			if inHeap(w) && !slices.Contains(c.readers[w], socket) {
				c.readers[w] = append(c.readers[w], socket)
			}
		}
	}
}

// join gives the goroutines that wait for a reader its socket, where all that
// they have leads to one.
func (c *connections) join(all []fact.Goroutine, last []record) {
	if len(c.waiters) > 0 {
		c.read(last)
	}
	for _, w := range c.waiters {
		var found []uint32
		for _, at := range slices.Compact(slices.Sorted(slices.Values(w.words))) {
			if !inHeap(at) {
				continue
			}
			socket, ok := c.behind(at)
			if !ok {
				if mux, err := c.t.words(at+c.mux, 1); err == nil && inHeap(mux[0]) {
					socket, ok = c.behind(mux[0])
				}
			}
			if ok && !slices.Contains(found, socket) {
				found = append(found, socket)
			}
		}
		if len(found) == 1 {
			all[w.index].Socket = fact.Seen(found[0])
		}
	}
}

// behind returns the socket of the one reader that works for what may be a mux:
// its first field is an interface, so it begins with an address of the program's
// own data and then has that of the transport.
func (c *connections) behind(mux uint64) (socket uint32, ok bool) {
	words, err := c.t.words(mux+c.conn, 2)
	if err != nil || !inHeap(words[1]) || c.t.table.Read(words[0], 8) == nil {
		return 0, false
	}
	sockets := c.readers[words[1]]
	if len(sockets) != 1 {
		return 0, false
	}
	return sockets[0], true
}

// inHeap reports what may be the address of something that the program has
// allocated. Where its heap begins differs: at random since Go 1.26.
func inHeap(at uint64) bool { return at%8 == 0 && at >= 1<<32 && at < 1<<47 }
