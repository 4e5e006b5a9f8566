package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/conntrack"
	"github.com/lifeline-go/lifeline/agent/source/netns"
)

// Counts reads what the kernel counted of TCP in each of some network namespaces.
func (n *Node) Counts(ctx context.Context, of Namespaces) (*fact.Machine, error) {
	return n.eachSpace(ctx, of, "counters", func(_ *fact.Machine, ns *fact.Namespace) error {
		counts, err := netns.Counts()
		if err == nil {
			ns.TCP = fact.Seen(counts)
		}
		return err
	})
}

// Conntrack reads how full the connection tracking table of each of some network
// namespaces is. A namespace without one is left out.
func (n *Node) Conntrack(ctx context.Context, of Namespaces) (*fact.Machine, error) {
	return n.eachSpace(ctx, of, "conntrack", func(m *fact.Machine, ns *fact.Namespace) error {
		table, err := conntrack.Size(ns.Inode)
		switch {
		case err == nil:
			m.Conntrack = append(m.Conntrack, table)
		case errors.Is(err, errors.ErrUnsupported):
			return nil
		}
		return err
	})
}

// eachSpace reads something in each network namespace, on a thread that is in it.
// Those that are gone are left out, others that cannot be read are one blind spot;
// where none can, that is an error.
func (n *Node) eachSpace(ctx context.Context, of Namespaces, source string, read func(*fact.Machine, *fact.Namespace) error) (*fact.Machine, error) {
	l := look{Machine: &fact.Machine{Host: hostname()}, want: Want{Namespaces: of}}
	list, err := l.choose(n.Spaces, relist)
	if err != nil {
		return nil, err
	}
	m := l.Machine
	var failed error // of the first
	unread := 0
	for i := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		ns := &list[i]
		err := netns.Do(*ns, func() error { return read(m, ns) })
		if isGone(err) {
			continue
		}
		if err != nil {
			failed = cmp.Or(failed, err)
			unread++
			continue
		}
		m.Namespaces = append(m.Namespaces, *ns)
	}
	if failed != nil {
		b := netns.Blindness(source, failed)
		if unread > 1 {
			b.Error += fmt.Sprintf(", and %d more", unread-1)
		}
		m.Blind = append(m.Blind, b)
	}
	m.Time = time.Now()
	if len(m.Namespaces) == 0 {
		return nil, errors.Join(errNoNamespace, failed)
	}
	return m, nil
}

// isGone reports that a namespace ended before it was read.
func isGone(err error) bool {
	var entering *netns.Error
	return errors.As(err, &entering) && errors.Is(err, netns.ErrGone)
}

var errNoNamespace = errors.New("no network namespace can be read")
