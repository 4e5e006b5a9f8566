package fact

import (
	"net/netip"
	"time"
)

// Openings are the sockets that were opened while a watch went on and are open
// still, at one look. Its times are on the watch's own clock, which began with
// it and does not jump.
type Openings struct {
	Now      time.Duration
	Open     []Opening
	Made     []Made
	Programs []Opener         // by PID
	Peers    map[int32]string // names of the processes at the other ends
	Dropped  uint64           // sockets that were opened and not noted, as too many are open
	Blind    []Blind
}

// Opening is an open socket and who opened it.
type Opening struct {
	ID        uint64 // no other socket of the watch has it
	PID       int32  // who opened it
	Protocol  Protocol
	State     State
	Accepted  bool           // the other end connected
	Local     netip.AddrPort // of IP sockets
	Remote    netip.AddrPort
	Path      string // unix: the name of the end that has one
	Netns     uint32
	PeerInode uint32 // unix: the other end; 0 = unknown
	Peer      int32  // PID of the process at the other end, where that is on this machine; 0 = unknown
	Born      time.Duration
	Used      Known[time.Duration] // when it last sent or received; Born when it never did

	// Stacks are shared by the sockets that have the same.
	At     *Trace
	Asked  []*Trace // the goroutine that asked for it, the one that started that, and so on; nil where it is unknown
	UsedBy *Trace   // the code that used it last, or not long before; nil where it is unknown
	Client uint64   // tells the http.Transports apart that sockets were opened for; 0 = unknown
}

// Made is how many sockets were opened at one stack, those that are closed too.
type Made struct {
	At    *Trace
	Count uint64
}

// Trace is a stack of calls, innermost first, with those that were inlined.
type Trace struct {
	Calls   []Call
	Cut     bool   // it goes on
	Unknown string // why there are no calls, or why these are not lines of source: in words
}

// Opener is a process that opens sockets.
type Opener struct {
	PID       int32
	Name      string
	Container string
	Module    string // main module of a Go program
	Go        string // version of the Go that built it; "" = not Go, or unknown
	Older     int    // sockets that it opened before the watch began
	Files     Known[Files]
	Waits     Known[HTTPWaits]
}

// HTTPWaits is what the connections of an http.Transport wait for.
type HTTPWaits struct {
	Bodies int // for the program to read or close the body of the response
	Idle   int // for the next request
}
