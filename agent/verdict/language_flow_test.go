package verdict

import (
	"errors"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// flow adds n flows that namespace 1 forwards; none without any word after it.
func (w *world) flow(l *words, n int) error {
	if len(w.now.Conntrack) == 0 {
		w.now.Conntrack = []fact.Conntrack{{Netns: 1}}
	}
	table := &w.now.Conntrack[0]
	if table.Transit == nil {
		table.Transit = []fact.Flow{}
	}
	table.Entries = fact.Seen(table.Entries.Value + n)
	if l.flag("none") {
		return nil
	}
	protocol := map[string]fact.Protocol{"tcp": fact.TCP, "udp": fact.UDP}[l.next()]
	state := l.next()
	source, errSource := endpoint(l.next())
	destination, errDestination := endpoint(l.next())
	answers, sees := destination, source
	errs := errors.Join(errSource, errDestination, set(l, "answers", &answers, endpoint), set(l, "sees", &sees, endpoint))
	for i := range n {
		table.Transit = append(table.Transit, fact.Flow{Protocol: protocol, State: state, Source: source.at(i), Destination: destination.at(i),
			ReplySource: answers.at(i), ReplyTo: sees.at(i)})
	}
	return errs
}
