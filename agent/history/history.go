// Package history keeps what the agent saw, so that it can be said later what
// the census by peer was at any moment of the last days, and what changed since.
//
// It is one SQLite file. Each record is written in a transaction of its own, as
// the difference from the record before it; a count that did not change costs
// nothing. Every segment (at most 360 records, an hour) begins with a whole
// record, and segments go as a whole, oldest first.
//
// When Add has returned nil, the record survives SIGKILL and a loss of power:
// the file is in WAL mode with synchronous=FULL, one fsync for each record, which
// is little for one record in ten seconds. There is no window in which records
// are only in memory.
package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite" // also registers the driver
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/lifeline-go/lifeline/agent/state"
)

// Bounds of what is written.
const (
	mostGroups   = 20_000  // of a record; the smallest beyond it are folded into one
	mostFindings = 1_000   // of a record, worst first as State has them
	mostText     = 128     // bytes of a name
	mostFrames   = 360     // of a segment
	mostWAL      = 2 << 20 // bytes of the write-ahead log
)

// LeastBytes and LeastKeep are the least that [Options] may ask for.
const (
	LeastBytes = 1 << 20
	LeastKeep  = time.Minute
)

// Recorded is how long a record stands for what follows it, when nothing does:
// the agent writes one in ten seconds, and after a minute it is taken to have
// not run.
const Recorded = time.Minute

// Others is the peer that stands for those beyond the bound of a record.
const Others = "(others)"

// Options of a Store. The zero value is the recommended one.
type Options struct {
	MaxBytes int64         // of the file and its log together, beside one record; 0 = 256 MiB, at least [LeastBytes]
	Keep     time.Duration // how long; 0 = 7 days, at least [LeastKeep]
}

// wal is how many bytes of MaxBytes are for the write-ahead log: it is written into
// the file when it has a quarter of that.
func (o *Options) wal() int64 { return min(mostWAL, o.MaxBytes/4) }

// Record is what is kept of one moment. Groups belong to the census of
// Totals.Looked: a record of the same census as the one before has the same.
type Record struct {
	Time     time.Time
	Groups   []state.Group
	Totals   state.Totals
	Findings []state.Finding
}

// Store writes a history, and reads it. Its methods may be called by several
// goroutines.
type Store struct {
	*Reader
	options Options

	mu       sync.Mutex
	db       *sql.DB     // nil after it could not be opened again
	file     os.FileInfo // of db
	lock     *os.File
	segment  int64 // 0 = the next record begins one
	frames   int64
	size     int64 // bytes of the segment, about
	last     time.Time
	groups   part      // of the last record
	looked   time.Time // its census
	totals   part
	written  map[findingKey]writtenFinding
	aside    string
	lost     int // records that could not be written since the last one that was
	lostFrom time.Time
	lostWhy  string
}

// Open opens the history at path, and makes it when there is none. A file that
// is damaged is moved aside, see [Store.Aside]; one that is something else, or
// that another agent writes, is an error. Nobody but the user who runs the
// agent may read it: it says who talks to whom.
func Open(path string, o Options) (*Store, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = 256 << 20
	}
	if o.Keep == 0 {
		o.Keep = 7 * 24 * time.Hour
	}
	if o.MaxBytes < LeastBytes || o.Keep < LeastKeep {
		return nil, fmt.Errorf("a history of %d bytes and %v is too small: take 1 MiB and a minute, or more", o.MaxBytes, o.Keep)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	if err := checkFile(path); err != nil { // before anything is left beside it
		return nil, err
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	s := &Store{options: o, lock: lock, Reader: &Reader{path: path}}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return s, nil
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("history: another agent writes it, and holds %s: stop that one, or name another file", path)
		}
		return nil, fmt.Errorf("history: lock %s: %w", path, err)
	}
	return f, nil
}

// open opens the file, or moves it aside and begins another.
func (s *Store) open() error {
	err := s.connect()
	if err == nil || !damaged(err) {
		return err
	}
	if aside := s.moveAside(); aside != nil {
		return errors.Join(err, aside)
	}
	return s.connect()
}

const schema = `
CREATE TABLE segment (id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, frames INTEGER NOT NULL, note TEXT NOT NULL);
CREATE INDEX segment_first ON segment (first);
CREATE TABLE frame (id INTEGER PRIMARY KEY, time INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE series (id INTEGER PRIMARY KEY, hash INTEGER NOT NULL, segment INTEGER NOT NULL, total TEXT NOT NULL,
	program TEXT NOT NULL, unit TEXT NOT NULL, peer TEXT NOT NULL, port TEXT NOT NULL);
CREATE INDEX series_hash ON series (hash);
CREATE TABLE finding (id TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, resolved INTEGER, code TEXT NOT NULL,
	severity TEXT NOT NULL, title TEXT NOT NULL, count INTEGER NOT NULL, cause TEXT NOT NULL, doc BLOB NOT NULL, PRIMARY KEY (id, first));
CREATE INDEX finding_last ON finding (last);
PRAGMA user_version = 1;
PRAGMA application_id = 1279870537;
`

