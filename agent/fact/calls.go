package fact

import (
	"strings"
	"time"
)

// Exchange is who spoke, how much and when: what tells a call that waits for
// its answer. Times are ages at the moment of the look.
type Exchange struct {
	LastSent     time.Duration // since data was last sent (tcpi_last_data_sent)
	LastReceived time.Duration // since data last came (tcpi_last_data_recv); counts from the handshake when none ever did
	Acked        Known[uint64] // bytes the peer acknowledged over the connection's life (tcpi_bytes_acked, Linux 4.1)
	Received     Known[uint64] // bytes that came (tcpi_bytes_received, Linux 4.1)
	SegmentsOut  Known[uint32] // with data (tcpi_data_segs_out, Linux 4.6)
	SegmentsIn   Known[uint32] // with data (tcpi_data_segs_in, Linux 4.6)
}

// Goroutines are the goroutines of one Go process that waited all the time that
// it was looked at.
type Goroutines struct {
	PID    int32
	Go     string // version of the Go that built the program; "" = unknown
	Total  int    // goroutines there are, those of the runtime itself too
	Cut    bool   // there are more than were looked at
	Parked []Goroutine
}

// Goroutine is one that waits for something other than a processor.
type Goroutine struct {
	ID      uint64
	State   string        // what for, in the words of Go's own stack traces: chan receive, IO wait, select
	Since   time.Duration // it waits at least so long; see package goroutines
	Looked  bool          // Since is only the time between the looks: no garbage collection has seen it wait
	Stack   []Call        // innermost first, without the runtime's own; shared by those that are alike
	Cut     bool          // the stack goes on
	Socket  Known[uint32] // inode of the socket that it waits for, itself or by another that reads it
	Created Call          // the go statement that started it; empty for the main goroutine
}

// Call is one function call of a stack. The zero Call is unknown.
type Call struct {
	Func string // with its package
	File string
	Line int
}

// Package is the import path of the function's package.
func (c Call) Package() string {
	slash := strings.LastIndexByte(c.Func, '/') + 1
	name, _, _ := strings.Cut(c.Func[slash:], ".")
	return c.Func[:slash] + name
}
