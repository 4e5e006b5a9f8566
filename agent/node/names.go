package node

import (
	"context"
	"os"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/dnsconf"
	"github.com/lifeline-go/lifeline/agent/source/gobin"
)

// Naming says what to look at of how names are resolved. The zero Naming is the
// configuration alone.
type Naming struct {
	Probe       bool             // ask each nameserver, see [Naming.ask]
	Places      []string         // files, and directories of programs, to look for those whose names fail
	Always      bool             // look at the programs also where no nameserver fails
	Environment fact.Environment // of who asks, for what Go programs make of it
}

// Names looks at how names are resolved on this machine, and at nothing else.
func (n *Node) Names(ctx context.Context, w Naming) (*fact.Machine, error) {
	l := look{Machine: &fact.Machine{Host: hostname()}}
	l.names(ctx, w)
	l.Time = time.Now()
	return l.Machine, ctx.Err()
}

func hostname() string {
	host, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return host
}

// names reads how names are resolved and, where that is wanted, asks each
// nameserver one question, and those that answer it badly or not at all three
// more. Only where none answers well do the programs on the machine matter.
func (l *look) names(ctx context.Context, w Naming) {
	names, blind := dnsconf.Read("")
	names.Environment = w.Environment
	l.Names = &names
	l.blind(blind...)
	found := make(chan struct{})
	look := func() {
		defer close(found)
		programs, blind := gobin.Scan(ctx, w.Places)
		l.Programs = &programs
		l.blind(blind...)
	}
	if w.Always {
		go look()
	}
	if w.Probe {
		dnsconf.AskAll(ctx, &names, answerTime)
		dnsconf.AskAgain(ctx, &names, answerTime)
	}
	switch {
	case w.Always:
		<-found
	case w.Probe && len(w.Places) > 0 && !anyGood(&names):
		look()
	}
}

// anyGood reports a nameserver that answers well.
func anyGood(names *fact.Names) bool {
	for i := range names.Nameservers {
		if a, ok := names.Nameservers[i].Answer.Get(); ok && dnsconf.Good(a) {
			return true
		}
	}
	return false
}