const (
	applicationID = 1279870537 // "LIFI"
	version       = 1
)

func (s *Store) connect() (err error) {
	if err := checkFile(s.path); err != nil {
		return err
	}
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_RDWR, 0o600) // SQLite would let everybody read it
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	file, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", dsn(s.path, "rwc", "auto_vacuum(INCREMENTAL)", "journal_mode(WAL)", "synchronous(FULL)",
		fmt.Sprintf("wal_autocheckpoint(%d)", s.options.wal()/4/4096), fmt.Sprintf("journal_size_limit(%d)", s.options.wal()/2)))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("history %s: %w", s.path, err), db.Close())
		}
	}()
	if err := prepare(db); err != nil {
		return err
	}
	readers, err := sql.Open("sqlite", dsn(s.path, "ro"))
	if err != nil {
		return err
	}
	readers.SetMaxOpenConns(2)
	s.db, s.file = db, file
	s.Reader.set(readers)
	s.forget()
	return nil
}

// disconnect closes the file. Nothing can be read before it is connected again.
func (s *Store) disconnect() error {
	if s.db == nil {
		return nil
	}
	err := errors.Join(s.Reader.Close(), s.db.Close())
	s.db = nil
	return err
}

// prepare makes the tables of an empty file, and looks through one that is not.
func prepare(db *sql.DB) error {
	var tables, id, v int
	row := db.QueryRow(`SELECT (SELECT count(*) FROM sqlite_schema), application_id, user_version FROM pragma_application_id, pragma_user_version`)
	if err := row.Scan(&tables, &id, &v); err != nil {
		return err
	}
	if tables == 0 {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		if _, err := tx.Exec(schema); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		return tx.Commit()
	}
	if err := ours(id, v); err != nil {
		return err
	}
	var check string
	if err := db.QueryRow("PRAGMA quick_check(1)").Scan(&check); err != nil {
		return err
	}
	if check != "ok" {
		return fmt.Errorf("%w: %s", errDamaged, check)
	}
	return nil
}

func ours(id, v int) error {
	switch {
	case id != applicationID:
		return errors.New("it is a database of another program: name another file")
	case v != version:
		return fmt.Errorf("it is of form %d and this program knows %d: take the Lifeline that wrote it, or name another file", v, version)
	}
	return nil
}

var errDamaged = errors.New("the file is damaged")

// damaged reports that the file itself is at fault.
func damaged(err error) bool {
	var e *sqlite.Error
	if errors.As(err, &e) {
		code := e.Code() & 0xff
		return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB
	}
	return errors.Is(err, errDamaged)
}

// checkFile refuses what a wrong path may name, before anything would move it aside.
func checkFile(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	if !info.Mode().IsRegular() || filepath.Ext(path) != ".db" && info.Size() > 0 && !isSQLite(path) {
		return fmt.Errorf("history %s: it is something else: name a file that ends in .db", path)
	}
	return nil
}

func isSQLite(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // it was read only
	magic := make([]byte, 16)
	n, _ := f.Read(magic)
	return string(magic[:n]) == "SQLite format 3\x00"
}

// moveAside makes room for a new file. One damaged file is kept, the latest.
func (s *Store) moveAside() error {
	_ = s.disconnect() // what is damaged may not even be closed well
	aside := s.path + ".damaged"
	for _, end := range []string{"-wal", "-shm"} {
		if err := os.Rename(s.path+end, aside+end); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := os.Rename(s.path, aside); err != nil {
		return err
	}
	s.aside = aside
	return nil
}

// Aside is where a damaged history was moved since Open, "" when none was.
func (s *Store) Aside() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aside
}

// forget makes the next record begin a segment that rests on nothing.
func (s *Store) forget() {
	s.segment, s.frames = 0, 0
	s.groups, s.totals, s.looked, s.written = part{}, part{}, time.Time{}, nil
}

// Close closes the file. Everything has been written by then.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.disconnect(), s.lock.Close())
}

// dsn names a database file, with what SQLite shall do with it.
func dsn(path, mode string, pragmas ...string) string {
	q := url.Values{"mode": {mode}, "_pragma": append([]string{"busy_timeout(2000)", "cache_size(-2048)", "foreign_keys(0)"}, pragmas...), "_txlock": {"immediate"}}
	if mode == "ro" {
		q.Set("_txlock", "deferred")
		if _, err := os.Stat(path + "-wal"); errors.Is(err, os.ErrNotExist) && !writable(path) {
			q.Set("immutable", "1") // SQLite could not make the files that tell of writers, and there is none
		}
	}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}
	return u.String()
}

func writable(path string) bool { return unix.Access(filepath.Dir(path), unix.W_OK) == nil }

// ping opens the file now instead of at the first question.
func ping(ctx context.Context, db *sql.DB) error {
	var id, v int
	if err := db.QueryRowContext(ctx, "SELECT application_id, user_version FROM pragma_application_id, pragma_user_version").Scan(&id, &v); err != nil {
		return err
	}
	return ours(id, v)
}
