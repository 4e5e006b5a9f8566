package node

import (
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/netns"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
)

// Populations counts the TCP sockets of all network namespaces, by the kernel's
// own count: 20 µs for each namespace, however many sockets it has. The zero
// Populations is ready. One goroutine may use it at a time.
type Populations struct {
	Of     Namespaces // the zero value is all
	Spaces *Spaces    // nil: it lists them itself
	spaces []fact.Namespace
	listed time.Time
}

// Count returns how many TCP sockets each namespace has, by its inode; those in
// TIME_WAIT are not counted. A namespace that is made is counted within 5 s, one
// that cannot be read is left out.
func (p *Populations) Count() map[uint32]int {
	if p.listed.IsZero() || time.Since(p.listed) > relist {
		l := look{Machine: &fact.Machine{}, want: Want{Namespaces: p.Of}}
		p.spaces, _ = l.choose(p.Spaces, relist) // what cannot be seen is named by the looks
		p.listed = time.Now()
	}
	all := make(map[uint32]int, len(p.spaces))
	for _, ns := range p.spaces {
		n, ok := 0, false
		if ns.PID != 0 {
			n, ok = sockdiag.Population(ns.PID)
		}
		if !ok { // its process has ended, or it has none
			err := netns.Do(ns, func() error {
				n, ok = sockdiag.Population(0)
				return nil
			})
			ok = ok && err == nil
		}
		if ok {
			all[ns.Inode] = n
		}
	}
	return all
}

// Total returns how many TCP sockets the kernel has in all its network namespaces,
// those in TIME_WAIT left out and those that are not connected among them; negative
// where it does not tell. It takes some 20 µs.
func (p *Populations) Total() int {
	if n, ok := sockdiag.Allocated(); ok {
		return n
	}
	return -1
}

// Tally calls each with every TCP socket of some of the namespaces that the last
// [Populations.Count] returned, those in TIME_WAIT left out. A socket has no
// fact.Conn, and is good until each returns. For each namespace the kernel walks the
// table of all.
//
// After an error what each was called with is not to be counted. A namespace that
// is gone is no error.
func (p *Populations) Tally(of []uint32, each func(*fact.Socket)) error {
	for _, ns := range p.spaces {
		if !slices.Contains(of, ns.Inode) {
			continue
		}
		err := netns.Do(ns, func() error { return sockdiag.Tally(ns.Inode, each) })
		if err != nil && !isGone(err) {
			return err
		}
	}
	return nil
}
