package gobin

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// scanRest is for how many times what a file took a scan of Programs rests after
// it: it takes a tenth of a processor.
const scanRest = 9

// Programs scans again and again, and reads only files that have changed since:
// 1,180 executables take some 20 s the first time, at a tenth of one processor,
// and a third of a second when none has changed. It keeps a few hundred bytes for each file.
// The zero Programs is ready. It makes one scan at a time.
type Programs struct {
	mu        sync.Mutex // a file that hangs may come back during a later scan
	known     map[programKey]programFound
	seen      map[programKey]programFound // in this scan
	libraries identity                    // of the loader's cache when they were read
	owed      time.Duration               // to rest
}

// programKey is a file under a name: a program looks for libraries beside
// itself.
type programKey struct {
	file identity
	path string
}

type programFound struct {
	binary fact.Binary
	err    error
}

// loaderCache is written whenever a library is installed.
const loaderCache = "/etc/ld.so.cache"

// Scan is like the function [Scan], slow and cheap.
func (p *Programs) Scan(ctx context.Context, places []string) (fact.Executables, []fact.Blind) {
	libraries, _ := identityAt(loaderCache) // none is a state too
	p.mu.Lock()
	if libraries != p.libraries {
		p.known, p.libraries = nil, libraries
	}
	p.seen = make(map[programKey]programFound, len(p.known))
	p.mu.Unlock()
	found, blind := (&scan{memory: p}).run(ctx, places)
	p.mu.Lock()
	if found.Cut { // the rest is as good as it was
		maps.Copy(p.seen, p.known)
	}
	p.known = p.seen
	p.mu.Unlock()
	return found, blind
}

// recall returns what is known of an open file, or has it read.
func (p *Programs) recall(f *os.File, path string, read func() (fact.Binary, error)) (fact.Binary, error) {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return read()
	}
	key := programKey{identityFrom(&st), path}
	p.mu.Lock()
	found, ok := p.known[key]
	p.mu.Unlock()
	if !ok {
		found.binary, found.err = read()
	}
	if _, disk := errors.AsType[*fs.PathError](found.err); !disk {
		p.mu.Lock()
		p.seen[key] = found
		p.mu.Unlock()
	}
	return found.binary, found.err
}

// rest waits for what took so long, once that is worth it.
func (p *Programs) rest(ctx context.Context, took time.Duration) {
	const worth, most = 10 * time.Millisecond, time.Second // a disk that sleeps is no work
	if p.owed += scanRest * min(took, most); p.owed < worth {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(p.owed):
	}
	p.owed = 0
}

func identityAt(path string) (identity, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return identity{}, err
	}
	return identityFrom(&st), nil
}

func identityFrom(st *unix.Stat_t) identity {
	return identity{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}
}
