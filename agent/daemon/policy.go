package daemon

import (
	"slices"

	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/state"
)

// SetPolicy puts a policy in force, from the next State on, and publishes told
// as what it is. Nothing that was seen is forgotten: what one policy leaves out
// is there again with the next. Names that it watches are looked up at once. It
// acts on nothing: package guard does.
func (d *Daemon) SetPolicy(p *policy.Policy, told state.Policy) {
	told.Acts = list(slices.Clone(told.Acts))
	anew := false
	d.take(func(k *known) {
		anew = !slices.Equal(watched(k.policy), watched(p))
		k.policy, k.told = p, told
	})
	if anew {
		d.hurry(fromNames)
	}
}

// watched are the names that a policy has looked up; nil has none.
func watched(p *policy.Policy) []string {
	if p == nil {
		return nil
	}
	return p.Names
}

// kept leaves out what the policy ignores. What an ignored finding explains
// stands for itself.
func kept(p *policy.Policy, all []state.Finding) []state.Finding {
	if p == nil {
		return all
	}
	gone := make(map[string]bool)
	all = slices.DeleteFunc(all, func(f state.Finding) bool {
		ignored := p.Ignores(&f.Finding)
		if ignored {
			gone[f.ID] = true
		}
		return ignored
	})
	hides := make(map[string]int)
	for i := range all {
		if f := &all[i]; gone[f.Cause] {
			f.Cause = ""
		} else if f.Cause != "" && f.Resolved == nil {
			hides[f.Cause]++
		}
	}
	for i := range all {
		all[i].Hides = min(all[i].Hides, hides[all[i].ID])
	}
	return all
}
