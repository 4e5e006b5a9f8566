package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

const (
	// mostSilent is how many peers may wait to be cut. Their verdicts may be
	// lifted by then, which stops the cut.
	mostSilent = 1024

	leastAsk, mostAsk = 250 * time.Millisecond, time.Hour
)

var errFell = errors.New("a verdict fell")

// parseAsk checks --ask.
func parseAsk(ask time.Duration) error {
	if ask != 0 && (ask < leastAsk || ask > mostAsk) {
		return fmt.Errorf("--ask %v is out of range: take a time from %v to 1h, or 0 to ask nobody", ask, leastAsk)
	}
	return nil
}

// silentCut cuts connections to peers that a watch says are silent.
type silentCut struct {
	cmd    *cobra.Command
	flags  *cutFlags
	choice choice
	rate   act.Rate
	own    map[uint32]bool // inodes of Lifeline's own sockets
	mu     sync.Mutex      // guards the output, which the watch and the cut share
	held   bool            // something was left alone that is silent
	failed error
}

// fallen is a peer that fell silent, with the look that showed it: only the
// sockets that may be cut, all of them copies.
type fallen struct {
	verdict.Change
	m      *fact.Machine
	alone  bool // no other peer has a connection, or one was heard meanwhile
	others []verdict.Suspect
}

func runCutSilent(cmd *cobra.Command, f *cutFlags, rate act.Rate, c choice) error {
	s := &silentCut{cmd: cmd, flags: f, choice: c, rate: rate, own: ownSockets()}
	ctx := cmd.Context()
	if !f.watch {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.look)
		defer cancel()
	}
	queue := make(chan fallen, mostSilent)
	var worker sync.WaitGroup
	worker.Go(func() {
		for p := range queue {
			s.end(cmd.Context(), &p)
		}
	})
	n := node.New()
	defer n.Close()
	began, missed := false, 0
	err := n.WatchPeers(ctx, node.PeerWatch{Of: c.want.Namespaces, Ask: f.ask, Brief: true}, func(m *fact.Machine, changes []verdict.Change) error {
		if !began {
			began = true
			if err := s.begin(m); err != nil {
				return err
			}
		}
		found := false
		for _, change := range changes {
			if c.filter.Peer.IsValid() && !c.filter.Peer.Contains(change.Addr) {
				continue
			}
			if change.Verdict != verdict.Silent {
				s.tell(&change)
				continue
			}
			found = true
			select {
			case queue <- s.take(m, change):
			default:
				missed++
			}
		}
		if found && !f.watch {
			return errFell
		}
		return nil
	})
	close(queue)
	worker.Wait()
	return s.result(err, missed)
}

// result is how the command ends.
func (s *silentCut) result(err error, missed int) error {
	switch {
	case s.cmd.Context().Err() != nil:
		return err
	case errors.Is(err, context.DeadlineExceeded):
		if !asJSON(s.cmd) {
			fmt.Fprintf(s.cmd.OutOrStdout(), "Nobody fell silent in %s.\n", bound.Format(s.flags.look))
		}
		return nil
	case err != nil && !errors.Is(err, errFell):
		return blindError{err}
	case s.failed != nil:
		return blindError{s.failed}
	case missed > 0:
		return blindError{fmt.Errorf("%d more peers fell silent than could be cut: cut them by --peer", missed)}
	case s.held:
		return errFindings
	}
	return nil
}

// begin says that it watches, so that silence of its own means something.
func (s *silentCut) begin(m *fact.Machine) error {
	if asJSON(s.cmd) {
		if !s.flags.watch {
			return nil
		}
		return show.ActLine(s.cmd.OutOrStdout(), m, s.flags.yes, nil)
	}
	style, _ := terminal(s.cmd.OutOrStdout())
	show.Blindness(s.cmd.ErrOrStderr(), m.Blind, style)
	_, err := fmt.Fprintf(s.cmd.ErrOrStderr(), "%s %s: watching\n", m.Time.Format(time.TimeOnly), m.Host)
	return err
}

// tell writes a change of a verdict for people.
func (s *silentCut) tell(c *verdict.Change) {
	if asJSON(s.cmd) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	style, _ := terminal(s.cmd.OutOrStdout())
	show.Change(s.cmd.OutOrStdout(), c, style)
}

// take copies what a cut needs from a look that lasts no longer than the call.
func (s *silentCut) take(m *fact.Machine, c verdict.Change) fallen {
	p := fallen{Change: c, m: &fact.Machine{Host: m.Host, Time: m.Time, Namespaces: m.Namespaces, Blind: m.Blind}}
	p.alone, p.others = verdict.Others(m, &c.Peer)
	p.alone = p.alone || len(p.others) == 0
	f := census.Filter{Peer: netip.PrefixFrom(c.Addr, c.Addr.BitLen()), States: s.choice.filter.States}
	for _, socket := range act.Select(m, f, 0) {
		if socket.Netns == c.Netns && (c.Interface == 0 || socket.Interface == c.Interface) && !s.own[socket.Inode] {
			p.m.Sockets = append(p.m.Sockets, *socket)
		}
	}
	return p
}

