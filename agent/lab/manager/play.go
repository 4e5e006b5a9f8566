//go:build linux

package manager

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
)

// Times that nothing in a lab should take, even on a busy machine.
const (
	readyTime = 60 * time.Second // for a manager to be connected to all hosts
	leftTime  = 20 * time.Second // for it to close what it can and to count what is left
	stopTime  = 5 * time.Second  // for a process to go by itself
)

var errEarly = errors.New("too early")

// play is a replay while it runs. All of it belongs to one goroutine; those that
// read what managers say pass it on through said.
type play struct {
	*Replay
	router   *lab.Host
	hosts    map[Host]*lab.Host
	dir      string
	managers []*manager
	lost     time.Time // zero before

	said    chan said
	done    chan struct{} // closed when nobody listens to said any more
	readers sync.WaitGroup
}

// manager is a process that manages hosts with one of the clients.
type manager struct {
	with   With
	host   *lab.Host
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr *strings.Builder // belongs to cmd until it is waited for

	ready    bool
	returned map[Situation]message
	left     *Left
}

// said is what a manager said, or that it is gone.
type said struct {
	from *manager
	message
	gone bool
	err  error // with gone: how
}

// build makes the hosts. What cannot be made ends Run.
func (p *play) build(l *lab.Lab) {
	p.router = l.Host("router")
	p.router.Sysctl("net.ipv4.ip_forward", "1")
	wires := 0
	wire := func(name, address, gateway string) *lab.Host {
		h := l.Host(name)
		l.Wire(h, address+"/24", p.router, gateway+"/24")
		// A router that asks for a host that is gone says so to who sends; one
		// that knows where it was says nothing.
		p.router.Sysctl(fmt.Sprintf("net.ipv4.neigh.eth%d.base_reachable_time_ms", wires), "6000000")
		h.Route("default", gateway)
		wires++
		return h
	}
	keys := l.SSHKeys()
	p.dir = keys.Dir
	p.hosts = make(map[Host]*lab.Host)
	for i, name := range hosts {
		address, gateway := hostNet(i)
		h := wire(string(name), address, gateway)
		if p.hosts[name] = h; name != Refuses {
			h.SSHD(address+":22", keys)
		}
	}
	for i, with := range All {
		address, gateway := managerNet(i)
		p.managers = append(p.managers, &manager{with: with, host: wire(fmt.Sprintf("manager%d", i), address, gateway), returned: make(map[Situation]message)})
	}
}

// begin starts the managers and waits until all are connected and their
// commands run.
func (p *play) begin(ctx context.Context) error {
	for _, m := range p.managers {
		if err := p.start(m); err != nil {
			return fmt.Errorf("starting the manager with %s: %w", m.with, err)
		}
	}
	unready := func() (names []string) {
		for _, m := range p.managers {
			if !m.ready {
				names = append(names, string(m.with))
			}
		}
		return names
	}
	err := p.await(ctx, readyTime, func() bool { return len(unready()) == 0 })
	if names := unready(); err == nil && len(names) > 0 {
		return fmt.Errorf("waited %v for managers to connect, in vain: %s", readyTime, strings.Join(names, ", "))
	}
	return err
}

// lose takes the hosts away, has the managers call, and waits until all calls
// have returned, or for so long as is asked for.
func (p *play) lose(ctx context.Context) error {
	p.hosts[Reboots].Unplug()
	p.hosts[Frozen].Signal(unix.SIGSTOP)
	p.lost = time.Now()
	p.tell("", fmt.Sprintf("of %d hosts one has lost its links, one is frozen, one refuses; the managers call", len(hosts)))
	if err := p.order(wordCall); err != nil {
		return err
	}
	return p.await(ctx, p.Wait, func() bool {
		return !slices.ContainsFunc(p.managers, func(m *manager) bool { return len(m.returned) < len(Situations) })
	})
}

