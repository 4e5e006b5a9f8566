package node

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/goroutines"
	"github.com/lifeline-go/lifeline/agent/source/opener"
	"github.com/lifeline-go/lifeline/agent/source/procfs"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
)

const (
	mostAsked = 8                     // Go programs whose goroutines are asked what they wait for
	apartTime = 50 * time.Millisecond // between the looks at them
)

// Ends adds to a look what a census of the machine says: the processes at the
// other ends, how many sockets are older than the watch, and how many files each
// process may open; and of Go programs that use net/http, what their connections
// wait for.
func (o *Openers) Ends(ctx context.Context, all *fact.Openings) error {
	m, err := o.node.Look(ctx, Want{Held: true})
	if err != nil {
		return err
	}
	defer o.node.Recycle(m)
	o.missing(all, m)
	o.peers(all, m)
	o.older(all, m)
	var pids []int32
	for i := range all.Programs {
		pids = append(pids, all.Programs[i].PID)
	}
	processes, _ := procfs.FS{}.ReadAll(pids, procfs.Full)
	for i := range processes {
		if p := program(all, processes[i].PID); p != nil {
			p.Files, p.Container = processes[i].Files, processes[i].Container
		}
	}
	o.ends = ends{peers: make(map[uint64]int32), names: all.Peers, programs: all.Programs}
	for i := range all.Open {
		o.ends.peers[all.Open[i].ID] = all.Open[i].Peer
	}
	return waits(ctx, all)
}

// ends is what the last census said, for looks that come when those who could be
// asked have ended.
type ends struct {
	peers    map[uint64]int32
	names    map[int32]string
	programs []fact.Opener
}

// recall fills in what the last census said.
func (e *ends) recall(all *fact.Openings) {
	all.Peers = e.names
	for i := range all.Open {
		all.Open[i].Peer = e.peers[all.Open[i].ID]
	}
	for i := range e.programs {
		if p := program(all, e.programs[i].PID); p != nil {
			was := &e.programs[i]
			p.Files, p.Container, p.Older, p.Waits = was.Files, was.Container, was.Older, was.Waits
		}
	}
}

// program finds a process in a look.
func program(all *fact.Openings, pid int32) *fact.Opener {
	at, found := slices.BinarySearchFunc(all.Programs, pid, func(p fact.Opener, pid int32) int { return int(p.PID - pid) })
	if !found {
		return nil
	}
	return &all.Programs[at]
}

// missing adds the processes that were asked for and opened nothing.
func (o *Openers) missing(all *fact.Openings, m *fact.Machine) {
	if o.want.Only == nil {
		return
	}
	for i := range m.Processes {
		p := &m.Processes[i]
		at, found := slices.BinarySearchFunc(all.Programs, p.PID, func(p fact.Opener, pid int32) int { return int(p.PID - pid) })
		if !found && o.want.Only(p.PID, p.Name) {
			all.Programs = slices.Insert(all.Programs, at, fact.Opener{PID: p.PID, Name: p.Name})
		}
	}
}

// peers finds the processes at the other ends on this machine.
func (o *Openers) peers(all *fact.Openings, m *fact.Machine) {
	type pair struct{ local, remote netip.AddrPort }
	pairs := make(map[pair]int32)
	for i := range all.Open {
		if one := &all.Open[i]; one.Remote.IsValid() {
			pairs[pair{one.Remote, one.Local}] = 0
		}
	}
	inodes := make(map[uint32]int32)
	for i := range m.Sockets {
		s := &m.Sockets[i]
		if len(s.Owners) == 0 {
			continue
		}
		if s.Family == fact.Unix {
			inodes[s.Inode] = s.Owners[0].PID
		} else if k := (pair{s.Local, s.Remote}); s.Remote.Port() != 0 {
			if _, asked := pairs[k]; asked {
				pairs[k] = s.Owners[0].PID
			}
		}
	}
	for i := range all.Open {
		one := &all.Open[i]
		found := inodes[one.PeerInode]
		if one.Remote.IsValid() {
			found = pairs[pair{one.Remote, one.Local}]
		}
		if found != 0 { // the process that was there may have ended
			one.Peer = found
		}
	}
	o.named(all, m)
}

// named adds the names of the processes at the other ends.
func (o *Openers) named(all *fact.Openings, m *fact.Machine) {
	all.Peers = maps.Clone(all.Peers)
	if all.Peers == nil {
		all.Peers = make(map[int32]string)
	}
	for i := range all.Open {
		if pid := all.Open[i].Peer; pid != 0 && all.Peers[pid] == "" {
			if p := m.Process(pid); p != nil {
				all.Peers[pid] = p.Name
			}
		}
	}
}

