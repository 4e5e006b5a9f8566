package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/lifeline-go/lifeline/agent/daemon"
	"github.com/lifeline-go/lifeline/agent/history"
	"github.com/lifeline-go/lifeline/agent/state"
)

// recordEvery is the pace of the history.
const recordEvery = 10 * time.Second

// noHistory is the --history of an agent that keeps none.
const noHistory = "none"

// keepHistory writes what the agent knows every 10 s until ctx ends. What goes
// wrong is logged when it changes, and is part of the State; the agent goes on, and
// tries again.
func keepHistory(ctx context.Context, d *daemon.Daemon, path string, log *slog.Logger) error {
	if path == noHistory {
		<-ctx.Done()
		return nil
	}
	var (
		k    = keeper{path: path}
		told string
		tick = time.NewTicker(recordEvery)
	)
	defer tick.Stop()
	defer k.close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		problem := ""
		if err := k.record(ctx, d.State()); err != nil {
			problem = err.Error()
		}
		d.SetHistory(problem)
		if (problem == "") != (told == "") {
			if problem != "" {
				log.Warn("history is not written", "error", problem)
			} else {
				log.Info("history is written again")
			}
		}
		told = problem
		if k.store != nil && k.store.Aside() != k.aside {
			k.aside = k.store.Aside()
			log.Warn("history was damaged and begins anew", "moved_to", k.aside)
		}
	}
}

// keeper writes States into a file that it opens when it can.
type keeper struct {
	path, aside string
	store       *history.Store
	seq         uint64
}

func (k *keeper) record(ctx context.Context, s *state.State) (err error) {
	if k.store == nil {
		if k.store, err = history.Open(k.path, history.Options{}); err != nil {
			return err
		}
	}
	if s.Seq == k.seq || s.Totals.Looked.IsZero() { // nothing new, or nothing seen yet
		return nil
	}
	k.seq = s.Seq
	return k.store.Add(ctx, history.Record{Time: s.Time, Groups: s.Groups, Totals: s.Totals, Findings: s.Findings})
}

func (k *keeper) close() {
	if k.store != nil {
		_ = k.store.Close() // every record is on the disk already
	}
}
