package tty

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/lab/pty"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/top"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// source is a machine with so many peers, whose states come one after another.
type source struct {
	peers int
	every time.Duration // 0 = one state, and then none
	lost  error
}

func (s *source) Follow(ctx context.Context, take func(*state.State), lost func(error)) {
	for seq := uint64(1); ; seq++ {
		now := &state.State{Run: "A", Seq: seq, Host: "box", Time: time.Now(), Totals: state.Totals{Looked: time.Now(), Peers: s.peers}}
		for i := range s.peers {
			now.Peers = append(now.Peers, state.Peer{Peer: fmt.Sprintf("10.0.%d.%d", i/250, i%250), Count: int(seq), Verdict: "alive"})
		}
		take(now)
		if s.lost != nil {
			lost(s.lost)
		}
		wait := s.every
		if wait == 0 {
			wait = time.Hour
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (s *source) Ask(ctx context.Context, a top.Ask) (out top.Answer) {
	if a.WhatIf == "10.0.0.1" { // never answered
		<-ctx.Done()
	}
	out.Connections = state.Connections{Time: time.Now(), Total: 1, List: []state.Connection{{Cookie: 1, State: "ESTABLISHED", Remote: "10.0.0.0:443", Process: state.Holder{PID: 7, Name: "app"}}}}
	return out
}

// show is Run on a terminal with nobody at it.
type show struct {
	*testing.T
	*pty.Terminal
	late  <-chan struct{}
	side  *os.File
	ended chan error
	stop  context.CancelFunc

	before *unix.Termios // settings of the line
}

func begin(t *testing.T, from Source, environ ...string) *show {
	t.Helper()
	term, err := pty.Open(80, 24)
	if err != nil {
		t.Fatal(err)
	}
	side, err := term.Side()
	if err != nil {
		t.Fatal(err)
	}
	before, err := term.Settings()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	run, stop := context.WithCancel(ctx)
	s := &show{T: t, Terminal: term, late: ctx.Done(), side: side, ended: make(chan error, 1), stop: stop, before: before}
	t.Cleanup(func() { stop(); cancel(); side.Close(); term.Close() })
	go func() {
		s.ended <- Run(run, Options{In: side, Out: side, Environ: append([]string{"TERM=xterm-256color"}, environ...), Screen: top.New(top.Options{Ink: top.InkColor, From: "a test"}), Source: from})
	}()
	return s
}

func (s *show) until(text string) {
	s.Helper()
	if err := s.Until(s.late, func(screen string) bool { return strings.Contains(screen, text) }); err != nil {
		s.Fatalf("%q: %v", text, err)
	}
}

func (s *show) press(keys string) {
	s.Helper()
	if err := s.Type(keys); err != nil {
		s.Fatal(err)
	}
}

// resize tells this process too: the kernel only tells whom the terminal controls.
func (s *show) resize(width, height int) {
	s.Helper()
	if err := errors.Join(s.Resize(width, height), unix.Kill(os.Getpid(), unix.SIGWINCH)); err != nil {
		s.Fatal(err)
	}
}

// end waits for Run to return.
func (s *show) end() error {
	s.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-s.late:
		s.Fatal("it does not end")
		return nil
	}
}

// A user looks around on terminals of every kind, and gets the terminal back.
func TestLookAround(t *testing.T) {
	for _, environ := range [][]string{nil, {"TERM=vt100"}, {"TERM=linux", "NO_COLOR=1"}, {"TERM=screen-256color", "SSH_TTY=/dev/pts/0"}, {"TERM=unheard-of"}} {
		t.Run(fmt.Sprint(environ), func(t *testing.T) {
			s := begin(t, &source{peers: 60}, environ...)
			s.until("Lifeline on box")
			s.press("2")
			s.until("> alive              1  10.0.0.0")
			s.press("j\x1b[B")
			s.until("> alive              1  10.0.0.2")
			s.press("/0.59")
			s.until("> alive              1  10.0.0.59")
			s.press("\x1b")
			s.until("1 of 60")
			s.press("\r")
			s.until("Peer 10.0.0.0: 1 connection")
			s.until("app[7]")
			s.resize(120, 40)
			s.until("[2 peers 60]")
			s.resize(40, 12)
			s.until("1 [2 peers] 3  4  5")
			s.press("f")
			s.until("FROZEN for")
			s.press("q")
			if err := s.end(); err != nil {
				t.Error(err)
			}
			s.gaveBack()
			if u := s.Unknown(); len(u) > 0 {
				t.Errorf("unknown to the terminal: %q", u)
			}
		})
	}
}

// gaveBack holds that the terminal is as it was.
func (s *show) gaveBack() {
	s.Helper()
	if err := s.Until(s.late, func(string) bool { return s.Plain() }); err != nil {
		s.Errorf("the screen or the cursor was not given back: %v", err)
	}
	if after, err := s.Settings(); err != nil || !reflect.DeepEqual(s.before, after) {
		s.Errorf("the line is %+v and was %+v, %v", after, s.before, err)
	}
}

// What ends it from outside ends it: a context, a terminal that goes.
func TestEnded(t *testing.T) {
	t.Run("by the context, with a question under way", func(t *testing.T) {
		s := begin(t, &source{peers: 3, every: 20 * time.Millisecond})
		s.until("Lifeline on box")
		s.press("2j\r")
		s.until("Peer 10.0.0.1")
		s.stop()
		if err := s.end(); err != nil {
			t.Error(err)
		}
		s.gaveBack()
	})
	t.Run("by the end of the terminal", func(t *testing.T) {
		s := begin(t, &source{peers: 3, every: 20 * time.Millisecond})
		s.until("Lifeline on box")
		s.Close()
		if err := s.end(); err != nil {
			t.Error(err)
		}
	})
	t.Run("while the terminal takes nothing", func(t *testing.T) {
		s := begin(t, &source{peers: 400, every: time.Millisecond})
		s.until("Lifeline on box")
		s.press("2\x1b[F")
		s.until("400 of 400")
		s.resize(200, 60)
		s.until("[2 peers 400] 3 connections")
		s.Hold()
		for err := error(nil); err == nil; { // until no key is taken any more, because nothing more can be drawn
			err = s.Type(strings.Repeat("\x0c", 100))
		}
		s.stop()
		if err := s.end(); err != nil {
			t.Error(err)
		}
		if after, err := s.Settings(); err != nil || !reflect.DeepEqual(s.before, after) {
			t.Errorf("the line is %+v and was %+v, %v", after, s.before, err)
		}
	})
}

// Why no states come is said, and that they come again.
func TestLost(t *testing.T) {
	s := begin(t, &source{peers: 1, lost: errors.New("connection refused")})
	s.until("NO AGENT for 0 s")
	s.until(": connection refused")
	s.press("\x03")
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestNoTerminal(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := Run(t.Context(), Options{In: null, Out: null, Screen: top.New(top.Options{}), Source: &source{}}); err == nil || !strings.Contains(err.Error(), "no terminal") {
		t.Error(err)
	}
}
