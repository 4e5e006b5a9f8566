// Package audit keeps what the agent did to the connections of others: in one
// file, a line of JSON for each act that is about to begin, and another for what
// came of it.
//
// Both are on the disk before the caller goes on, so that an act that a crash
// cut short is known by its first line. The file is only ever appended to, and
// bounded: when it is full it becomes PATH.1, in the place of the one before.
package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/state"
)

// DefaultPath is where the agent keeps its log, beside its history.
const DefaultPath = "/var/lib/lifeline/audit.jsonl"

const (
	mostBytes = 4 << 20 // of each of the two files: some 5,000 acts
	older     = ".1"    // what the name of the older one ends in
)

// What a line is about.
const (
	begins = "begins"
	ended  = "ended"
)

// line is one line of the file.
type line struct {
	Phase string `json:"phase"` // begins or ended
	state.Act
}

// Log is a file that is written. Its methods may be called by several
// goroutines.
type Log struct {
	path string
	most int64

	mu     sync.Mutex
	file   *os.File // nil after it could not be begun anew
	size   int64
	torn   bool   // the file may end in the middle of a line
	owed   []line // outcomes that could not be written yet
	closed bool
}

// Open opens the log at path for writing, and makes it where there is none. Only
// the user who runs the agent may read it or write into its directory; one that
// is open to others, or that another agent writes, is an error.
func Open(path string) (*Log, error) {
	dir := filepath.Dir(path)
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir) // it is another disk, as a rule; the log itself may be no link
	}
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	l := &Log{path: filepath.Join(dir, filepath.Base(path)), most: mostBytes}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return l, nil
}

func (l *Log) open() error {
	if err := private(filepath.Dir(l.path), 0o022); err != nil {
		return err
	}
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_RDWR|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600) // no symbolic link, and no wait for the other end of a pipe
	if err != nil {
		return err
	}
	if l.size, l.torn, err = check(l.path, file); err != nil {
		return errors.Join(err, file.Close())
	}
	l.file = file
	return nil
}

// check returns the size of an open log, and whether its last line was cut
// short; or an error when it may not be written.
func check(path string, file *os.File) (size int64, torn bool, err error) {
	if err := private(path, 0o077); err != nil {
		return 0, false, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return 0, false, fmt.Errorf("another agent writes %s (%w): stop that one, or name another file", path, err)
	}
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return 0, false, err
	}
	last := make([]byte, 1)
	if _, err := file.ReadAt(last, info.Size()-1); err != nil {
		return 0, false, err
	}
	return info.Size(), last[0] != '\n', nil
}

// private returns an error when others have rights that they should not have.
func private(path string, theirs os.FileMode) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir() && !info.Mode().IsRegular():
		return fmt.Errorf("%s is neither a file nor a directory", path)
	case !ok || int(stat.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to another user: %w", path, os.ErrPermission)
	case info.Mode().Perm()&theirs != 0:
		return fmt.Errorf("others have rights to %s: chmod %o %s", path, info.Mode().Perm()&^theirs, path)
	}
	return nil
}

// Begin writes that an act is about to begin. With an error nothing may be done.
func (l *Log) Begin(a state.Act) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.owed) > 0 {
		if err := l.write(l.owed[0]); err != nil {
			return err
		}
		l.owed = l.owed[1:]
	}
	return l.write(line{begins, a})
}

// End writes what came of an act. Where that fails it is written before the next
// act begins.
func (l *Log) End(a state.Act) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := line{ended, a}
	err := l.write(w)
	if err != nil {
		l.owed = append(l.owed, w)
	}
	return err
}

// write appends one line and waits until it is on the disk.
func (l *Log) write(w line) error {
	text, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	if l.torn {
		text = append([]byte{'\n'}, text...)
	}
	text = append(text, '\n')
	if l.closed {
		return fmt.Errorf("audit log: %w", os.ErrClosed)
	}
	if err := l.append(text); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	return nil
}

func (l *Log) append(text []byte) error {
	if l.file == nil || l.size > 0 && l.size+int64(len(text)) > l.most {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(text)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		if n > 0 && l.file.Truncate(l.size) != nil {
			l.torn, l.size = true, l.size+int64(n)
		}
		return err
	}
	l.torn, l.size = false, l.size+int64(n)
	return nil
}

// rotate makes the file the older one and begins another. Who is killed in
// between has the older one alone, and begins the other when it is back.
func (l *Log) rotate() error {
	if l.file != nil {
		if err := os.Rename(l.path, l.path+older); err != nil {
			return err
		}
		_ = l.file.Close() // all of it is on the disk
		l.file = nil
	}
	if err := l.open(); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(l.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// Close lets go of the file. What was written is on the disk.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// Interrupted is the Outcome of an act of which only the beginning is known.
const Interrupted = "not known: the agent ended before it could say what came of it"

// Read returns the latest acts that the log at path tells of, newest first,
// [state.MostActs] of them at most; none where there is no log. Lines that are
// none are left out. Acts that have no end are [Interrupted], unless the agent
// that began them is still at work, which only it can know.
func Read(path string) ([]state.Act, error) {
	var acts []state.Act
	at := make(map[string]int)
	for _, name := range []string{path + older, path} {
		text, err := readAll(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("audit log: %w", err)
		}
		for one := range bytes.Lines(text) {
			var w line
			if json.Unmarshal(one, &w) != nil || w.ID == "" || w.Phase != begins && w.Phase != ended {
				continue
			}
			if w.Phase == begins {
				w.Ended, w.Outcome = nil, Interrupted
			}
			i, known := at[w.ID]
			if !known {
				i = len(acts)
				at[w.ID], acts = i, append(acts, state.Act{})
			}
			acts[i] = w.Act
		}
	}
	latest := make([]state.Act, 0, min(len(acts), state.MostActs))
	for i := len(acts) - 1; i >= 0 && len(latest) < state.MostActs; i-- {
		latest = append(latest, acts[i])
	}
	return latest, nil
}

// readAll reads a file of the log, at most as much as one may have.
func readAll(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, 2*mostBytes))
}
