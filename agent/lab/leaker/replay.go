package leaker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// Needs are the programs that a replay needs beside what every lab needs; dockerd
// only where no Docker daemon runs.
var Needs = []string{"go", "dockerd"}

// HealTime is after how long without use the client that heals itself closes a
// connection.
const HealTime = 30 * time.Second

// Replay says how to play the story. The zero value takes some two minutes.
type Replay struct {
	Every time.Duration // between two builds of an agent; 0 = 10 s
	Idle  time.Duration // as in verdict.LeakWatch; 0 = 32 s, more than HealTime
	Most  time.Duration // when to give up; 0 = 5 min
	Event func(Event)   // is told what happens; nil: nobody
}

// Event is something that happened, Since the agents began.
type Event struct {
	With  string
	Since time.Duration
	Text  string
}

// Run is what became of one agent.
type Run struct {
	With    string // its client
	Name    string // of the program, as in DockerLeaks
	Took    time.Duration
	Builds  int                       // when the replay ended
	Sockets int                       // that the agent held then, by /proc
	Suspect fact.Known[time.Duration] // when it was suspected
	Found   fact.Known[time.Duration] // when it was called a leak
	FoundAt int                       // after so many builds
	Site    *verdict.LeakSite         // what was found; nil: nothing
	agent   *process
	pid     int32
}

// clients are the agents' clients.
var clients = []struct{ name, with string }{
	{DockerLeaks, "docker/docker v20.10.27"},
	{DockerHeals, "moby/moby/client v0.6.2"},
}

// Play builds the agents, starts them, and watches them until the first is called
// a leak.
func (r Replay) Play(ctx context.Context) (runs []Run, err error) {
	r.defaults()
	err = lab.Run(func(l *lab.Lab) error {
		for _, c := range clients {
			runs = append(runs, Run{With: c.with, Name: c.name})
		}
		return r.play(ctx, l, runs)
	})
	return runs, err
}

func (r *Replay) defaults() {
	for _, d := range []struct {
		value       *time.Duration
		recommended time.Duration
	}{{&r.Every, 10 * time.Second}, {&r.Idle, HealTime + 2*time.Second}, {&r.Most, 5 * time.Minute}} {
		if *d.value == 0 {
			*d.value = d.recommended
		}
	}
	if r.Event == nil {
		r.Event = func(Event) {}
	}
}

func (r *Replay) play(ctx context.Context, l *lab.Lab, runs []Run) error {
	socket, daemon, err := docker(ctx, l.Dir())
	if err != nil {
		return err
	}
	whose := "this machine's own"
	if daemon != nil {
		defer daemon.end()
		whose = "started for this"
	}
	r.Event(Event{Text: "dockerd listens on " + socket + ", " + whose})
	paths := make([]string, len(runs))
	for i := range runs {
		dir := filepath.Join(l.Dir(), runs[i].Name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if paths[i], err = (Build{}).Make(ctx, runs[i].Name, dir); err != nil {
			return err
		}
		r.Event(Event{With: runs[i].With, Text: "its agent is built: -trimpath -ldflags='-s -w'"})
	}
	n := node.New()
	defer n.Close()
	o, err := n.Openers(node.OpenersWant{Uses: true, Trace: true, Only: func(pid int32, _ string) bool {
		return slices.ContainsFunc(runs, func(one Run) bool { return one.pid == pid })
	}})
	if err != nil {
		return err
	}
	defer o.Close()
	for i := range runs {
		if runs[i].agent, err = agent(paths[i], socket, 1<<20, r.Every); err != nil {
			return err
		}
		defer runs[i].agent.end()
		runs[i].pid = int32(runs[i].agent.cmd.Process.Pid)
		if err := o.Follow(runs[i].pid); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return r.watch(ctx, o, runs)
}

// watch looks until the first agent is found.
func (r *Replay) watch(ctx context.Context, o *node.Openers, runs []Run) error {
	begun := time.Now()
	w := verdict.LeakWatch{Idle: r.Idle, Suspect: r.Idle / 10}
	for {
		all, err := o.Look(ctx)
		if err != nil {
			return err
		}
		w.Look(all)
		since := time.Since(begun)
		done := since > r.Most
		if err := r.judge(ctx, o, &w, all, runs, since); err != nil {
			return err
		}
		if done || runs[0].Found.OK {
			for i := range runs {
				runs[i].Took, runs[i].Sockets, runs[i].Builds = since, sockets(int(runs[i].pid)), runs[i].agent.said()
			}
			return nil
		}
		if err := sleep(ctx, min(r.Idle/40, time.Second)); err != nil {
			return err
		}
	}
}

func (r *Replay) judge(ctx context.Context, o *node.Openers, w *verdict.LeakWatch, all *fact.Openings, runs []Run, since time.Duration) error {
	for i := range runs {
		run := &runs[i]
		if err := run.agent.running(); err != nil {
			return err
		}
		for _, s := range w.Sites() {
			if s.PID != run.pid || s.Verdict == verdict.Healthy {
				continue
			}
			if !run.Suspect.OK {
				run.Suspect = fact.Seen(since)
				r.Event(Event{run.With, since, fmt.Sprintf("suspected, with %d sockets: %s", s.Open, s.AskedBy.Func)})
			}
			if s.Verdict == verdict.Leaking && !run.Found.OK {
				if err := o.Ends(ctx, all); err != nil {
					return err
				}
				for _, s := range w.Sites() {
					if s.PID == run.pid && s.Verdict == verdict.Leaking {
						run.Found, run.FoundAt, run.Site = fact.Seen(since), s.Operations, &s
						r.Event(Event{run.With, since, "a leak: " + s.Diagnosis})
					}
				}
			}
		}
	}
	return nil
}
