//go:build linux

// Package evac lets a node that is about to go tell both ends of every
// connection that it only forwards, while it still can. Nothing is needed on
// the other machines, and nothing in the programs.
//
// Connection tracking says which flows those are. Rules of nf_tables, in a table
// of their own, answer the next packet of each with a reset; and so that a
// silent end sends one, it is nudged by an acknowledgement that fits nothing.
// As long as the rules are there, connections of both IP versions are tracked.
//
// A flow is reset on its way through, so what this machine's own namespace began
// or answers is never touched. The containers of this machine are further
// namespaces: what it forwards to and from them is transit too, and goes with
// the machine. An end that does not answer a nudge (some systems drop what has
// no timestamp) is reset by the next packet that it sends, as long as the rules
// are there. What passes this machine by another way than the forward hook
// cannot be reset: IPVS, flowtables, BPF programs without netfilter. Result
// counts them all.
//
// It needs CAP_NET_ADMIN and CAP_NET_RAW. Every function acts on the network
// namespace of the calling thread; a caller that entered another one must have
// locked its goroutine to that thread.
package evac

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/conntrack"
	"github.com/lifeline-go/lifeline/agent/source/route"
)

const (
	// Rate is how many flows are reset a second where no time is given.
	Rate = 20_000

	// Patience is how long an evac without a time goes on after those flows that
	// were there at first: for ends that do not answer, and for flows that begin.
	Patience = 5 * time.Second

	mostAtOnce = 256 // flows in one transaction
)

// Options say which flows go, and how fast. The zero value is all of them, now.
type Options struct {
	Within   time.Duration    // spread evenly over this time, which bounds Run; 0 = at Rate, and then for Patience at most
	Only     []netip.Prefix   // flows with an end in one of these networks; empty = all
	Progress func(p Progress) // called after each batch, from within Run; may be nil
}

// keeps reports that the flow is one of those meant. Its ends are who began it
// and who really answers.
func (o *Options) keeps(f *fact.Flow) bool {
	return len(o.Only) == 0 || slices.ContainsFunc(o.Only, func(p netip.Prefix) bool {
		return p.Contains(f.Source.Addr()) || p.Contains(f.ReplySource.Addr())
	})
}

// Plan is what an evac would do.
type Plan struct {
	Flows     []fact.Flow // would be reset
	Spared    int         // flows that Only leaves alone
	Offloaded int         // flows that a flowtable forwards past all rules: they cannot be reset
}

// Look reads which flows an evac would reset, and changes nothing. It needs
// CAP_NET_ADMIN; without, the error matches [fs.ErrPermission]. Where the kernel
// tracks no connections it matches [errors.ErrUnsupported].
func Look(o Options) (Plan, error) {
	local, err := route.Delivered()
	if err != nil {
		return Plan{}, err
	}
	const unknownNamespace = 0 // that only labels what is returned
	table, err := conntrack.Read(unknownNamespace, local)
	if err != nil {
		return Plan{}, err
	}
	var p Plan
	for i := range table.Transit {
		switch f := &table.Transit[i]; {
		case f.Protocol != fact.TCP:
		case f.State == "OFFLOAD" || f.State == "HW_OFFLOAD":
			p.Offloaded++
		case f.State != "ESTABLISHED" && f.State != "FIN_WAIT" && f.State != "CLOSE_WAIT": // not begun, or over
		case !o.keeps(f):
			p.Spared++
		default:
			p.Flows = append(p.Flows, *f)
		}
	}
	return p, nil
}

// Progress is how far an evac has come.
type Progress struct {
	Flows   int           // known so far
	Begun   int           // of them, reset by their next packet, and both ends nudged
	Elapsed time.Duration // since Run was called
	Stale   bool          // rules that an earlier evac left were found, and removed
}

// Result is what an evac did.
type Result struct {
	Flows      []fact.Flow   // that were to be reset, those that began meanwhile last
	Late       int           // of them, began during the evac
	Begun      int           // of them, nudged; fewer than Flows when the time was up or the context ended
	Clients    int           // ends that began a flow and were sent a reset
	Servers    int           // ends that answered a flow and were sent a reset
	Unanswered int           // begun flows with an end that sent nothing, so that it was not reset
	Offloaded  int           // as in Plan
	Took       time.Duration // from the call to the last reset that was waited for
	Stale      bool          // as in Progress
	Unsent     error         // why the first nudge that could not be sent was not; nil when all were
	Unread     error         // why the flows that began meanwhile could not be read at some time; nil when they were
}

// Run resets the flows, both ends. It returns when none is left: all ends
// answered, and no flow began since; or when the time is up; or when ctx ends,
// with its cause and what was done until then. New connections are not refused,
// but reset as the others are.
//
// The rules are gone when it returns. Should the process be killed, the kernel
// removes them (Linux 5.12), or the next Run does. The error matches
// [fs.ErrPermission] without the capabilities, [errors.ErrUnsupported] where the
// kernel lacks connection tracking or nf_tables, and [ErrRunning] where another
// evac is at work.
func Run(ctx context.Context, o Options) (r Result, err error) {
	start := time.Now()
	p, err := Look(o)
	if err != nil {
		return r, err
	}
	n, err := newNudger()
	if err != nil {
		return r, err
	}
	defer n.close()
	t, stale, err := arm(len(p.Flows))
	r.Stale = stale
	if err != nil {
		return r, err
	}
	defer func() {
		if failed := t.remove(); failed != nil {
			err = errors.Join(err, fmt.Errorf("the rules are still there, nft delete table inet %s removes them: %w", TableName, failed))
		}
	}()
	c := newCampaign(o, t, n, start)
	c.stale = stale
	c.enlist(p, false)
	err = c.run(ctx)
	r = c.result()
	return r, err
}
