//go:build linux

package stub

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// Network is one of the four that the stub listens on.
type Network int

const (
	UDP4 Network = iota
	UDP6
	TCP4
	TCP6
	networks
)

// trusted is how long a port is answered that has asked nothing: its socket may
// be closed by then, and the port another's.
const trusted = time.Hour

// PortsSize is how many words [NewPorts] needs.
const PortsSize = int(networks) << 16

// Ports are the ports on the loopback interface from which the stub is asked: by
// sockets that were connected to it on behalf of their program. They are kept in
// memory of a fixed size, which processes can share.
type Ports struct{ words []uint32 }

// NewPorts returns the ports in some memory, at first all zero, of [PortsSize]
// words.
func NewPorts(words []uint32) *Ports { return &Ports{words[:PortsSize]} }

// A word is a time in minutes, shifted, and the bit whole.
func now() uint32 { return uint32(time.Now().Unix()/60) << 1 }

// Allow makes the stub answer a port. Whole is for whom it should answer with
// what fits a datagram instead of asking to be asked over TCP.
func (p *Ports) Allow(network Network, port uint16, whole bool) {
	word := now()
	if whole {
		word |= 1
	}
	atomic.StoreUint32(p.word(network, port), word)
}

// Allowed reports that it should answer.
func (p *Ports) Allowed(network Network, from netip.AddrPort) (ok, whole bool) {
	if !from.Addr().Unmap().IsLoopback() {
		return false, false
	}
	at := p.word(network, from.Port())
	word := atomic.LoadUint32(at)
	when := now()
	if word == 0 || time.Duration(when>>1-word>>1)*time.Minute > trusted {
		return false, false
	}
	if word&^1 != when {
		atomic.CompareAndSwapUint32(at, word, when|word&1)
	}
	return true, word&1 == 1
}

func (p *Ports) word(network Network, port uint16) *uint32 {
	return &p.words[int(network)<<16|int(port)]
}
