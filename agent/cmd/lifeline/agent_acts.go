package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lifeline-go/lifeline/agent/audit"
	"github.com/lifeline-go/lifeline/agent/daemon"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/guard"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/notice"
	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/profile"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/agent/source/procfs/bounded"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/agent/web"
)

// actFlags are the flags of lifeline agent about its acts.
type actFlags struct{ audit, socket, shutdownFile string }

func (f *actFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.audit, "audit", audit.DefaultPath, "`file` that tells of each act, before it and after it")
	flags.StringVar(&f.socket, "socket", notice.DefaultSocket, "unix `socket` for lifeline agent notify-shutdown")
	flags.StringVar(&f.shutdownFile, "shutdown-file", "", "`file` that says that this machine goes: whoever ends the agent while it is there has it evacuate first")
}

const (
	// mostUntold is how many lines about acts wait for a log that is not read. It
	// holds up no act; the audit log has them all.
	mostUntold = 256

	// lastWords is how long the log is waited for when all has ended.
	lastWords = time.Second
)

// agentActs is what an agent does beside watching.
type agentActs struct {
	*guard.Guard
	log          *slog.Logger
	untold       chan state.Act
	hook         *notice.Hook
	shutdownFile string
	changed      chan struct{} // the policy has
}

func newAgentActs(f *agentFlags, token string, d *daemon.Daemon, of node.Namespaces, log *slog.Logger) *agentActs {
	a := &agentActs{log: log, shutdownFile: f.acts.shutdownFile, untold: make(chan state.Act, mostUntold), changed: make(chan struct{}, 1)}
	noHand := ""
	if token == "" {
		noHand = web.NoToken
	}
	a.Guard = guard.New(guard.Options{Agent: d, Audit: f.acts.audit, Of: of, NoHand: noHand, Told: func(act state.Act) {
		select {
		case a.untold <- act:
		default: // nobody reads the log
		}
	}})
	a.hook = &notice.Hook{Path: f.acts.socket, Going: func(ctx context.Context, why string) (state.Act, error) {
		return a.Evac(ctx, "notify-shutdown: "+why, 0)
	}}
	return a
}

func (a *agentActs) setPolicy(p *policy.Policy, _ state.Policy) {
	a.SetPolicy(p)
	if r := rights(); len(p.Acts()) > 0 && r.Name != profile.Act {
		a.log.Warn("the policy allows what the rights of this agent do not: it needs the profile act", "acts", p.Acts(), "missing", r.Lacks())
	}
	select {
	case a.changed <- struct{}{}:
	default: // it is known that it has
	}
}

// run acts until ctx ends, and hears of the end of this machine where there is a
// policy, which alone can make something of it.
func (a *agentActs) run(ctx context.Context, told bool) error {
	said := make(chan struct{})
	go func() {
		defer close(said)
		for act := range a.untold {
			tellAct(a.log, &act)
		}
	}()
	var parts sync.WaitGroup
	parts.Go(func() { _ = a.Run(ctx) }) // it returns nil
	if told {
		logind := &notice.Logind{Said: a.heardOfLogind, Waits: a.SystemdWaits, Going: func(ctx context.Context, most time.Duration) {
			_, _ = a.Evac(ctx, "systemd says that this machine goes down", most) // what came of it is told
		}}
		parts.Go(func() { _ = logind.Run(ctx, a.MayEvac, a.changed) }) // it returns nil
		parts.Go(func() { a.hear(ctx) })
	}
	<-ctx.Done()
	if a.shutdownFile != "" && a.MayEvac() && a.isThere(a.shutdownFile) {
		_, _ = a.Evac(context.WithoutCancel(ctx), "told to end while "+a.shutdownFile+" is there", 0) // what came of it is told
	}
	parts.Wait()
	err := a.Close() // nothing is done from here on
	close(a.untold)
	select {
	case <-said:
	case <-time.After(lastWords):
	}
	return err
}

