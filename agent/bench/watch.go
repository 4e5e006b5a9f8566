package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// watchShare is the most that a watch may take of a processor.
const watchShare = 0.01

// watch measures what it costs to watch many connections for silence, when
// nothing is sent and when something is.
func watch(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("watch", flag.ContinueOnError)
	n := flags.Int("sockets", 30000, "connections of the namespace that is watched")
	span := flags.Duration("for", 30*time.Second, "how long each is measured")
	messages := flags.Int("messages", 1000, "sent in a second, in the second measurement")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return lab.Run(func(l *lab.Lab) error {
		pod, all, err := crowded(ctx, l, *n, *messages)
		defer all.stop()
		if err != nil {
			return err
		}
		t := newTable("watch of %d connections, CPU of one core over %v", *n, *span)
		for _, traffic := range []int{0, *messages} {
			if traffic > 0 {
				all.start()
			}
			share, verdicts, err := watched(ctx, pod, *span)
			if err != nil {
				return err
			}
			t.row(fmt.Sprintf("%d messages/s", traffic), percent(share), "≤ "+percent(watchShare), share/watchShare)
			if verdicts > 0 {
				t.row("  verdicts on the peer, which is alive", strconv.Itoa(verdicts), "0", 0)
			}
		}
		return t.print()
	})
}

// crowded returns a host with n connections to others, held by processes of
// their own, which send so many messages in a second, all together, once they
// are told to start.
func crowded(ctx context.Context, l *lab.Lab, n, messages int) (pod *lab.Host, all holders, err error) {
	const each = 15000 // a process may have 20,000 files
	pod, client := l.Host("pod"), l.Host("client")
	l.Wire(pod, "10.77.1.2/24", client, "10.77.1.1/24")
	processes := (n + each - 1) / each
	for i := range processes {
		address := fmt.Sprintf("10.77.1.2:%d", 8080+i)
		share := n/processes + min(1, n%processes/(i+1))
		pause := time.Duration(0)
		if messages > 0 {
			pause = time.Second * time.Duration(processes) / time.Duration(messages)
		}
		for _, h := range []struct {
			on   *lab.Host
			args []string
		}{{pod, []string{"serve", address}}, {client, []string{"dial", address, strconv.Itoa(share), pause.String()}}} {
			started, err := startHolder(ctx, h.on, h.args...)
			if err != nil {
				return nil, all, fmt.Errorf("process to hold connections: %w", err)
			}
			all = append(all, started)
		}
	}
	return pod, all, nil
}

// watched returns the share of a processor that a watch of a host takes after
// its first seconds, in which it opens what it keeps open, and how many verdicts
// it told.
func watched(ctx context.Context, h *lab.Host, span time.Duration) (share float64, verdicts int, err error) {
	of, err := node.ParseNamespaces(h.Path())
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n := node.New()
	defer n.Close()
	ended := make(chan error, 1)
	go func() {
		ended <- n.WatchPeers(ctx, node.PeerWatch{Of: of}, func(_ *fact.Machine, changes []verdict.Change) error {
			verdicts += len(changes)
			return nil
		})
	}()
	wait := func(d time.Duration) error {
		select {
		case err := <-ended:
			return err
		case <-time.After(d):
			return nil
		}
	}
	if err := wait(5 * time.Second); err != nil {
		return 0, 0, err
	}
	began, before := time.Now(), usage()
	if err := wait(span); err != nil {
		return 0, 0, err
	}
	share = float64(usage()-before) / float64(time.Since(began))
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		return 0, 0, err
	}
	return share, verdicts, nil
}