// end has the managers say what is left, and counts processes.
func (p *play) end(ctx context.Context) error {
	if err := p.order(wordEnd); err != nil {
		return err
	}
	missing := func(m *manager) bool { return m.left == nil }
	if err := p.await(ctx, leftTime, func() bool { return !slices.ContainsFunc(p.managers, missing) }); err != nil {
		return err
	}
	for _, m := range p.managers {
		if missing(m) {
			return fmt.Errorf("the manager with %s does not say what is left", m.with)
		}
		pids, err := m.host.Processes()
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if pid != m.cmd.Process.Pid {
				m.left.Processes++
			}
		}
	}
	return nil
}

func (p *play) outcome() (o Outcome) {
	for _, s := range Situations {
		for _, m := range p.managers {
			r := Run{Situation: s, With: m.with, Bound: m.with.bound(s, p.Silence), Waited: p.Wait}
			if e, ok := m.returned[s]; ok {
				r.Took, r.Said = fact.Seen(e.Took), e.Said
			}
			o.Runs = append(o.Runs, r)
		}
	}
	for _, m := range p.managers {
		m.left.Blocked = len(Situations) - len(m.returned)
		o.Left = append(o.Left, *m.left)
	}
	return o
}

// start starts a manager on its host.
func (p *play) start(m *manager) (err error) {
	m.cmd = p.Manager(m.with, p.dir)
	m.stderr = new(strings.Builder)
	m.cmd.Stderr, m.cmd.WaitDelay = m.stderr, time.Second // an ssh in the background may have its standard error
	stdin, err := m.cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := m.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	// A process begins in the namespace of the thread that starts it.
	if err := m.host.Do(m.cmd.Start); err != nil {
		return err
	}
	m.stdin = stdin
	p.readers.Go(func() {
		for d := json.NewDecoder(stdout); ; {
			s := said{from: m}
			if err := d.Decode(&s.message); err != nil {
				break
			}
			p.pass(s)
		}
		p.pass(said{from: m, gone: true, err: m.cmd.Wait()})
	})
	return nil
}

func (p *play) pass(s said) {
	select {
	case p.said <- s:
	case <-p.done:
	}
}

// order tells all managers a word.
func (p *play) order(word string) error {
	for _, m := range p.managers {
		if _, err := io.WriteString(m.stdin, word+"\n"); err != nil {
			return fmt.Errorf("the manager with %s: %w", m.with, err)
		}
	}
	return nil
}

// stop ends all managers and waits for them. What they started ends with their
// hosts.
func (p *play) stop() {
	close(p.done)
	running := slices.DeleteFunc(slices.Clone(p.managers), func(m *manager) bool { return m.stdin == nil })
	for _, m := range running {
		m.stdin.Close()
	}
	kill := time.AfterFunc(stopTime, func() {
		for _, m := range running {
			_ = m.cmd.Process.Kill() // an error says that it is gone
		}
	})
	p.readers.Wait()
	kill.Stop()
}

// await takes in what managers say until done is true, the time is up or ctx
// ends, which is an error as much as the end of a manager is.
func (p *play) await(ctx context.Context, limit time.Duration, done func() bool) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for !done() {
		select {
		case s := <-p.said:
			if err := p.take(s); err != nil {
				return err
			}
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// take takes in one message.
func (p *play) take(s said) error {
	m := s.from
	if s.gone {
		return fmt.Errorf("the manager with %s ended (%w): %s", m.with, cmp.Or(s.err, errEarly), strings.TrimSpace(m.stderr.String()))
	}
	switch s.What {
	case ready:
		m.ready = true
		p.tell(m.with, "connected to all hosts; commands run")
	case returned:
		m.returned[s.Situation] = s.message
		p.tell(m.with, fmt.Sprintf("%s, %s: returned after %.2f s: %s", s.Host, s.Call, s.Took.Seconds(), cmp.Or(s.Said, "done")))
	case left:
		m.left = &Left{With: m.with}
		if s.Counted {
			m.left.Goroutines, m.left.Descriptors = fact.Seen(s.Goroutines), fact.Seen(s.Descriptors)
		}
	}
	return nil
}

func (p *play) tell(with With, text string) {
	e := Event{With: with, Text: text}
	if !p.lost.IsZero() {
		e.Lost, e.Since = true, time.Since(p.lost)
	}
	p.Event(e)
}
