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
	"github.com/lifeline-go/lifeline/agent/export"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/state"
)

// agentPolicy is what an agent was told: by its policy file, which is read
// again on SIGHUP, and by flags.
type agentPolicy struct {
	path    string         // "" = no file
	webhook string         // where alerts go; "" = nowhere
	passive bool           // nothing may be sent
	now     *policy.Policy // in force
	told    state.Policy
}

// readAgentPolicy reads the policy file, if there is one. A webhook of the flags
// goes before that of the file.
func readAgentPolicy(path, webhook string, passive bool) (*agentPolicy, error) {
	a := &agentPolicy{path: path, passive: passive, now: &policy.Policy{}}
	if webhook != "" {
		if err := policy.CheckWebhook(webhook); err != nil {
			return nil, fmt.Errorf("--webhook: %w", err)
		}
	}
	if path != "" {
		p, err := readPolicy(path, passive)
		if err != nil {
			return nil, fmt.Errorf("--policy: %w", err)
		}
		a.now, a.told = p, state.Policy{Path: path, Loaded: time.Now()}
	}
	a.webhook = cmp.Or(webhook, a.now.Webhook)
	return a, nil
}

// readPolicy reads a policy file. What the agent does not do it refuses: nobody
// may rely on an act that never comes.
func readPolicy(path string, passive bool) (*policy.Policy, error) {
	file, err := os.Open(path)
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
		return nil, fmt.Errorf("%s: %w", path, err)
	case len(p.Acts()) > 0:
		return nil, fmt.Errorf("%s: acts: the agent only watches so far, and does not act by itself: leave acts out, and use lifeline cut, tune and evac", path)
	case passive && len(p.Names) > 0:
		return nil, fmt.Errorf("%s: watch: names: with --passive nothing is sent, so that no name can be looked up: leave out one of them", path)
	}
	if err := lookUp(&node.Naming{}, p.Names); err != nil {
		return nil, fmt.Errorf("%s: watch: names: %w", path, err)
	}
	return p, nil
}

// follow puts the policy in force, and with each SIGHUP the file as it is then,
// until ctx ends. A file with an error changes nothing but what is said of it.
func (a *agentPolicy) follow(ctx context.Context, d *daemon.Daemon, log *slog.Logger) error {
	hup := make(chan os.Signal, 1)
	if a.path != "" { // without a file SIGHUP ends the agent, as any program
		signal.Notify(hup, syscall.SIGHUP)
		defer signal.Stop(hup)
	}
	d.SetPolicy(a.now, a.told)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
		}
		p, err := readPolicy(a.path, a.passive)
		if err == nil && p.Webhook != a.now.Webhook {
			err = fmt.Errorf("%s: webhook: another takes a new start of the agent", a.path)
		}
		if err != nil {
			a.told.Error = err.Error()
			log.Error("policy not read, the one before stays", "error", err.Error())
		} else {
			a.now, a.told = p, state.Policy{Path: a.path, Loaded: time.Now()}
			log.Info("policy read", "path", a.path)
		}
		d.SetPolicy(a.now, a.told)
	}
}

// tellWebhook sends findings as alerts until ctx ends.
func tellWebhook(ctx context.Context, d *daemon.Daemon, hook *export.Webhook) error {
	ended := make(chan error, 1)
	go func() { ended <- hook.Run(ctx) }()
	for seq := uint64(0); ; {
		s, err := d.Wait(ctx, seq)
		if err != nil {
			<-ended
			return nil
		}
		seq = s.Seq
		hook.Tell(s)
	}
}
