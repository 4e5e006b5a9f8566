package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/dnsconf"
	"github.com/lifeline-go/lifeline/agent/source/gobin"
	"github.com/lifeline-go/lifeline/agent/source/nameways"
	"github.com/lifeline-go/lifeline/agent/source/netns"
)

// Naming says what to look at of how names are resolved. The zero Naming is the
// configuration alone.
type Naming struct {
	Probe       bool              // ask each nameserver one question, and those that answer badly three more
	Places      []string          // files, and directories of programs, to look for those whose names fail
	Always      bool              // look at the programs also where no nameserver fails
	Programs    *fact.Executables // what [Node.Programs] found; Places are not looked at then
	Environment fact.Environment  // of who asks, for what Go programs make of it

	// Lookup are names to ask for in every way, within Within; zero means 3 s. The nameservers are asked for nothing else
	// then, and programs are looked at where Go's resolver finds one of them not.
	Lookup []string
	Within time.Duration
}

// lookupTime is how long all ways have to look a name up: what hangs for longer
// is as good as dead to who waits.
const lookupTime = 3 * time.Second

// Names looks at how names are resolved on this machine, and at nothing else. The
// error is that even the configuration could not be read.
func (n *Node) Names(ctx context.Context, w Naming) (*fact.Machine, error) {
	l := look{Machine: &fact.Machine{Host: hostname()}}
	if err := l.names(ctx, w); err != nil {
		return nil, err
	}
	l.Time = time.Now()
	return l.Machine, ctx.Err()
}

// Programs looks at the programs in places, each a file or a directory of files,
// again and again: at a tenth of a processor, and only at those that changed.
func (n *Node) Programs(ctx context.Context, places []string) (*fact.Executables, []fact.Blind) {
	found, blind := n.onPath.Scan(ctx, places)
	return &found, blind
}

func hostname() string {
	host, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return host
}

// names reads how names are resolved, and asks what is to be asked.
func (l *look) names(ctx context.Context, w Naming) error {
	names, blind, err := dnsconf.ReadOwn()
	if err != nil {
		return err
	}
	names.Environment = w.Environment
	l.Names = &names
	l.blind(blind...)
	l.Programs = w.Programs
	if len(w.Lookup) > 0 {
		l.lookups(ctx, w)
	} else {
		l.nameservers(ctx, w)
	}
	return nil
}

// nameservers asks each nameserver one question, where that is wanted, and those
// that answer it badly or not at all three more. Only where none answers well do
// the programs on the machine matter.
func (l *look) nameservers(ctx context.Context, w Naming) {
	found := make(chan struct{})
	look := func() {
		defer close(found)
		programs, blind := gobin.Scan(ctx, w.Places)
		l.Programs = &programs
		l.blind(blind...)
	}
	if w.Programs != nil {
		w.Always, w.Places = false, nil
	}
	if w.Always {
		go look()
	}
	if w.Probe {
		dnsconf.AskAll(ctx, l.Names, answerTime)
		dnsconf.AskAgain(ctx, l.Names, answerTime)
	}
	switch {
	case w.Always:
		<-found
	case w.Probe && len(w.Places) > 0 && !anyGood(l.Names):
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

// lookups asks for names in every way.
func (l *look) lookups(ctx context.Context, w Naming) {
	within, cancel := context.WithTimeout(ctx, cmp.Or(max(w.Within, 0), lookupTime))
	defer cancel()
	scanning, enough := context.WithCancel(within)
	defer enough()
	type found struct {
		programs fact.Executables
		blind    []fact.Blind
	}
	scanned := make(chan found, 1)
	if w.Programs == nil {
		go func() {
			programs, blind := gobin.Scan(scanning, w.Places)
			scanned <- found{programs, blind}
		}()
	}
	l.Lookups = make([]fact.Lookup, len(w.Lookup))
	var wg sync.WaitGroup
	for i, name := range w.Lookup {
		wg.Go(func() { l.Lookups[i] = l.lookup(within, name) })
	}
	wg.Wait()
	answersOf(l.Names, l.Lookups)
	if w.Programs != nil {
		return
	}
	if !slices.ContainsFunc(l.Lookups, lostOnGo) {
		enough()
	}
	if f := <-scanned; scanning.Err() == nil || within.Err() != nil { // all of it, or as much as there was time for
		l.Programs = &f.programs
		l.blind(f.blind...)
	}
}

// lookup asks for one name in every way.
func (l *look) lookup(ctx context.Context, name string) fact.Lookup {
	ascii, err := nameways.ASCII(name)
	if err != nil {
		return fact.Lookup{Name: name, Asked: name, Ways: []fact.Way{{Kind: fact.WayHosts, Answer: fact.Failed, Error: err.Error()}}}
	}
	found := nameways.Ask(ctx, ascii, l.Names)
	found.Name = name
	return found
}

// lostOnGo reports a name that Go's own resolver did not find.
func lostOnGo(l fact.Lookup) bool {
	return slices.ContainsFunc(l.Ways, func(w fact.Way) bool { return w.Kind == fact.WayGo && w.Answer != fact.Addresses })
}

// answersOf puts what nameservers said to questions for names where what they
// say to others would be.
func answersOf(names *fact.Names, lookups []fact.Lookup) {
	for i := range names.Nameservers {
		s := &names.Nameservers[i]
		for _, l := range lookups {
			for _, w := range l.Ways {
				if w.Kind != fact.WayServer || w.Server != s.Addr {
					continue
				}
				into := map[fact.Transport]*fact.Known[fact.Answer]{fact.UDPWithEDNS: &s.Answer, fact.PlainUDP: &s.Plain, fact.OverTCP: &s.TCP}[w.Transport]
				if into == nil || into.OK && into.Value.OK && !w.Answer.Heard() {
					continue // another question was answered
				}
				if w.Answer.Heard() || !into.OK {
					*into = fact.Seen(fact.Answer{OK: w.Answer.Heard(), After: w.Took, Error: w.Error, RCode: w.RCode})
				}
			}
		}
	}
}

// Asking takes two looks at the sockets and the goroutines of one process, and
// reads how names are resolved where it is: in its root and its network
// namespace. What of that cannot be seen is in Blind.
func (n *Node) Asking(ctx context.Context, pid int32, d time.Duration) (*fact.Machine, error) {
	space, err := ParseNamespaces(strconv.Itoa(int(pid)))
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("process %d is another user's: needs CAP_SYS_PTRACE", pid)
	}
	if err != nil {
		return nil, err
	}
	m, err := n.Watch(ctx, d, Want{Namespaces: space, Process: pid, Goroutines: func(p *fact.Process) bool { return p.PID == pid }})
	if err != nil {
		return nil, err
	}
	ns := fact.Namespace{Inode: space.inode, PID: pid}
	err = netns.Do(ns, func() error {
		names, blind := dnsconf.Read(fmt.Sprintf("/proc/%d/root", pid))
		m.Names = &names
		m.Blind = append(m.Blind, blind...)
		return nil
	})
	if err != nil {
		m.Blind = append(m.Blind, netns.Blindness("names", err))
	}
	return m, nil
}
