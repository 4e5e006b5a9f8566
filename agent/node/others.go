package node

import (
	"context"
	"errors"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// askedOthers is how many other peers are asked at once when none was heard while a
// silent one was asked.
const askedOthers = 5

// ErrOwnLink is why connections to a silent peer are left alone when no other
// peer answers either: a cut would bring nobody to an end that can be reached.
var ErrOwnLink = errors.New("no other peer of this network namespace answers either, so it may be this machine's own link")

// AnyAnswers pokes the first five of the others of a silent peer, as
// [verdict.Others] has them, on their sockets in m, and reports whether one is
// alive. It takes a second when nobody is.
func AnyAnswers(ctx context.Context, m *fact.Machine, others []verdict.Suspect) bool {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	others = others[:min(len(others), askedOthers)]
	answers := make(chan bool, len(others))
	for _, other := range others {
		var sockets []*fact.Socket
		for i := range m.Sockets {
			s := &m.Sockets[i]
			if s.Protocol == fact.TCP && s.Netns == other.Netns && s.Remote.Addr() == other.Addr {
				sockets = append(sockets, s)
			}
		}
		go func() {
			r, _ := act.Poke(asking, sockets)
			answers <- r.Verdict == act.Alive
		}()
	}
	alive := false
	for range others {
		if <-answers && !alive {
			alive = true
			stop()
		}
	}
	return alive
}