// isThere reports that a file is there. Where its file system does not answer nobody
// knows, and nothing is done.
func (a *agentActs) isThere(path string) bool {
	_, err := bounded.Do(new(bounded.Calls), path, func() (os.FileInfo, error) { return os.Stat(path) })
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		a.log.Warn("nobody knows whether this machine goes: nothing is evacuated", "shutdown_file", path, "error", err.Error())
	}
	return err == nil
}

func (a *agentActs) heardOfLogind(err error) {
	if err != nil {
		a.log.Warn("shutdown notice", "error", err.Error())
		return
	}
	a.log.Info("systemd waits for this agent at a shutdown")
}

// hear answers lifeline agent notify-shutdown. Without a socket all else goes on.
// Without the rights for an evac a notice would be of no use.
func (a *agentActs) hear(ctx context.Context) {
	if !rights().Has("evac") {
		return
	}
	l, err := a.hook.Listen(ctx)
	if err == nil {
		err = a.hook.Serve(ctx, l)
	}
	if err != nil {
		a.log.Warn("lifeline agent notify-shutdown does not reach this agent", "error", err.Error())
	}
}

// tellAct writes a line for an act that begins, and one for what came of it.
func tellAct(log *slog.Logger, a *state.Act) {
	about := []any{"act", a.Act, "id", a.ID, "by", a.By, "why", a.Why, "target", a.Target}
	switch {
	case a.Ended == nil:
		log.Warn("act begins", append(about, "count", a.Left)...)
	case a.Error != "":
		log.Error("act ended", append(about, "done", a.Done, "left", a.Left, "outcome", a.Outcome, "error", a.Error)...)
	default:
		log.Warn("act ended", append(about, "done", a.Done, "left", a.Left, "outcome", a.Outcome)...)
	}
}

// newNotifyShutdown is what the hook of a cloud calls before it takes the machine.
func newNotifyShutdown() *cobra.Command {
	var socket, why string
	var most time.Duration
	cmd := &cobra.Command{
		Use:   "notify-shutdown",
		Short: "Tells the agent that this machine is about to go, and waits until it has evacuated",
		Long: "For whatever knows that this machine is about to go: the hook of a cloud that takes it back, the preStop\n" +
			"of a pod. It waits until the running agent has reset what the machine forwards, as its policy says\n" +
			"(acts: evac), and prints what came of it. To ask again while that goes on waits for the same.",
		Example: "  lifeline agent notify-shutdown\n" +
			"  lifeline agent notify-shutdown --why preempted --timeout 25s",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if most <= 0 || most > longestEvac {
				return usageError{fmt.Errorf("--timeout %v is out of range: take a time up to 1h", most)}
			}
			return notifyShutdown(cmd, socket, why, most)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", notice.DefaultSocket, "unix `socket` of the agent")
	cmd.Flags().StringVar(&why, "why", "it was asked to", "`reason`, for the audit log")
	cmd.Flags().DurationVar(&most, "timeout", time.Minute, "wait no longer; the agent goes on")
	cmd.Annotations = map[string]string{exitCodes: "0 all was reset, 1 not all was, 2 wrong usage, 3 the agent could not, or there is none"}
	return cmd
}

func notifyShutdown(cmd *cobra.Command, socket, why string, most time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(cmd.Context(), most, fmt.Errorf("the agent was not done within %v; it goes on", most))
	defer cancel()
	a, err := notice.Give(ctx, socket, why)
	if err != nil {
		return blindError{err}
	}
	if asJSON(cmd) {
		host, _ := os.Hostname() // the act is done, whatever this is called
		err = show.ActJSON(cmd.OutOrStdout(), &fact.Machine{Host: host, Time: a.Time}, true,
			[]verdict.Values{{{Key: "what", V: a.Act}, {Key: "count", V: a.Done}, {Key: "target", V: a.Target}}},
			verdict.Value{Key: "left", V: a.Left}, verdict.Value{Key: "outcome", V: a.Outcome}, verdict.Value{Key: "error", V: a.Error}, verdict.Value{Key: "undo", V: nil})
	} else {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s.\n", a.Outcome)
	}
	switch {
	case err != nil:
		return err
	case a.Error != "":
		return blindError{errors.New(a.Error)}
	case a.Left > 0:
		return errFindings
	}
	return nil
}
