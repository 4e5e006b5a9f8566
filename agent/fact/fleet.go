package fact

import "time"

// Outcome is what became of a command on a host, in one word.
type Outcome string

// The outcomes. Which one it is says what to look at: the command, the way to the
// host, or what the command waits for.
const (
	OutcomeOK          Outcome = "ok"          // exited with status 0
	OutcomeFailed      Outcome = "failed"      // ended otherwise
	OutcomeUnreachable Outcome = "unreachable" // the host could not be given the command, or went silent
	OutcomeTimedOut    Outcome = "timed_out"   // the host lives, and the command did not end in its time
	OutcomeNotRun      Outcome = "not_run"     // the host was not asked
)

// Outcomes is all of them, the good first.
var Outcomes = []Outcome{OutcomeOK, OutcomeFailed, OutcomeUnreachable, OutcomeTimedOut, OutcomeNotRun}

// Copied is what was copied to or from a host.
type Copied struct {
	Files   int      // that are complete
	Bytes   int64    // that were copied
	Resumed int64    // bytes that were there before
	Skipped []string // what was left out: the first thousand
}

// HostAnswer is what one host answered to a command, or to several one after the
// other, or why it did not.
type HostAnswer struct {
	Host    string
	Outcome Outcome
	Exit    Known[int] // status; unknown where a signal ended the command, or nobody said how it ended
	Signal  string     // that ended the command, without SIG

	Phase      string // how far it came: connect, handshake, authentication, open, request, run, copy; "" when not begun
	Reason     string // one line, without what differs from host to host; "" where all is well
	Detail     string // the whole error in one line
	MayHaveRun bool   // it was sent, and how it ended is not known
	Command    string // which of several it is about: the last that was begun

	Started   time.Time // zero when not begun
	Took      time.Duration
	Attempts  int // connections that were tried
	Stdout    []byte
	Stderr    []byte
	Truncated bool    // there was more output than is here
	Copied    *Copied // nil when nothing was to be copied
}
