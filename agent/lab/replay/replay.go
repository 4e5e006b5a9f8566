//go:build linux

// Package replay plays the story of the silent WebSockets in a lab, with real
// parts, and takes the time: a server on one host and several client processes
// on another hold connections through a node that only forwards, the node dies,
// and their programs wait to learn of it; with Lifeline, or with nothing but Go.
package replay

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/bound"
)

// Guard is what stands by the connections when the node dies.
type Guard string

// The guards.
const (
	Nothing Guard = "Go alone"
	Cut     Guard = "lifeline cut"  // at both ends, cuts whom it finds silent
	Evac    Guard = "lifeline evac" // on the node, which knows that it is about to go
)

// Silence is one replay. All fields but Heartbeat, Retries2 and Event must be
// set.
type Silence struct {
	Guard       Guard
	NAT         lab.NAT
	Connections int
	Processes   int           // that hold the clients' ends
	Spread      time.Duration // over which the connections are opened, so that their keepalive is spread
	Heartbeat   time.Duration // how often the server writes to each client; 0: the connections are idle
	Retries2    int           // tcp_retries2 of the hosts, to shorten the wait of who sends; 0: the kernel's own
	Patience    time.Duration // how long to wait for a read to return beyond the bound that the kernel keeps

	// Lifeline returns a command that runs Lifeline with these arguments until
	// it is done or its standard input ends: nothing else ends it when the
	// process that started it is killed.
	Lifeline func(args ...string) *exec.Cmd
	// Event is told what happens, as it happens, on the goroutine of Run.
	Event func(Event)
}

// Event is something that happened.
type Event struct {
	At    time.Duration // when, by websocket.Now; it may be told up to websocket.TellAfter later
	Dead  bool          // whether the node is dead
	Since time.Duration // since its death
	Text  string
}

// Outcome is what came of a replay.
type Outcome struct {
	Conntrack       int // entries of the node's table before it died
	Server, Clients End
}

// End is one end of all connections.
type End struct {
	Count         int         // of the connections
	Idle, Sending bound.Bound // how long their silence can last at most, by their sockets' options
	Verdict       fact.Known[time.Duration]
	Learned       int           // connections whose read returned
	First, Last   time.Duration // when: the first and the last of them
	Errors        map[string]int
}

// CutCommand and EvacCommand are the arguments of Lifeline as a guard.
var (
	CutCommand  = []string{"cut", "--silent", "--watch", "--ask", "1s", "--yes", "--rate", "max", "--netns", "self"}
	EvacCommand = []string{"evac", "--yes"}
)

// The arguments by which Lifeline becomes the ends; the commands are hidden.
var (
	serverCommand  = []string{"lab", "websocket-server"}
	clientsCommand = []string{"lab", "websocket-clients"}
)

// settle is how long all connections are left alone before the node dies.
const settle = time.Second

// Run plays it: it returns when all programs have learned, after the longest
// that this can take, or when ctx ends. It needs what [lab.Missing] says, and
// leaves nothing behind.
func (s *Silence) Run(ctx context.Context) (o Outcome, err error) {
	err = lab.Run(func(l *lab.Lab) error {
		p := &play{Silence: s, story: l.Story(s.NAT), said: make(chan message, 1024), done: make(chan struct{})}
		defer p.stop()
		if err := p.connect(ctx); err != nil {
			return err
		}
		if err := p.look(ctx); err != nil {
			return err
		}
		if err := p.await(ctx, time.After(settle), func() bool { return false }); err != nil {
			return err
		}
		err := p.die(ctx)
		o = p.outcome
		return err
	})
	return o, err
}

// connect starts the guards and the ends, and waits until all connections are
// open.
func (p *play) connect(ctx context.Context) error {
	for _, h := range []*lab.Host{p.story.LB, p.story.Pod} {
		// The next hop of both ends answers for ever, as the gateway of a cloud
		// does: to a neighbour that is not found, ARP would give an error.
		h.Sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms", "600000")
		if p.Retries2 != 0 {
			h.Sysctl("net.ipv4.tcp_retries2", strconv.Itoa(p.Retries2))
		}
	}
	server, err := p.start("server", p.story.Pod, slices.Concat(serverCommand, []string{"--listen", lab.StoryPod, "--heartbeat", p.Heartbeat.String()})...)
	if err != nil {
		return err
	}
	server.end = &p.outcome.Server
	if err := p.within(ctx, startTime, "the server to listen", func() bool { return server.ready }); err != nil {
		return err
	}
	if p.Guard == Cut {
		if err := p.guard(ctx); err != nil {
			return err
		}
	}
	for i := range p.Processes {
		share := p.Connections*(i+1)/p.Processes - p.Connections*i/p.Processes
		c, err := p.start("clients", p.story.LB, slices.Concat(clientsCommand, []string{"--url", "ws://" + lab.StoryNodePort, "--connections", strconv.Itoa(share),
			"--spread", p.Spread.String()})...)
		if err != nil {
			return err
		}
		c.end = &p.outcome.Clients
		p.clients = append(p.clients, c)
	}
	allOpen := func() bool { return !slices.ContainsFunc(p.clients, func(c *child) bool { return !c.open }) }
	return p.within(ctx, p.Spread+openTime, "all connections to open", allOpen)
}

// guard starts Lifeline at both ends and waits until both say that they watch.
func (p *play) guard(ctx context.Context) error {
	pod, err := p.start("lifeline cut at the server", p.story.Pod, CutCommand...)
	if err != nil {
		return err
	}
	pod.guards = &p.outcome.Server
	lb, err := p.start("lifeline cut at the clients", p.story.LB, CutCommand...)
	if err != nil {
		return err
	}
	lb.guards = &p.outcome.Clients
	return p.within(ctx, startTime, "Lifeline to watch", func() bool { return pod.ready && lb.ready })
}

// die kills the node, after an evac where there is one, and waits until both
// ends know.
func (p *play) die(ctx context.Context) error {
	if p.Guard == Evac {
		p.begin("the node is told to go, and runs lifeline evac")
		e, err := p.start("lifeline evac on the node", p.story.Node, EvacCommand...)
		if err != nil {
			return err
		}
		if err := p.within(ctx, evacTime, "the evac to end", func() bool { return e.exited }); err != nil {
			return err
		}
		p.story.Node.Unplug()
		p.tell("the node dies: its links go down, nobody is told")
	} else {
		p.begin("the node dies: its links go down, nobody is told")
		p.story.Node.Unplug()
	}
	for !p.allLearned() {
		left := p.longest() + p.Patience - p.since()
		if left <= 0 {
			return nil // the outcome says how many never learned
		}
		if err := p.await(ctx, time.After(min(left, reminderEvery)), p.allLearned); err != nil {
			return err
		}
		p.remind()
	}
	return nil
}

// longest is how long the kernel lets the programs wait: all of the silence of
// an idle connection, and of a sending one from its next heartbeat on.
func (p *play) longest() time.Duration {
	if p.Guard != Nothing {
		return 0
	}
	longest := max(p.outcome.Server.Idle.Latest, p.outcome.Clients.Idle.Latest)
	if p.Heartbeat > 0 {
		longest = max(longest, p.Heartbeat+p.outcome.Server.Sending.Latest)
	}
	return longest
}

func (p *play) allLearned() bool {
	return p.outcome.Server.Learned >= p.outcome.Server.Count && p.outcome.Clients.Learned >= p.outcome.Clients.Count
}

// conntrack returns how many connections the node's kernel knows.
func conntrack(node *lab.Host) (n int, err error) {
	err = node.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err != nil {
			return err
		}
		n, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err
	})
	return n, err
}