// older counts the connections that were open before the watch began.
func (o *Openers) older(all *fact.Openings, m *fact.Machine) {
	for i := range all.Programs {
		all.Programs[i].Older = 0
	}
	noted := make(map[uint32]bool, len(o.noted))
	for _, inode := range o.noted {
		noted[inode] = true
	}
	for i := range m.Sockets {
		s := &m.Sockets[i]
		if s.State != fact.Established && s.State != fact.CloseWait || noted[s.Inode] || len(s.Owners) == 0 {
			continue
		}
		if s.Family == fact.Unix && s.PeerInode == 0 {
			continue
		}
		if p := program(all, s.Owners[0].PID); p != nil {
			p.Older++
		}
	}
}

// waits asks Go programs with connections of net/http what these wait for: to be
// used again, or for somebody to read what came.
func waits(ctx context.Context, all *fact.Openings) error {
	var pids []int32
	for i := range all.Open {
		one := &all.Open[i]
		if (throughHTTP(one.At) || slices.ContainsFunc(one.Asked, throughHTTP)) && !slices.Contains(pids, one.PID) && len(pids) < mostAsked {
			pids = append(pids, one.PID)
		}
	}
	var targets []*goroutines.Target
	for _, pid := range pids {
		if t, err := goroutines.Open(pid); err == nil { // who may not be asked is not
			targets = append(targets, t)
			defer t.Close()
		}
	}
	for i := range 2 {
		if i > 0 && len(targets) > 0 {
			if err := sleep(ctx, apartTime); err != nil {
				return err
			}
		}
		targets = slices.DeleteFunc(targets, func(t *goroutines.Target) bool { return t.Look() != nil })
	}
	for _, t := range targets {
		parked, err := t.Parked()
		if p := program(all, parked.PID); err == nil && p != nil {
			p.Waits = fact.Seen(httpWaits(&parked))
		}
	}
	return nil
}

func httpWaits(g *fact.Goroutines) (w fact.HTTPWaits) {
	for i := range g.Parked {
		p := &g.Parked[i]
		if !slices.ContainsFunc(p.Stack, func(c fact.Call) bool { return c.Func == "net/http.(*persistConn).readLoop" }) {
			continue
		}
		if strings.HasPrefix(p.State, "select") {
			w.Bodies++
		} else {
			w.Idle++
		}
	}
	return w
}

// lastUse is what the kernel says of TCP without being watched.
func lastUse(one *opener.Socket, s *fact.Socket, now time.Duration) {
	if s.Conn != nil {
		one.Used = max(now-min(s.Conn.LastSent, s.Conn.LastReceived), one.Born+1)
	}
}

// used adds when TCP connections were last used.
func (o *Openers) used(ctx context.Context, list []opener.Socket) error {
	m, err := o.node.Look(ctx, Want{Sockets: sockdiag.Want{TCP: true}, Held: true})
	if err != nil {
		return err
	}
	defer o.node.Recycle(m)
	now, index := monotonic(), make(map[uint32]*opener.Socket, len(list))
	for i := range list {
		index[list[i].Inode] = &list[i]
	}
	for i := range m.Sockets {
		if one := index[m.Sockets[i].Inode]; one != nil {
			lastUse(one, &m.Sockets[i], now)
		}
	}
	return nil
}

// fill adds what the kernel does not keep with records by inode, and forgets
// those whose socket is gone.
func (o *Openers) fill(ctx context.Context, list []opener.Socket) ([]opener.Socket, error) {
	m, err := o.node.Look(ctx, Want{Held: true})
	if err != nil {
		return nil, err
	}
	defer o.node.Recycle(m)
	now, index := monotonic(), make(map[uint32]*fact.Socket, len(m.Sockets))
	for i := range m.Sockets {
		if s := &m.Sockets[i]; s.Inode != 0 {
			index[s.Inode] = s
		}
	}
	var gone, left []opener.Socket
	for _, one := range list {
		s := index[one.Inode]
		if s == nil {
			gone = append(gone, one)
			continue
		}
		one.Cookie, one.Netns, one.Protocol, one.Family, one.State = s.Cookie, s.Netns, s.Protocol, s.Family, s.State
		one.Local, one.Remote, one.Peer, one.Path, one.Own = s.Local, s.Remote, s.PeerInode, s.Path, s.Path != ""
		if end := index[s.PeerInode]; s.Path == "" && end != nil {
			one.Path = end.Path
		}
		lastUse(&one, s, now)
		left = append(left, one)
	}
	o.sockets.Forget(gone)
	return left, nil
}
