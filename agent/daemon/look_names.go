package daemon

import (
	"context"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

const (
	namesEvery = time.Minute

	// nameRest is how long is rested for each watched name: it takes some 30
	// questions, so that nameservers get no more than two a second.
	nameRest = 15 * time.Second

	// Programs are files that a package or a build replaces now and then. The first
	// look at them takes long, as it is meant to be cheap.
	programsEvery = 10 * time.Minute
	programsTime  = 5 * time.Minute
)

// lookNames asks the nameservers, and for the names that the policy watches in
// every way, and reads how names are resolved.
func (d *Daemon) lookNames(ctx context.Context, n *node.Node) (time.Duration, error) {
	w := d.options.Naming
	w.Probe, w.Places, w.Always = !d.options.Passive, nil, false
	d.mu.Lock()
	w.Programs = d.known.programs
	if !d.options.Passive {
		w.Lookup = watched(d.known.policy)
	}
	d.mu.Unlock()
	m, err := n.Names(ctx, w)
	if err != nil {
		return 0, err
	}
	found := slices.DeleteFunc(verdict.Judge(m), func(f verdict.Finding) bool { return f.Promise != verdict.Names })
	doctor, blind := doctor(m), slices.Clone(m.Blind)
	d.take(func(k *known) {
		k.names = doctor
		k.found(m.Time, fromNames, found, blind)
	})
	return max(namesEvery, time.Duration(len(w.Lookup))*nameRest), nil
}

// lookPrograms looks at the programs of this machine, for what resolves their
// names. What that means is judged with the nameservers.
func (d *Daemon) lookPrograms(ctx context.Context, n *node.Node) (time.Duration, error) {
	found, blind := n.Programs(ctx, d.options.Naming.Places)
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	first := false
	d.take(func(k *known) {
		first = k.programs == nil
		k.programs = found
		k.found(time.Now(), fromFiles, nil, blind)
	})
	if first {
		d.hurry(fromNames)
	}
	return programsEvery, nil
}
