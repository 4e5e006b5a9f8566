package daemon

import (
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
)

// recount counts the TCP sockets of some namespaces again, of which the kernel
// counts so many now, and publishes that in place of what was counted there. It
// takes less than a census, which brings the rest. What cannot be read stays
// as it was.
func (d *Daemon) recount(kernel *node.Populations, of []uint32, now map[uint32]int, shown *counts) {
	fresh := make(map[uint32]*tally, len(of))
	for _, netns := range of {
		fresh[netns] = newTally(shown.tallies[netns])
	}
	if kernel.Tally(of, func(s *fact.Socket) { fresh[s.Netns].add(s) }) != nil {
		return // the looks name what cannot be seen
	}
	c := shown.recounted(fresh, now)
	d.take(func(k *known) {
		if k.counts.population == shown.population { // else there has been a census, and the next count compares with that
			k.counts = c
		}
	})
}
