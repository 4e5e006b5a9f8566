package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

const (
	// completeTime is how long somebody who pressed Tab waits for the sockets of
	// this machine.
	completeTime = time.Second

	// mostCompleted is how many of them are offered: those with the most
	// connections.
	mostCompleted = 50
)

// completion is what a shell asks for.
type completion = func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective)

// complete tells shells what the values of flags may be. Those that are files
// are left to the shell, and of others nothing is offered that would be wrong.
func complete(root *cobra.Command) {
	values := map[string]completion{"peer": offer(peersSeen), "what-if": offer(peersSeen), "pid": offer(pidsSeen), "process": offer(namesSeen),
		"fail-on":  cobra.FixedCompletions([]cobra.Completion{"fail", "warn", "info"}, cobra.ShellCompDirectiveNoFileComp),
		"protocol": cobra.FixedCompletions([]cobra.Completion{"tcp", "udp", "unix"}, cobra.ShellCompDirectiveNoFileComp),
		"state":    cobra.FixedCompletions(stateNames(), cobra.ShellCompDirectiveNoFileComp), "by": completeKeys}
	for _, cmd := range append(root.Commands(), root) {
		for _, c := range append(cmd.Commands(), cmd) {
			completeFlags(c, values)
			if c.Name() == "poke" {
				c.ValidArgsFunction = offer(peersSeen)
			}
		}
	}
}

func completeFlags(c *cobra.Command, values map[string]completion) {
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		do := values[f.Name]
		if name, _ := pflag.UnquoteUsage(f); do == nil && f.Value.Type() != "bool" && name != "file" && name != "folder" && name != "path" {
			do = cobra.NoFileCompletions
		}
		if do != nil {
			_ = c.RegisterFlagCompletionFunc(f.Name, do) // fails where a command has its own already
		}
	})
}

func stateNames() (names []cobra.Completion) {
	for s := fact.Established; s <= fact.NewSynRecv; s++ {
		names = append(names, s.String())
	}
	return names
}

// completeKeys completes the last of several keys.
func completeKeys(_ *cobra.Command, _ []string, typed string) (list []cobra.Completion, _ cobra.ShellCompDirective) {
	before := typed[:strings.LastIndex(typed, ",")+1]
	for _, key := range census.Keys {
		if !slices.Contains(strings.Split(before, ","), string(key)) {
			list = append(list, before+string(key))
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// offer completes by what is seen on this machine within a second; nothing when
// that takes longer or is not allowed.
func offer(seen func(*fact.Machine, *fact.Socket, func(value, about string))) completion {
	return func(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, completeTime)
		defer cancel()
		looked := make(chan *fact.Machine, 1)
		go func() {
			m, err := node.New().Look(ctx, node.Want{})
			if err != nil {
				m = nil
			}
			looked <- m
		}()
		select {
		case m := <-looked:
			return ranked(m, typed, seen), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
		case <-ctx.Done(): // this process ends soon, and the look with it
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	}
}

// ranked are the values with the most connections that begin as was typed.
func ranked(m *fact.Machine, typed string, seen func(*fact.Machine, *fact.Socket, func(value, about string))) []cobra.Completion {
	if m == nil {
		return nil
	}
	counts, abouts := make(map[string]int), make(map[string]string)
	for i := range m.Sockets {
		seen(m, &m.Sockets[i], func(value, about string) {
			if strings.HasPrefix(value, typed) && !strings.ContainsAny(value, "\t\n ") {
				counts[value]++
				abouts[value] = about
			}
		})
	}
	values := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(counts[b]-counts[a], strings.Compare(a, b)) })
	var list []cobra.Completion
	for _, v := range values[:min(len(values), mostCompleted)] {
		about := verdict.Number(counts[v]) + " sockets"
		if counts[v] == 1 {
			about = "1 socket"
		}
		if abouts[v] != "" {
			about = abouts[v] + ", " + about
		}
		list = append(list, cobra.CompletionWithDesc(v, about))
	}
	return list
}

func peersSeen(_ *fact.Machine, s *fact.Socket, add func(value, about string)) {
	if addr := s.Remote.Addr(); s.Remote.IsValid() && s.Remote.Port() != 0 && !addr.IsUnspecified() {
		add(addr.String(), "")
	}
}

func pidsSeen(m *fact.Machine, s *fact.Socket, add func(value, about string)) {
	for _, o := range s.Owners {
		name := ""
		if p := m.Process(o.PID); p != nil {
			name = fact.Printable(p.Name)
		}
		add(fmt.Sprint(o.PID), name)
	}
}

func namesSeen(m *fact.Machine, s *fact.Socket, add func(value, about string)) {
	for _, o := range s.Owners {
		if p := m.Process(o.PID); p != nil {
			add(fact.Printable(p.Name), "")
		}
	}
}
