// Package profile says which capabilities(7) Lifeline needs for what, and what
// is lost without them. It is data and arithmetic: who holds what is asked
// elsewhere, and the tests of the command hold the table against a kernel.
//
// There are two profiles. With the rights of [Observe] all is seen that the agent
// and lifeline check look at, and no connection of others can be cut, poked or
// reset: the kernel itself refuses. With those of [Act] it can. That is no wall
// against an attacker: CAP_SYS_ADMIN and CAP_SYS_PTRACE, which looking needs, are
// as good as root.
package profile

import (
	"slices"
	"strings"
)

// Capability is a number of capabilities(7).
type Capability uint

// The capabilities that Lifeline has a use for.
const (
	DacReadSearch Capability = 2
	NetAdmin      Capability = 12
	NetRaw        Capability = 13
	SysPtrace     Capability = 19
	SysAdmin      Capability = 21
	Perfmon       Capability = 38
	BPF           Capability = 39
)

var names = map[Capability]string{
	DacReadSearch: "CAP_DAC_READ_SEARCH", NetAdmin: "CAP_NET_ADMIN", NetRaw: "CAP_NET_RAW", SysPtrace: "CAP_SYS_PTRACE",
	SysAdmin: "CAP_SYS_ADMIN", Perfmon: "CAP_PERFMON", BPF: "CAP_BPF",
}

// String returns the name as manual pages have it, such as CAP_SYS_PTRACE.
func (c Capability) String() string { return names[c] }

// Name is what somebody's rights allow.
type Name string

// The profiles, each with all that the one before has.
const (
	Partial Name = "partial" // less than Observe: something stays unseen
	Observe Name = "observe" // all is seen
	Act     Name = "act"     // and can be acted on
)

// Feature is something that Lifeline does where its rights allow.
type Feature struct {
	Name    string
	Profile Name           // the first that has it
	Ways    [][]Capability // any one of these sets is enough; the profiles have the first
	Lost    string         // what is missing without
}

// Features are all that need a right. What is not here needs none.
var Features = []Feature{
	{
		Name: "owners", Profile: Observe, Ways: [][]Capability{{SysAdmin}, {BPF, Perfmon}, {SysPtrace, DacReadSearch}},
		Lost: "whose sockets they are, and how long their silence can last, is not known of other users' programs",
	},
	{
		Name: "namespaces", Profile: Observe, Ways: [][]Capability{{SysAdmin, SysPtrace}},
		Lost: "sockets in containers and other network namespaces are not seen",
	},
	{
		Name: "events", Profile: Observe, Ways: [][]Capability{{SysAdmin}, {BPF, Perfmon}},
		Lost: "retransmissions and resets are not told by the kernel: all sockets are looked at more often, which costs more",
	},
	{
		Name: "leaks", Profile: Observe, Ways: [][]Capability{{SysAdmin}, {BPF, Perfmon, NetAdmin}},
		Lost: "which code opens sockets and does not close them is not seen",
	},
	{
		Name: "programs", Profile: Observe, Ways: [][]Capability{{SysPtrace, DacReadSearch}},
		Lost: "executables and goroutines of other users' programs are not read: no lines of code, no calls that wait, not how they resolve names",
	},
	{
		Name: "pokes", Profile: Act, Ways: [][]Capability{{NetAdmin, SysPtrace}},
		Lost: "peers are not asked whether they live: a verdict on one with few connections takes 5 to 15 s, not 2",
	},
	{
		Name: "pings", Profile: Act, Ways: [][]Capability{{NetRaw}},
		Lost: "a peer that does not answer a poke is not pinged as well",
	},
	{
		Name: "transit", Profile: Act, Ways: [][]Capability{{NetAdmin}},
		Lost: "flows that this node only forwards are counted and not told apart",
	},
	{
		Name: "cut", Profile: Act, Ways: [][]Capability{{NetAdmin}},
		Lost: "connections cannot be cut",
	},
	{
		Name: "tune", Profile: Act, Ways: [][]Capability{{SysAdmin}, {BPF, Perfmon, NetAdmin}, {SysPtrace, DacReadSearch}},
		Lost: "keepalive of running programs cannot be shortened",
	},
	{
		Name: "evac", Profile: Act, Ways: [][]Capability{{NetAdmin, NetRaw}},
		Lost: "forwarded flows cannot be reset before this node goes",
	},
}

// Lack is a feature that is missing, and why.
type Lack struct {
	Feature string `json:"feature"`
	Profile Name   `json:"profile"` // that would have it
	Needs   string `json:"needs"`   // the capabilities that are not held, such as "CAP_BPF and CAP_PERFMON"
	Lost    string `json:"lost"`    // what that means
}

// Standing is what somebody's rights allow. The zero Standing is no answer.
type Standing struct {
	Name    Name   `json:"name"`
	Missing []Lack `json:"missing"` // never nil; empty for Act
}

// Of returns what the rights allow of somebody of whom held says which
// capabilities they have.
func Of(held func(Capability) bool) Standing {
	s := Standing{Name: Act, Missing: []Lack{}}
	for i := range Features {
		f := &Features[i]
		lacks := f.lacks(held)
		if len(lacks) == 0 {
			continue
		}
		s.Missing = append(s.Missing, Lack{f.Name, f.Profile, and(lacks), f.Lost})
		if f.Profile == Observe {
			s.Name = Partial
		} else if s.Name == Act {
			s.Name = Observe
		}
	}
	return s
}

// lacks returns what is not held of the way of which the least is missing, the
// first of several such.
func (f *Feature) lacks(held func(Capability) bool) (fewest []Capability) {
	for i, way := range f.Ways {
		not := slices.DeleteFunc(slices.Clone(way), held)
		if i == 0 || len(not) < len(fewest) {
			fewest = not
		}
	}
	return fewest
}

// Needs returns the capabilities of a profile, in the order of their numbers:
// what each of its features needs, and nothing else.
func Needs(name Name) (all []Capability) {
	for _, f := range Features {
		if f.Profile == name || name == Act {
			all = append(all, f.Ways[0]...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Has reports whether a feature is there.
func (s Standing) Has(feature string) bool {
	return !slices.ContainsFunc(s.Missing, func(l Lack) bool { return l.Feature == feature })
}

// Unseen returns those of the missing features that leave something unseen
// which the profile observe shows.
func (s Standing) Unseen() []Lack {
	return slices.DeleteFunc(slices.Clone(s.Missing), func(l Lack) bool { return l.Profile != Observe })
}

// String is one line: the profile, and what is missing.
func (s Standing) String() string {
	if len(s.Missing) == 0 {
		return string(s.Name) + ", nothing is missing"
	}
	return string(s.Name) + "; missing: " + s.Lacks()
}

// Lacks is one line: which capabilities are missing, and for what; "" when none.
func (s Standing) Lacks() string {
	var needs []string
	features := make(map[string][]string)
	for _, l := range s.Missing {
		if !slices.Contains(needs, l.Needs) {
			needs = append(needs, l.Needs)
		}
		features[l.Needs] = append(features[l.Needs], l.Feature)
	}
	var parts []string
	for _, n := range needs {
		parts = append(parts, n+" for "+strings.Join(features[n], ", "))
	}
	return strings.Join(parts, "; ")
}

// and lists capabilities in words.
func and(list []Capability) string {
	var words []string
	for _, c := range list {
		words = append(words, c.String())
	}
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " and " + words[last]
}
