package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/fleet"
	"github.com/lifeline-go/lifeline/agent/show"
)

// add adds a step, and a place for the answers of all hosts.
func (s *session) add(step fleet.Step) {
	s.mu.Lock()
	p := &pending{began: time.Now(), answers: make([]fact.HostAnswer, len(s.plan.Hosts)), asked: make([]bool, len(s.plan.Hosts)), left: s.left}
	for i, host := range s.plan.Hosts {
		if s.gone[i] {
			p.answers[i] = notAsked(host)
		}
	}
	s.pending = append(s.pending, p)
	s.mu.Unlock()
	s.plan.Script.Add(step)
}

// notAsked is the answer of a host that has left.
func notAsked(host string) fact.HostAnswer {
	return fact.HostAnswer{Host: host, Outcome: fact.OutcomeNotRun, Reason: "not asked, because it was lost or failed before"}
}

// did is fleet.Plan's Did.
func (s *session) did(i int, a fact.HostAnswer, last bool) {
	s.printer.paused(a.Host)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.at[a.Host]
	s.done[at] = i + 1
	s.answered(i, at, a)
	if last {
		s.leaves(at)
	}
	s.emit()
}

// answered notes the answer of a host to a step.
func (s *session) answered(i, at int, a fact.HostAnswer) {
	p := s.pending[i-s.emitted]
	p.answers[at], p.asked[at] = a, true
	p.left--
	s.kept += len(a.Stdout) + len(a.Stderr)
}

// leaves has a host answer no more.
func (s *session) leaves(at int) {
	s.gone[at] = true
	s.left--
	for i := s.done[at] - s.emitted; i < len(s.pending); i++ {
		s.pending[i].answers[at] = notAsked(s.plan.Hosts[at])
		s.pending[i].left--
	}
}

// over is told of a host that is done. If did was not told, it was not begun, or
// could not be stopped.
func (s *session) over(a *fact.HostAnswer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.at[a.Host]
	if s.gone[at] {
		return
	}
	if a.Outcome != fact.OutcomeOK && s.done[at]-s.emitted < len(s.pending) {
		s.answered(s.done[at], at, *a)
		s.done[at]++
	}
	s.leaves(at)
	s.emit()
	s.tell()
}

// emit shows the steps that all hosts have answered.
func (s *session) emit() {
	for len(s.pending) > 0 && s.pending[0].left == 0 {
		p := s.pending[0]
		s.pending[0] = nil
		s.pending = s.pending[1:]
		s.emitted++
		var asked []fact.HostAnswer
		for i := range p.answers {
			if s.person {
				p.answers[i].Command = "" // it is the line above
			}
			s.kept -= len(p.answers[i].Stdout) + len(p.answers[i].Stderr)
			if p.asked[i] {
				asked = append(asked, p.answers[i])
			}
		}
		shown := asked
		if asJSON(s.cmd) {
			shown = p.answers // no host is missing
		}
		if err := s.printer.step(s.cmd, s.flags, shown, time.Since(p.began)); err != nil && s.fault == nil {
			s.fault = err
			s.stop()
		}
		if len(s.pending) == 0 {
			s.again = false
		}
		s.tell()
	}
}

// tell wakes who waits for room.
func (s *session) tell() {
	select {
	case s.moved <- struct{}{}:
	default:
	}
}

// step shows what hosts answered to one of several commands.
func (p *fleetPrinter) step(cmd *cobra.Command, f *sshFlags, answers []fact.HostAnswer, took time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	if err := p.report(cmd, f, answers, took, true); err != nil {
		return err
	}
	if !asJSON(cmd) {
		show.FleetFaults(p.stderr, answers)
	}
	return nil
}
