package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/lifeline-go/lifeline/agent/daemon"
	"github.com/lifeline-go/lifeline/agent/history"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/web"
)

const (
	// recordEvery is the pace of the history.
	recordEvery = 10 * time.Second

	// lastRecord is how long its last record is waited for when all ends.
	lastRecord = 4 * time.Second
)

// noHistory is the --history of an agent that keeps none.
const noHistory = "none"

// historyFlags are the flags of the agent's history as typed.
type historyFlags struct {
	path, size, keep string
}

func (f *historyFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.path, "history", historyPath, "`file` that keeps the last days for lifeline history, diff and census --at; none: keep nothing")
	flags.StringVar(&f.size, "history-size", "256MiB", "`size` of that file at most: the oldest goes first")
	flags.StringVar(&f.keep, "history-keep", "7d", "for this `time` it keeps what it has, such as 12h or 30d")
}

// keeper returns who writes what the flags ask for.
func (f *historyFlags) keeper() (*keeper, error) {
	size, noSize := parseSize(f.size)
	keep, noTime := parseSpan(f.keep)
	switch {
	case f.path == "":
		return nil, errors.New("--history names no file: take one such as " + historyPath + ", or none")
	case noSize != nil:
		return nil, fmt.Errorf("--history-size %q is no size: take one such as 256MiB or 2GiB", f.size)
	case size < history.LeastBytes:
		return nil, fmt.Errorf("--history-size %s is too small: take %dMiB or more", f.size, history.LeastBytes>>20)
	case noTime != nil:
		return nil, fmt.Errorf("--history-keep %q is no time: take one such as 12h or 7d", f.keep)
	case keep < history.LeastKeep:
		return nil, fmt.Errorf("--history-keep %s is too short: take 1m or more", f.keep)
	}
	return &keeper{path: f.path, options: history.Options{MaxBytes: size, Keep: keep}}, nil
}

// parseSize reads a number of bytes, which may be in KiB, MiB, GiB or TiB, or K, M,
// G or T, which mean the same.
func parseSize(text string) (int64, error) {
	digits := strings.TrimRight(text, "KMGTiB")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no size", text)
	}
	for i, unit := range []string{"", "K", "M", "G", "T"} {
		is := text[len(digits):]
		if is == unit || i > 0 && is == unit+"iB" {
			if n > math.MaxInt64>>(10*i) {
				break
			}
			return n << (10 * i), nil
		}
	}
	return 0, fmt.Errorf("%q is no size", text)
}

// keeper writes what the agent knows into a file that it opens when it can.
type keeper struct {
	path    string // noHistory: it keeps nothing
	options history.Options

	mu      sync.Mutex
	store   *history.Store // nil while the file cannot be opened
	problem string         // why it is not written; "" when it is

	aside string
	seq   uint64
}

// kept is the file, "" where none is kept.
func (k *keeper) kept() string {
	if k.path == noHistory {
		return ""
	}
	return k.path
}

// run keeps the history until ctx ends, and no longer: a disk that does not answer
// is left behind then.
func (k *keeper) run(ctx context.Context, d *daemon.Daemon, log *slog.Logger) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if k.kept() != "" {
			k.keep(ctx, d, log)
		}
	}()
	<-ctx.Done()
	select {
	case <-ended:
	case <-time.After(lastRecord):
		log.Warn("ended all the same", "error", "the disk of the history does not answer")
	}
	return nil
}

// keep writes once the first census is there, and every 10 s from then on, until ctx
// ends. What goes wrong is logged when it changes, and is part of the State; the
// agent goes on, and tries again.
func (k *keeper) keep(ctx context.Context, d *daemon.Daemon, log *slog.Logger) {
	defer k.close()
	tick := time.NewTicker(recordEvery)
	defer tick.Stop()
	for told := false; ; {
		s := d.State()
		err := k.record(ctx, s)
		if ctx.Err() != nil {
			return
		}
		told = k.tell(d, log, err, told)
		if s.Totals.Looked.IsZero() { // the agent has just begun
			_, err = d.Wait(ctx, s.Seq)
			tick.Reset(recordEvery)
			if err == nil {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tell publishes how it stands with the history, and logs it when it changes. told is
// whether a problem was logged last.
func (k *keeper) tell(d *daemon.Daemon, log *slog.Logger, err error, told bool) bool {
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	d.SetHistory(problem)
	switch {
	case problem != "" && !told:
		log.Warn("history is not written", "error", problem)
	case problem == "" && told:
		log.Info("history is written again")
	}
	if k.store != nil && k.store.Aside() != k.aside {
		k.aside = k.store.Aside()
		log.Warn("history was damaged and begins anew", "moved_to", k.aside)
	}
	return problem != ""
}

// record writes a State; none that was written already, or before anything was seen.
func (k *keeper) record(ctx context.Context, s *state.State) error {
	if err := k.open(); err != nil {
		return err
	}
	if s.Seq == k.seq || s.Totals.Looked.IsZero() {
		return nil
	}
	k.seq = s.Seq
	return k.store.Add(ctx, history.Record{Time: s.Time, Groups: s.Groups, Totals: s.Totals, Findings: s.Findings})
}

// open opens the file if it is not open. That reads all of it once, and keeps nobody
// waiting.
func (k *keeper) open() error {
	if k.store != nil { // nobody else sets it
		return nil
	}
	store, err := history.Open(k.path, k.options)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.problem = err.Error()
		return err
	}
	k.store, k.problem = store, ""
	return nil
}

// reader is who answers questions about the past.
func (k *keeper) reader() (web.History, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.kept() == "":
		return nil, errors.New("the agent was started with --history none")
	case k.store == nil:
		return nil, errors.New(cmp.Or(k.problem, "the agent has just begun"))
	}
	return k.store, nil
}

func (k *keeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.store != nil {
		_ = k.store.Close() // every record is on the disk already
		k.store, k.problem = nil, "the agent is ending"
	}
}
