//go:build linux

// Package vpn plays the story of the lost names in a lab, with real parts: on a
// laptop whose VPN swallows what goes to its nameserver, and whose operating
// system knows the names all the same, kubectl and a credential plugin for
// Keystone, static Go programs both, ask for the nodes of a cluster.
package vpn

import (
	"context"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
)

// With is what helps a client.
type With string

// What helps.
const (
	Alone   With = "Go alone"
	Run     With = "lifeline run"
	Proxy   With = "lifeline run --via proxy"
	Library With = "names.Install" // a line of the client itself, see package names
	System  With = "the system"    // a client that asks the operating system by itself
)

// The clients.
const (
	Kubectl = "kubectl" // as installed, with the plugin
	Static  = "static Go client"
	Getent  = "getent"
)

// Result is what became of one client.
type Result struct {
	Client string
	With   With
	Took   time.Duration
	OK     bool   // it got what it asked for
	Said   string // what it got, or said last
}

// Lifeline reports whether it was one that Lifeline helped.
func (r Result) Lifeline() bool { return r.With != Alone && r.With != System }

// Helped reports whether every client that Lifeline helped got what it asked
// for.
func Helped(results []Result) bool {
	return !slices.ContainsFunc(results, func(r Result) bool { return r.Lifeline() && !r.OK })
}

// Nameserver is what the laptop's resolv.conf names. Nobody answers there.
const Nameserver = "10.80.0.53"

// Replay is the story. All fields must be set but Kubectl.
type Replay struct {
	Kubectl string        // its path; empty: it is not installed, and left out
	Wait    time.Duration // after which a client is ended
	// Program is the path of a static lifeline. ClientArgs and PluginArgs are by
	// which arguments it calls [Client] and [Plugin].
	Program                string
	ClientArgs, PluginArgs func(dir string, install bool) []string
	// Event is told of each result as it comes, by one goroutine at a time.
	Event func(Result)
}

// Needs are the programs that a replay needs, beside what every lab needs: gcc
// for the source of names that only the operating system's way knows.
var Needs = slices.Concat(lab.EtcPrograms, lab.ModulePrograms, []string{"getent", "nft", "setpriv"})

// Run plays it. It needs what [lab.Missing] says of [Needs], and leaves nothing
// behind. The results are in the order of the story.
func (r *Replay) Run(ctx context.Context) (results []Result, err error) {
	err = lab.Run(func(l *lab.Lab) error {
		p := &play{Replay: r}
		if err := p.build(l); err != nil {
			return err
		}
		defer p.office.close()
		results = p.clients(ctx)
		return context.Cause(ctx)
	})
	return results, err
}
