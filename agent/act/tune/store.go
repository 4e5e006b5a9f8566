//go:build linux

package tune

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/fact"
)

// kept are the old options of tuned sockets, as they are in the file.
type kept struct {
	Schema  string  `json:"schema"`
	Boot    string  `json:"boot"` // cookies mean nothing after the next one
	Sockets []entry `json:"sockets"`

	index map[uint64]int // by cookie
}

// entry is one tuned socket.
type entry struct {
	Netns  uint32 `json:"netns"`  // where it is: inode of the namespace
	Cookie uint64 `json:"cookie"` // the kernel's name for it
	At     int64  `json:"at"`     // Unix time of the last tune
	Was    values `json:"was"`    // before the first tune: what undo restores
	Last   values `json:"last"`   // before the last tune, of which each may have been cut short
	Now    values `json:"now"`    // what the last tune sets
}

const (
	fileName = "tune.json"
	lockName = "tune.lock"
	schema   = "lifeline/tune/1"

	// mostBytes of a file are read: some 100,000 sockets take 20 MB.
	mostBytes = 1 << 30

	// patience is how long another run may take: a million sockets by loans.
	patience = 10 * time.Second
)

// store is the directory with the file, locked against other runs.
type store struct {
	dir  string
	lock *os.File
}

// openStore makes the directory where it is missing, and waits for other runs to
// end. The lock ends with the process that has it.
func openStore(ctx context.Context, dir string) (*store, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, needsRoot(err)
	}
	if err := private(dir); err != nil {
		return nil, needsRoot(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, needsRoot(err)
	}
	const again = 10 * time.Millisecond
	for deadline := time.Now().Add(patience); ; {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return &store{dir: dir, lock: lock}, nil
		}
		if err == unix.EWOULDBLOCK && time.Now().Before(deadline) {
			if err = until(ctx, time.Now().Add(again)); err == nil {
				continue
			}
		} else if err == unix.EWOULDBLOCK {
			err = errors.New("another lifeline tune is at work; try again when it is done")
		}
		lock.Close()
		return nil, &act.Error{Act: "tune", Err: err}
	}
}

// private returns an error unless nobody else may write into the directory.
func private(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	mine := ok && int(stat.Uid) == os.Geteuid()
	if !mine && os.Geteuid() != 0 {
		return fmt.Errorf("%s: %w", dir, os.ErrPermission)
	}
	if !info.IsDir() || info.Mode().Perm()&0o022 != 0 || !mine {
		return fmt.Errorf("%s must be a directory into which only its owner, who runs this, may write (chmod 700)", dir)
	}
	return nil
}

func (s *store) close() { s.lock.Close() }

func (s *store) path() string { return filepath.Join(s.dir, fileName) }

// load reads the file. Without one, or with that of an earlier boot, nothing is
// kept.
func (s *store) load() (*kept, error) { return loadKept(s.path()) }

func loadKept(path string) (*kept, error) {
	boot, err := bootID()
	if err != nil {
		return nil, &act.Error{Act: "tune", Err: err}
	}
	empty := &kept{Schema: schema, Boot: boot, index: make(map[uint64]int)}
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return nil, needsRoot(err)
	}
	var k *kept
	text, err := []byte(nil), error(nil)
	if info.Size() > mostBytes {
		err = fmt.Errorf("it has %d bytes", info.Size())
	} else if text, err = os.ReadFile(path); err == nil {
		k, err = parseKept(text)
	}
	if errors.Is(err, os.ErrPermission) {
		return nil, needsRoot(err)
	}
	if err != nil {
		return nil, &act.Error{Act: "tune", Err: fmt.Errorf("the old options in %s cannot be read: %w; move the file away to go on without them: what it kept can then not be undone", path, err)}
	}
	if k.Boot != boot {
		return empty, nil
	}
	return k, nil
}

// parseKept reads the text of a file.
func parseKept(text []byte) (*kept, error) {
	var k kept
	if err := json.Unmarshal(text, &k); err != nil {
		return nil, err
	}
	if k.Schema != schema {
		return nil, fmt.Errorf("its schema is %q, not %q", k.Schema, schema)
	}
	k.index = make(map[uint64]int, len(k.Sockets))
	for i := range k.Sockets {
		e := &k.Sockets[i]
		if _, twice := k.index[e.Cookie]; twice || e.Cookie == 0 || !e.Was.settable() || !e.Now.settable() {
			return nil, fmt.Errorf("socket %d makes no sense: %+v", i, *e)
		}
		k.index[e.Cookie] = i
	}
	return &k, nil
}

func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}

