package names

// system returns the ways that speak for the operating system, in the order in
// which they are asked.
func (r *Resolver) system(c *config, p plan) []Way {
	if r.System != nil {
		return r.System
	}
	var ways []Way
	if c.nscd {
		ways = append(ways, NSCD(r.Root))
	}
	ways = append(ways, Registered()...)
	if p.varlink {
		ways = append(ways, Varlink(r.Root))
	}
	if c.getent.(getentWay).path != "" {
		ways = append(ways, c.getent)
	}
	return ways
}

// planFor is the plan for a name.
func (r *Resolver) planFor(c *config, host string) plan { return c.plan(host) }

// left reports whether all is left to package net.
func (r *Resolver) left() bool { return false }
