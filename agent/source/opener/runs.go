package opener

import (
	"io"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Runs are how often the programs that are attached to other people's system
// calls ran, and for how long: what they cost the machine.
type Runs struct {
	Count uint64
	Took  time.Duration
}

// Sub returns what came after an earlier reading.
func (r Runs) Sub(earlier Runs) Runs { return Runs{r.Count - earlier.Count, r.Took - earlier.Took} }

// CountRuns makes the kernel count the runs of all BPF programs of the machine
// until the result is closed, which costs each of them some 20 ns. It needs
// CAP_SYS_ADMIN.
func CountRuns() (io.Closer, error) { return ebpf.EnableStats(unix.BPF_STATS_RUN_TIME) }

// Runs returns how often the programs have run while the kernel counted,
// [Sockets.Read] apart.
func (s *Sockets) Runs() (all Runs, err error) {
	for name, p := range s.loaded.Programs {
		if name == openerProgDump {
			continue
		}
		stats, err := p.Stats()
		if err != nil {
			return Runs{}, err
		}
		all.Count += stats.RunCount
		all.Took += stats.Runtime
	}
	return all, nil
}
