package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/lifeline-go/lifeline/agent/daemon"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/state"
)

// agentPolicy is what an agent was told: by its policy file, which is read
// again on SIGHUP, and by flags.
type agentPolicy struct {
	path    string         // "" = no file
	passive bool           // nothing may be sent
	webhook string         // where alerts go; "" = nowhere
	now     *policy.Policy // in force
	told    state.Policy
	hup     chan os.Signal // SIGHUP came
}

// readAgentPolicy reads the policy file, if there is one. A webhook of the flags
// goes before that of the file.
func readAgentPolicy(path, webhook string, passive bool) (*agentPolicy, error) {
	a := &agentPolicy{path: path, passive: passive, now: &policy.Policy{}, hup: make(chan os.Signal, 1)}
	if webhook != "" {
		if err := policy.CheckWebhook(webhook); err != nil {
			return nil, fmt.Errorf("--webhook: %w", err)
		}
	}
	if path != "" {
		p, err := a.read()
		if err != nil {
			return nil, fmt.Errorf("--policy: %w", err)
		}
		a.take(p)
	}
	a.webhook = cmp.Or(webhook, a.now.Webhook)
	return a, nil
}

// take makes a policy the one that is in force.
func (a *agentPolicy) take(p *policy.Policy) {
	a.now, a.told = p, state.Policy{Path: a.path, Loaded: time.Now(), Acts: p.Acts()}
}

// read reads the policy file. What the agent does not do it refuses: nobody may
// rely on what never comes.
func (a *agentPolicy) read() (*policy.Policy, error) {
	file, err := os.Open(a.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, policy.MostBytes+1))
	if err != nil {
		return nil, err
	}
	p, err := policy.Parse(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", a.path, err)
	case a.passive && len(p.Acts()) > 0:
		return nil, fmt.Errorf("%s: acts: with --passive nothing is sent and so nothing done: leave one of both out", a.path)
	case a.passive && len(p.Names) > 0:
		return nil, fmt.Errorf("%s: watch: names: with --passive nothing is sent, so that no name can be looked up: leave out one of them", a.path)
	}
	if err := lookUp(&node.Naming{}, p.Names); err != nil {
		return nil, fmt.Errorf("%s: watch: names: %w", a.path, err)
	}
	return p, nil
}

// hear has SIGHUP come to who follows, from now on until ended: early, as who starts
// the agent may send it soon. Without a file it ends the agent, as any program.
func (a *agentPolicy) hear() (ended func()) {
	if a.path == "" {
		return func() {}
	}
	signal.Notify(a.hup, syscall.SIGHUP)
	return func() { signal.Stop(a.hup) }
}

// follow puts the policy in force, and with each SIGHUP the file as it is then,
// until ctx ends. A file with an error changes nothing but what is said of it.
func (a *agentPolicy) follow(ctx context.Context, log *slog.Logger, put ...func(*policy.Policy, state.Policy)) error {
	for {
		for _, put := range put {
			put(a.now, a.told)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.hup:
		}
		p, err := a.read()
		if err == nil && p.Webhook != a.now.Webhook {
			err = fmt.Errorf("%s: webhook: another takes a new start of the agent", a.path)
		}
		if err != nil {
			a.told.Error = err.Error()
			log.Error("policy not read, the one before stays", "error", err.Error())
			continue
		}
		a.take(p)
		log.Info("policy read", "path", a.path, "acts", a.told.Acts)
	}
}

// A sender tells others what the agent knows: Tell never waits, Run sends.
type sender interface {
	Tell(*state.State)
	Run(context.Context) error
}

// feed gives a sender each State until ctx ends.
func feed(ctx context.Context, d *daemon.Daemon, to sender) error {
	ended := make(chan error, 1)
	go func() { ended <- to.Run(ctx) }()
	for seq := uint64(0); ; {
		s, err := d.Wait(ctx, seq)
		if err != nil {
			<-ended
			return nil
		}
		seq = s.Seq
		to.Tell(s)
	}
}
