package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/lifeline-go/lifeline/agent/daemon"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/agent/state"
)

const (
	// managerTime is how long the service manager may take for one message: its
	// socket is full when it hangs.
	managerTime = time.Second

	// managerEvery is how often it is told how things stand, at the most.
	managerEvery = 5 * time.Second

	// longestStatus is how much of one line systemctl status shows, and a bit.
	longestStatus = 200
)

// tellManager tells the service manager that started this agent, where one did, that
// it is ready, in a line how things stand, and that it ends: sd_notify(3). It does so
// until ctx ends. What cannot be told is said once, and no reason to end.
func tellManager(ctx context.Context, d *daemon.Daemon, log *slog.Logger) error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		<-ctx.Done()
		return nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unixgram", socket) // @ begins the abstract ones here, too
	if err != nil {
		log.Warn("the service manager is not told that this agent is ready", "error", err.Error())
		<-ctx.Done()
		return nil
	}
	defer conn.Close()
	said := true
	tell := func(message string) {
		err := conn.SetWriteDeadline(time.Now().Add(managerTime))
		if err == nil {
			_, err = conn.Write([]byte(message))
		}
		if err != nil && said {
			log.Warn("the service manager was not told", "message", message, "error", err.Error())
		}
		said = err == nil
	}
	tell("READY=1")
	defer tell("STOPPING=1\nSTATUS=Ends")
	status := ""
	for seq := uint64(0); ; {
		s, err := d.Wait(ctx, seq)
		if err != nil {
			return nil
		}
		seq = s.Seq
		if now := managerStatus(s); now != status {
			status = now
			tell("STATUS=" + status)
		}
		select {
		case <-ctx.Done():
		case <-time.After(managerEvery):
		}
	}
}

// managerStatus is the line for an agent that has looked, or not yet.
func managerStatus(s *state.State) string {
	if !allLooked(s) {
		return "Looks for the first time"
	}
	text := []rune(show.Summary(s))
	if len(text) > longestStatus {
		text = append(text[:longestStatus-1], '…')
	}
	return string(text)
}