// save writes the file so that there is the old one or the new one, whatever
// happens; with nothing to keep there is none.
func (s *store) save(k *kept) error {
	err := s.write(k)
	if err != nil {
		return &act.Error{Act: "tune", Err: fmt.Errorf("keeping the old options: %w", err)}
	}
	return nil
}

func (s *store) write(k *kept) error {
	if len(k.Sockets) == 0 {
		if err := os.Remove(s.path()); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	next := s.path() + ".new"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(k.text()) // not synced: what the machine loses when it crashes means nothing after the next boot
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(next, s.path())
}

// text is k as JSON, one socket a line. It is written out because time counts
// here, and reflection would take longer than all the rest of a tune.
func (k *kept) text() []byte {
	const each = 160
	b := make([]byte, 0, (len(k.Sockets)+1)*each)
	boot, _ := json.Marshal(k.Boot) // a string always has a form
	b = fmt.Appendf(b, "{\"schema\": %q, \"boot\": %s, \"sockets\": [", k.Schema, boot)
	for i := range k.Sockets {
		e := &k.Sockets[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(append(b, "\n{\"netns\": "...), uint64(e.Netns), 10)
		b = strconv.AppendUint(append(b, ", \"cookie\": "...), e.Cookie, 10)
		b = strconv.AppendInt(append(b, ", \"at\": "...), e.At, 10)
		b = e.Was.text(append(b, ", \"was\": "...))
		b = e.Last.text(append(b, ", \"last\": "...))
		b = append(e.Now.text(append(b, ", \"now\": "...)), '}')
	}
	return append(b, "\n]}\n"...)
}

func (v values) text(b []byte) []byte {
	b = append(b, '[')
	for i, n := range v {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	return append(b, ']')
}

func (k *kept) clone() *kept {
	c := *k
	c.Sockets = slices.Clone(k.Sockets)
	c.reindex()
	return &c
}

func (k *kept) reindex() {
	k.index = make(map[uint64]int, len(k.Sockets))
	for i := range k.Sockets {
		k.index[k.Sockets[i].Cookie] = i
	}
}

// find returns what is kept of a socket, nil when nothing is.
func (k *kept) find(cookie uint64) *entry {
	i, ok := k.index[cookie]
	if !ok {
		return nil
	}
	return &k.Sockets[i]
}

// note keeps the options of a socket that is about to be tuned. Of one that was
// tuned before, and not by its program since, the first are kept.
func (k *kept) note(j *job, now time.Time) {
	e := k.find(j.socket.Cookie)
	if e == nil {
		k.index[j.socket.Cookie] = len(k.Sockets)
		k.Sockets = append(k.Sockets, entry{Netns: j.socket.Netns, Cookie: j.socket.Cookie})
		e = &k.Sockets[len(k.Sockets)-1]
		e.Was = j.From
	} else if back := e.restore(); back.judge(j.From) == outcomeChanged {
		e.Was = j.From
	}
	e.Last, e.Now, e.At = j.From, j.To, now.Unix()
}

// restore is the wish that undoes the tune of a socket.
func (e *entry) restore() wish { return wish{From: e.Now, Also: e.Last, To: e.Was, Set: 1} }

// forget puts what is kept of sockets that were not touched back to what it was
// before they were noted, and reports whether there were any.
func (k *kept) forget(jobs []job, before *kept) bool {
	untouched := make(map[uint64]bool)
	for i := range jobs {
		if !jobs[i].done {
			untouched[jobs[i].socket.Cookie] = true
		}
	}
	if len(untouched) == 0 {
		return false
	}
	for i := range k.Sockets {
		e := &k.Sockets[i]
		if old := before.find(e.Cookie); old != nil && untouched[e.Cookie] {
			*e = *old
			delete(untouched, e.Cookie)
		}
	}
	k.drop(func(e *entry) bool { return untouched[e.Cookie] })
	return true
}

func (k *kept) drop(these func(*entry) bool) {
	k.Sockets = slices.DeleteFunc(k.Sockets, func(e entry) bool { return these(&e) })
	k.reindex()
}

// prune drops what is kept of sockets that the look m would have shown, had they
// still been there. What was tuned within the last minute may be newer than it.
func (k *kept) prune(m *fact.Machine) {
	if len(k.Sockets) == 0 {
		return
	}
	there := make(map[uint64]bool, len(m.Sockets))
	for i := range m.Sockets {
		there[m.Sockets[i].Cookie] = true
	}
	old := m.Time.Add(-time.Minute).Unix()
	k.drop(func(e *entry) bool {
		return e.At < old && !there[e.Cookie] && m.Namespace(e.Netns) != nil
	})
}