// end cuts what there is with one silent peer, or says why not.
func (s *silentCut) end(ctx context.Context, p *fallen) {
	s.tell(&p.Change)
	if s.choice.filter.Process != "" || s.choice.filter.PID != 0 || !s.flags.yes {
		s.complete(ctx, p)
	}
	chosen := make([]*fact.Socket, len(p.m.Sockets))
	for i := range p.m.Sockets {
		chosen[i] = &p.m.Sockets[i]
	}
	var report act.CutReport
	start := time.Now()
	stopped := s.ownLink(ctx, p)
	switch {
	case stopped != nil:
		report.Left = chosen
	case s.flags.yes:
		report, stopped = act.Cut(ctx, p.m, chosen, act.CutOptions{Rate: s.rate, After: s.batch, Before: s.stillSilent(p.m)})
	default:
		report.Cut = chosen
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(&report, stopped)
	if err := s.print(p, &report, time.Since(start), stopped); err != nil {
		s.failed = err
	}
}

// note remembers what decides how the command ends.
func (s *silentCut) note(r *act.CutReport, stopped error) {
	var refused *act.Error
	switch {
	case stopped == nil && len(r.Failed) > 0:
		s.failed = fmt.Errorf("%s connections could not be cut, the first: %w", verdict.Number(len(r.Failed)), r.Failed[0].Err)
	case errors.As(stopped, &refused):
		s.failed = stopped
	case stopped != nil:
		s.held = true
	}
}

// batch is the log line of each batch.
func (s *silentCut) batch(r act.CutReport) { logBatch(s.cmd, r) }

// stillSilent is act.StillSilent. The verdict rests on a look of which only the
// end is known; who is silent was silent for much longer before.
func (s *silentCut) stillSilent(m *fact.Machine) func(context.Context, []*fact.Socket) error {
	const look = 100 * time.Millisecond
	return act.StillSilent(m, m.Time.Add(-look))
}

// complete looks again, for the owners, and keeps what the filter takes.
func (s *silentCut) complete(ctx context.Context, p *fallen) {
	c := s.choice
	c.filter.Peer = netip.PrefixFrom(p.Addr, p.Addr.BitLen())
	m, chosen, err := c.look(ctx)
	if err != nil {
		p.m.Sockets = nil
		return
	}
	at := p.m.Time
	p.m = &fact.Machine{Host: m.Host, Time: at, Namespaces: m.Namespaces, Processes: m.Processes, Blind: m.Blind}
	for _, socket := range chosen {
		if socket.Netns == p.Netns && (p.Interface == 0 || socket.Interface == p.Interface) {
			p.m.Sockets = append(p.m.Sockets, *socket)
		}
	}
}

// ownLink returns an error when it may be this machine that is cut off: other
// peers have connections too, none of them was heard meanwhile, and none that is
// asked answers.
func (s *silentCut) ownLink(ctx context.Context, p *fallen) error {
	if p.alone || s.flags.evenAll {
		return nil
	}
	c := choice{want: s.choice.want}
	m, _, err := c.look(ctx)
	if err != nil {
		return err
	}
	if !node.AnyAnswers(ctx, m, p.others) {
		return fmt.Errorf("%w; --even-all cuts all the same", node.ErrOwnLink)
	}
	return nil
}

func (s *silentCut) print(p *fallen, r *act.CutReport, took time.Duration, stopped error) error {
	out, count := s.cmd.OutOrStdout(), touched(p.m, r.Cut)
	var reason any
	if stopped != nil {
		reason = stopped.Error()
	}
	if asJSON(s.cmd) {
		values := []verdict.Value{{Key: "gone", V: len(r.Gone)}, {Key: "failed", V: len(r.Failed)}, {Key: "left", V: len(r.Left)},
			rateValue(s.rate), {Key: "seconds", V: took.Seconds()}, {Key: "quiet_ms", V: p.Quiet.Value.Milliseconds()},
			{Key: "stopped", V: reason}, {Key: "undo", V: nil}}
		if s.flags.watch {
			return show.ActLine(out, p.m, s.flags.yes, show.Touched("cut", &count), values...)
		}
		return show.ActJSON(out, p.m, s.flags.yes, show.Touched("cut", &count), values...)
	}
	if !s.flags.yes && stopped == nil {
		show.Touching(out, &count)
		_, err := fmt.Fprintf(out, "Would cut %s connections. Nothing is done without --yes.\n", verdict.Number(len(r.Cut)))
		return err
	}
	text := fmt.Sprintf("Cut %s connections to %s in %s", verdict.Number(len(r.Cut)), p.Addr, bound.Format(took))
	if len(r.Gone) > 0 {
		text += fmt.Sprintf("; %s were gone already", verdict.Number(len(r.Gone)))
	}
	if stopped != nil {
		text += fmt.Sprintf(". Stopped, %s left alone: %v", verdict.Number(len(r.Left)), stopped)
	}
	_, err := fmt.Fprintf(out, "%s.\n", text)
	return err
}

// ownSockets are the inodes of this process' sockets, which it never cuts.
func ownSockets() map[uint32]bool {
	own := make(map[uint32]bool)
	const fds = "/proc/self/fd"
	entries, _ := os.ReadDir(fds)
	for _, e := range entries {
		link, _ := os.Readlink(fds + "/" + e.Name())
		var inode uint32
		if strings.HasPrefix(link, "socket:[") {
			if _, err := fmt.Sscanf(link, "socket:[%d]", &inode); err == nil {
				own[inode] = true
			}
		}
	}
	return own
}

// parseSilent checks the flags that belong to --silent.
func (f *cutFlags) parseSilent(cmd *cobra.Command) error {
	if !f.silent {
		names := []string{"watch", "for", "ask", "even-all"}
		if i := slices.IndexFunc(names, cmd.Flags().Changed); i >= 0 {
			return fmt.Errorf("--%s needs --silent", names[i])
		}
		return nil
	}
	switch {
	case f.whileSilent:
		return errors.New("--silent stops at the first sign of life by itself: leave --while-silent out")
	case f.watch && cmd.Flags().Changed("for"):
		return errors.New("--watch goes on until it is interrupted: leave --for out")
	case f.look < time.Second || f.look > longestLook:
		return fmt.Errorf("--for %v is out of range: take a time from 1s to 1h", f.look)
	}
	return parseAsk(f.ask)
}
