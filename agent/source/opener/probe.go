package opener

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cilium/ebpf/link"

	"github.com/lifeline-go/lifeline/agent/source/gosym"
)

// mostGo is how many go statements a second may be seen before their uprobe costs
// more than it is worth: each takes some microseconds, on some machines 15.
const mostGo = 3000

// Trace are uprobes in one process. Close it: while it is open, each connection
// that net/http opens and each go statement take some microseconds longer.
type Trace struct {
	sockets    *Sockets
	http       []link.Link
	goes       link.Link // nil: not, or not any more
	seen       uint64
	since      time.Time
	overloaded bool
}

// Trace finds out who asks for the sockets that a Go program opens in goroutines
// of their own. [Sockets.Layout] must have been called for the process. withGo
// asks for all goroutines, not only those of net/http.
func (s *Sockets) Trace(pid int32, table *gosym.Table, withGo bool) (*Trace, error) {
	t := &Trace{sockets: s, since: time.Now(), seen: s.number(openerVarGoStatements)}
	exe, err := link.OpenExecutable("/proc/" + strconv.Itoa(int(pid)) + "/exe")
	if err != nil {
		return nil, &Error{Err: fmt.Errorf("uprobes in process %d: %w", pid, err)}
	}
	probe := func(function, program string) (link.Link, error) {
		entry, ok := table.Func(function)
		if !ok {
			return nil, nil // the program does not have it
		}
		at, ok := table.Offset(entry)
		if !ok {
			return nil, fmt.Errorf("%s is not in the executable", function)
		}
		return exe.Uprobe(function, s.loaded.Programs[program], &link.UprobeOptions{Address: at, PID: int(pid)})
	}
	for function, program := range map[string]string{
		"net/http.(*Transport).queueForDial": openerProgQueueForDial,
		"net/http.(*Transport).dialConnFor":  openerProgDialConnFor,
	} {
		l, probeErr := probe(function, program)
		if l != nil {
			t.http = append(t.http, l)
		}
		err = errors.Join(err, probeErr)
	}
	if withGo && err == nil {
		t.goes, err = probe("runtime.newproc", openerProgGoStatement)
	}
	if err != nil {
		_ = t.Close()
		return nil, &Error{Err: fmt.Errorf("uprobes in process %d: %w", pid, err)}
	}
	return t, nil
}

// Check takes out the uprobe of go statements when there are more than 3,000 a
// second of them, and reports whether it has done so. Call it once a second or so.
func (t *Trace) Check() (overloaded bool) {
	if t.goes == nil {
		return t.overloaded
	}
	now, elapsed := t.sockets.number(openerVarGoStatements), time.Since(t.since)
	if float64(now-t.seen) > mostGo*max(elapsed.Seconds(), 0.1) {
		t.overloaded = true
		_ = t.goes.Close() // the kernel takes it out in any case when the last descriptor is closed
		t.goes = nil
	}
	t.seen, t.since = now, time.Now()
	return t.overloaded
}

// Close takes the uprobes out.
func (t *Trace) Close() error {
	var failed []error
	for _, l := range append(t.http, t.goes) {
		if l != nil {
			failed = append(failed, l.Close())
		}
	}
	t.http, t.goes = nil, nil
	return errors.Join(failed...)
}
