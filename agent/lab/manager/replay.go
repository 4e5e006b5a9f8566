//go:build linux

// Package manager plays the story of the blocked SSH calls in a lab, with real
// parts: a manager keeps connections to hosts that run OpenSSH's server, one of
// them loses its links as by a reboot, one is frozen, one refuses, and the
// manager calls on. It is played by several clients at a time, as their users
// have them, each in a process and on a host of its own.
package manager

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/bound"
)

// With is the client of a manager.
type With string

// The clients, and all of them.
const (
	Plain      With = "plain x/crypto/ssh"
	Workaround With = "the story's workaround" // its own TCP connection with deadlines and a short keepalive
	Mux        With = "ssh, ControlMaster"
	MuxAlive   With = "ssh, ServerAliveInterval" // and ControlMaster; 15 s, as ssh_config(5) has it for an example, 3 times
	Lifeline   With = "lifeline/ssh"
)

// All are the clients in the order of the story.
var All = []With{Plain, Workaround, Mux, MuxAlive, Lifeline}

// Host is what becomes of a host.
type Host string

// The hosts.
const (
	Well    Host = "well"
	Reboots Host = "reboots" // its links go down
	Frozen  Host = "frozen"  // its processes are stopped; its kernel goes on to acknowledge
	Refuses Host = "refuses" // it is up again and its sshd is not: ports are closed by a reset
)

var hosts = []Host{Well, Reboots, Frozen, Refuses}

// Call is what the manager does.
type Call string

// The calls.
const (
	Connection Call = "connect"         // a new connection, and a command
	NewCommand Call = "new command"     // on a connection that was idle
	Running    Call = "running command" // that had begun, and says nothing
)

// Situation is one call to one host. Each has a connection of its own.
type Situation struct {
	Host Host
	Call Call
}

// Situations are all that each client gets into.
var Situations = []Situation{{Well, NewCommand}, {Reboots, NewCommand}, {Reboots, Running}, {Frozen, NewCommand}, {Frozen, Running}, {Refuses, Connection}}

// Run is one call of one client.
type Run struct {
	Situation
	With   With
	Bound  fact.Known[time.Duration] // how long it may block at most, by what is known of the client; not OK: for ever
	Took   fact.Known[time.Duration] // not OK: it was still blocked in the end
	Waited time.Duration             // until then
	Said   string                    // its error; empty: none
}

// Left is what a client had left behind when every call had returned, or was
// given up by the lab, and the manager had closed whatever it could.
type Left struct {
	With        With
	Blocked     int             // calls
	Goroutines  fact.Known[int] // not OK where the client is a program
	Descriptors fact.Known[int]
	Processes   int // of the client's
}

// Outcome is what came of a replay.
type Outcome struct {
	Runs []Run  // by situation, then by client
	Left []Left // by client
}

// lateTime is how much later than its bound a call may return on a machine that
// is overloaded.
const lateTime = 5 * time.Second

// Late reports whether a call of Lifeline outlived its bound, or left anything
// behind. A replay that ends before the bound cannot tell the former.
func (o *Outcome) Late() bool {
	late := func(r Run) bool {
		if r.With != Lifeline || r.Host == Well || r.Host == Refuses {
			return false
		}
		took := r.Waited
		if r.Took.OK {
			took = r.Took.Value
		}
		return took > r.Bound.Value+lateTime
	}
	litter := func(l Left) bool {
		return l.With == Lifeline && l.Blocked == 0 && (l.Goroutines.Value > 0 || l.Descriptors.Value > 0 || l.Processes > 0)
	}
	return slices.ContainsFunc(o.Runs, late) || slices.ContainsFunc(o.Left, litter)
}

// Replay is the story. All fields must be set.
type Replay struct {
	Wait    time.Duration // after which calls that are still blocked are given up
	Silence time.Duration // that Lifeline allows a server, see ssh.Liveness
	// Manager returns a command that calls RunProcess with its standard input and
	// output, this client, this directory and Silence.
	Manager func(with With, dir string) *exec.Cmd
	// Event is told what happens, as it happens, on the goroutine of Run.
	Event func(Event)
}

// Event is something that happened.
type Event struct {
	With  With // empty: to all
	Lost  bool // whether the hosts are lost
	Since time.Duration
	Text  string
}

// Needs are the programs that a replay needs, beside what every lab needs.
var Needs = slices.Concat(lab.SSHPrograms, []string{"ssh"})

// Run plays it. It needs what [lab.Missing] says of [Needs], and leaves nothing
// behind.
func (r *Replay) Run(ctx context.Context) (o Outcome, err error) {
	err = lab.Run(func(l *lab.Lab) error {
		p := &play{Replay: r, said: make(chan said), done: make(chan struct{})}
		defer p.stop()
		p.build(l)
		if err := p.begin(ctx); err != nil {
			return err
		}
		if err := p.lose(ctx); err != nil {
			return err
		}
		if err := p.end(ctx); err != nil {
			return err
		}
		o = p.outcome()
		return nil
	})
	return o, err
}

// Where the hosts of a lab are: the managers at 10.78.N.2, with a router between.
func managerNet(i int) (manager, router string) {
	return fmt.Sprintf("10.78.%d.2", i+1), fmt.Sprintf("10.78.%d.1", i+1)
}

func hostNet(i int) (host, router string) {
	return fmt.Sprintf("10.79.%d.2", i+1), fmt.Sprintf("10.79.%d.1", i+1)
}

// address returns where the sshd of a host is.
func address(h Host) string {
	host, _ := hostNet(slices.Index(hosts, h))
	return host + ":22"
}

// The workaround's times, and OpenSSH's.
const (
	workaroundCall = 5 * time.Second
	workaroundRun  = 10 * time.Minute
	aliveInterval  = 15 * time.Second
	aliveCount     = 3
	connectTimeout = 10 * time.Second
	channelOpen    = 10 * time.Second // of package ssh, as recommended
)

// bound returns how long a call may block. Only who loses the host has to ask.
func (w With) bound(s Situation, silence time.Duration) fact.Known[time.Duration] {
	// Who has asked waits for the kernel to give up sending, as long as the other
	// kernel is silent too; who has not, for keepalive.
	kernel := func(keepalive bound.Options) fact.Known[time.Duration] {
		keepalive.KeepAlive = true
		c := bound.Conn{Options: keepalive}
		switch {
		case s.Host == Frozen:
			return fact.Known[time.Duration]{}
		case s.Call == Running:
			return fact.Seen(c.Idle().After)
		}
		return fact.Seen(c.Sending().Latest)
	}
	switch w {
	case Plain: // net.Dialer as it is
		return kernel(bound.Options{Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 9})
	case Workaround:
		switch {
		case s.Call == NewCommand:
			return fact.Seen(workaroundCall)
		case s.Host == Frozen:
			return fact.Seen(workaroundRun)
		}
		// Since Go 1.23 KeepAlive is the idle time alone.
		return kernel(bound.Options{Idle: workaroundCall, Interval: 15 * time.Second, Count: 9})
	case Mux: // TCPKeepAlive, with the kernel's times
		return kernel(bound.Options{})
	case MuxAlive: // one more than its manual says
		most := (aliveCount + 1) * aliveInterval
		if s.Call == NewCommand {
			most += connectTimeout // ssh then tries a connection of its own
		}
		return fact.Seen(most)
	}
	if s.Call == NewCommand {
		return fact.Seen(min(channelOpen, silence))
	}
	return fact.Seen(silence)
}
