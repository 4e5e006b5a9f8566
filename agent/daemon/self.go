package daemon

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/state"
)

// usage is the processor time of this process at one moment.
type usage struct {
	at   time.Time
	used time.Duration
}

// self is the agent as it is published.
func (d *Daemon) self(now time.Time) state.Agent {
	a := state.Agent{Version: d.options.Version, PID: os.Getpid(), Started: d.started, History: d.options.History, NotStored: "no history is kept"}
	a.Profile, a.Missing = string(d.options.Rights.Name), list(d.options.Rights.Missing)
	if problem := d.notStored.Load(); problem != nil {
		a.NotStored = *problem
	} else if a.History != "" {
		a.NotStored = "nothing was written yet"
	}
	d.usages = append(d.usages, usage{now, processor()})
	for len(d.usages) > 2 && now.Sub(d.usages[1].at) > time.Minute {
		d.usages = d.usages[1:]
	}
	if first := d.usages[0]; now.Sub(first.at) > time.Second {
		share := float64(processor()-first.used) / float64(now.Sub(first.at))
		a.CPU = &share
	}
	var size, resident uint64
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		if _, err := fmt.Sscan(string(text), &size, &resident); err == nil {
			resident *= uint64(os.Getpagesize())
			a.Resident = &resident
		}
	}
	return a
}

// processor is the processor time that this process has used.
func processor() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
