package census

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Key is something that sockets are counted by.
type Key string

// The keys.
const (
	Peer      Key = "peer"      // address of the other end; of a unix socket the process there
	Net       Key = "net"       // network of the peer
	Port      Key = "port"      // of the service: ":8080" where it is served here, ">443" where it is called
	Process   Key = "process"   // name[pid] of the first owner
	Program   Key = "program"   // name of the first owner, all its processes together
	Container Key = "container" // of the first owner: id and runtime
	Unit      Key = "unit"      // systemd unit of the first owner
	State     Key = "state"
	Family    Key = "family"
	Protocol  Key = "protocol"
	Netns     Key = "netns"
)

// Keys lists all keys, in the order in which help shows them.
var Keys = []Key{Peer, Net, Port, Process, Program, Container, Unit, State, Family, Protocol, Netns}

// ParseKeys reads a list such as "peer,state".
func ParseKeys(list string) ([]Key, error) {
	var keys []Key
	for word := range strings.SplitSeq(list, ",") {
		key, err := parseKey(strings.TrimSpace(word))
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			if k == key {
				return nil, fmt.Errorf("%q is there twice", key)
			}
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func parseKey(word string) (Key, error) {
	names := make([]string, len(Keys))
	for i, key := range Keys {
		if word == string(key) {
			return key, nil
		}
		names[i] = string(key)
	}
	return "", fmt.Errorf("cannot count by %q: take one or several of %s", word, strings.Join(names, ","))
}

// The words for what a socket does not have.
const (
	noPeer      = "(unconnected)"
	listening   = "(listening)"
	noOwner     = "(no process)"
	notKnown    = "(unknown)"
	noContainer = "(host)"
	noUnit      = "(no unit)"
)

// keyed computes the keys of sockets of one machine.
type keyed struct {
	*fact.Machine
	bits      int // of an IPv4 peer network
	listeners map[listener]bool
	inodes    map[uint32]int32 // unix sockets by inode, to find the other end
}

// listener is a port that a namespace serves.
type listener struct {
	netns uint32
	port  uint16
}

func newKeyed(m *fact.Machine, by []Key, bits int) *keyed {
	k := &keyed{Machine: m, bits: bits}
	for _, key := range by {
		switch key {
		case Port:
			k.listeners = make(map[listener]bool)
			for i := range m.Sockets {
				if s := &m.Sockets[i]; s.State == fact.Listen && s.Family != fact.Unix {
					k.listeners[listener{s.Netns, s.Local.Port()}] = true
				}
			}
		case Peer, Net:
			k.inodes = make(map[uint32]int32)
			for i := range m.Sockets {
				if s := &m.Sockets[i]; s.Family == fact.Unix {
					k.inodes[s.Inode] = int32(i)
				}
			}
		}
	}
	return k
}

// identity appends bytes that are equal for two sockets exactly when their
// labels are. It runs once for every socket, label once for every group.
func (k *keyed) identity(buf []byte, s *fact.Socket, key Key) []byte {
	switch key {
	case Peer, Net:
		if other := k.other(s); other != nil {
			buf = binary.NativeEndian.AppendUint32(buf, uint32(firstOwner(other)))
			return append(append(buf, other.Path...), 0)
		}
		if !connected(s) {
			return append(append(buf, k.peer(s)...), 0)
		}
		addr := s.Remote.Addr()
		if key == Net {
			addr = k.network(addr).Addr()
		}
		bytes := addr.As16()
		return append(buf, bytes[:]...)
	case Process, Program, Container, Unit:
		if key == Process {
			return binary.NativeEndian.AppendUint32(buf, uint32(firstOwner(s)))
		}
		return append(append(buf, k.label(s, key)...), 0)
	case State:
		return append(append(buf, s.StateName()...), 0)
	case Family:
		return append(buf, byte(s.Family))
	case Protocol:
		return append(buf, byte(s.Protocol))
	case Netns:
		return binary.NativeEndian.AppendUint32(buf, s.Netns)
	}
	return append(append(buf, k.label(s, key)...), 0)
}

// label is what people read.
func (k *keyed) label(s *fact.Socket, key Key) string {
	switch key {
	case Peer:
		return k.peer(s)
	case Net:
		if !connected(s) {
			return k.peer(s)
		}
		return k.network(s.Remote.Addr()).String()
	case Port:
		return k.port(s)
	case State:
		return s.StateName()
	case Family:
		return s.Family.String()
	case Protocol:
		return s.Protocol.String()
	case Netns:
		return k.netns(s)
	}
	return k.owner(s, key)
}

// connected reports whether s has a peer with an address.
func connected(s *fact.Socket) bool {
	return s.Family != fact.Unix && s.Remote.IsValid() && s.Remote.Port() != 0
}

// other is the other end of a unix socket, nil when there is none that was seen.
func (k *keyed) other(s *fact.Socket) *fact.Socket {
	if s.Family != fact.Unix || s.PeerInode == 0 {
		return nil
	}
	i, ok := k.inodes[s.PeerInode]
	if !ok {
		return nil
	}
	return &k.Sockets[i]
}

// peer is the address of the other end; of a unix socket the process there, and
// the path that it serves.
func (k *keyed) peer(s *fact.Socket) string {
	other := k.other(s)
	switch {
	case s.State == fact.Listen:
		return listening
	case connected(s):
		return s.Remote.Addr().String()
	case other == nil && s.PeerInode != 0:
		return notKnown
	case other == nil:
		return noPeer
	}
	name := "unix " + noOwner
	if pid := firstOwner(other); pid != 0 {
		name = "unix " + k.processName(pid)
	}
	if other.Path != "" {
		name += " " + other.Path
	}
	return name
}

func (k *keyed) network(addr netip.Addr) netip.Prefix {
	bits := 64
	if addr.Is4() {
		bits = k.bits
	}
	prefix, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.PrefixFrom(addr, addr.BitLen())
	}
	return prefix
}

func (k *keyed) port(s *fact.Socket) string {
	switch {
	case s.Family == fact.Unix:
		return "-"
	case s.State == fact.Listen || !connected(s) || k.listeners[listener{s.Netns, s.Local.Port()}]:
		return ":" + strconv.Itoa(int(s.Local.Port()))
	}
	return ">" + strconv.Itoa(int(s.Remote.Port()))
}

func (k *keyed) netns(s *fact.Socket) string {
	if ns := k.Namespace(s.Netns); ns != nil && ns.Name != "" {
		return ns.Name
	}
	return strconv.FormatUint(uint64(s.Netns), 10)
}

func (k *keyed) owner(s *fact.Socket, key Key) string {
	pid := firstOwner(s)
	if pid == 0 {
		return noOwner
	}
	if key == Process {
		return k.processName(pid)
	}
	p := k.Machine.Process(pid)
	switch {
	case p == nil:
		return notKnown
	case key == Program:
		return p.Name
	case key == Unit && p.Unit == "":
		return noUnit
	case key == Unit:
		return p.Unit
	case p.Container == "":
		return noContainer
	}
	return strings.TrimSpace(p.Runtime + " " + p.Container[:min(12, len(p.Container))])
}

func (k *keyed) processName(pid int32) string {
	name := notKnown
	if p := k.Machine.Process(pid); p != nil {
		name = p.Name
	}
	return name + "[" + strconv.Itoa(int(pid)) + "]"
}

// firstOwner is the PID that a shared socket is counted under, 0 for none.
func firstOwner(s *fact.Socket) int32 {
	if len(s.Owners) == 0 {
		return 0
	}
	return s.Owners[0].PID
}
