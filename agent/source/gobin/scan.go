package gobin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/procfs/bounded"
)

// mostFiles bounds a scan. A developer's machine has some 3,000 on its PATH.
const mostFiles = 50_000

// Scan finds the programs in places, each a file or a directory, whose files are
// looked at and whose directories are not, and says what in each of them
// resolves names: Go's resolver, libc, or a DNS client of its own, in the
// program or in the libraries that it needs. Nothing is executed. 1,180
// executables take about a second on two processors. It ends early when ctx
// does, with what it has; a file server that is gone costs what it costs a
// [Cache]. A place that is not there is passed over.
func Scan(ctx context.Context, places []string) (fact.Executables, []fact.Blind) {
	return new(scan).run(ctx, places)
}

func (s *scan) run(ctx context.Context, places []string) (fact.Executables, []fact.Blind) {
	candidates := s.candidates(places)
	found := fact.Executables{Glibc: hasGlibc()}
	if len(candidates) > mostFiles {
		candidates, found.Cut = candidates[:mostFiles], true
	}
	results := make([]fact.Binary, len(candidates))
	var wg sync.WaitGroup
	next := make(chan int)
	workers := runtime.GOMAXPROCS(0)
	if s.memory != nil {
		workers = 1
	}
	for range min(workers, len(candidates)) {
		wg.Go(func() {
			for i := range next {
				began := time.Now()
				results[i] = s.look(candidates[i])
				if s.memory != nil {
					s.memory.rest(ctx, time.Since(began))
				}
			}
		})
	}
	for i := range candidates {
		if ctx.Err() != nil {
			found.Cut = true
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
	for i := range results {
		switch b := &results[i]; {
		case b.Path == "": // not looked at, or nothing that is executed
			continue
		case b.Unreadable == script:
			found.Scripts++
		default:
			found.Binaries = append(found.Binaries, *b)
		}
		found.Files++
	}
	slices.SortFunc(found.Binaries, func(a, b fact.Binary) int { return cmp.Compare(a.Path, b.Path) })
	return found, s.blind
}

// script marks what is no program but is interpreted by one.
const script = "a script"

// hasGlibc looks for the loader that the ABI of each architecture names.
func hasGlibc() bool {
	return slices.ContainsFunc([]string{"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", "/lib/ld-linux.so.2"}, func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	})
}

// scan is what the programs of one scan share. The zero scan is ready.
type scan struct {
	mu        sync.Mutex
	libraries map[string]*linked // by path; nil = not to be had
	dirs      []string           // where the loader looks by itself; nil = not read yet
	blind     []fact.Blind
	memory    *Programs // nil: nothing is known before, and nothing kept
}

// candidate is a file that may be a program.
type candidate struct {
	path, called string
	asked        bool // named by itself, not found in a directory
	link         bool // a symbolic link
}

// inodeOf is what makes two names one file.
type inodeOf struct{ dev, inode uint64 }

// candidates lists the files that may be executed, each once.
func (s *scan) candidates(places []string) []candidate {
	seen, real := make(map[inodeOf]bool), make(map[string]bool)
	var list []candidate
	for _, place := range places {
		dir, entries, err := entriesOf(place)
		if real[dir] {
			continue
		}
		real[dir] = true
		found := make(map[inodeOf][]candidate)
		for chunk := range slices.Chunk(entries, 50) { // a call that may hang has little to do
			var named []identified
			if err == nil {
				named, err = bounded.Do(&hangs, place, func() ([]identified, error) { return theirFiles(chunk), nil })
			}
			for _, c := range named {
				found[c.id] = append(found[c.id], c.candidate)
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.unseen(place, err)
		}
		ids := slices.SortedFunc(maps.Keys(found), func(a, b inodeOf) int { return cmp.Compare(found[a][0].path, found[b][0].path) })
		for _, id := range ids {
			if !seen[id] {
				seen[id] = true
				list = append(list, preferred(found[id]))
			}
		}
	}
	return list
}

// entriesOf lists a directory, or the one file, and returns where it really is.
func entriesOf(place string) (real string, list []candidate, err error) {
	type listed struct {
		real    string
		entries []candidate
	}
	l, err := bounded.Do(&hangs, place, func() (l listed, err error) {
		if l.real, err = filepath.EvalSymlinks(place); err != nil {
			return l, err
		}
		info, err := os.Stat(l.real)
		if err != nil || !info.IsDir() {
			l.entries = []candidate{{path: place, called: filepath.Base(place), asked: true}}
			return l, err
		}
		dir, err := os.Open(l.real)
		if err != nil {
			return l, err
		}
		defer dir.Close()
		entries, err := dir.ReadDir(mostFiles)
		if err == io.EOF {
			err = nil
		}
		for _, e := range entries {
			if e.Type().IsRegular() || e.Type()&fs.ModeSymlink != 0 {
				l.entries = append(l.entries, candidate{path: filepath.Join(l.real, e.Name()), called: e.Name(), link: e.Type()&fs.ModeSymlink != 0})
			}
		}
		return l, err
	})
	return l.real, l.entries, err
}

// preferred chooses among the names of one file: its own before those of links.
func preferred(names []candidate) candidate {
	slices.SortFunc(names, func(a, b candidate) int { return cmp.Compare(a.called, b.called) })
	for _, c := range names {
		if filepath.Base(c.path) == c.called {
			return c
		}
	}
	return names[0]
}

func (s *scan) unseen(place string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := fact.Blind{Source: "programs", Error: fact.Printable(place) + ": " + reason(err)}
	if errors.Is(err, fs.ErrPermission) {
		b.Needs = "CAP_DAC_READ_SEARCH"
	}
	s.blind = append(s.blind, b)
}

// reason is an error without the path that is said before it.
func reason(err error) string {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	return fact.Printable(err.Error())
}

// identified is a candidate with what makes two names one file.
type identified struct {
	candidate
	id inodeOf
}

// theirFiles returns those of the candidates that may be executed, or that were
// asked for; a link becomes the file that it leads to.
func theirFiles(list []candidate) (found []identified) {
	for _, c := range list {
		info, err := os.Stat(c.path)
		if err != nil || !c.asked && (!info.Mode().IsRegular() || info.Mode()&0o111 == 0) {
			continue
		}
		if c.link {
			if c.path, err = filepath.EvalSymlinks(c.path); err != nil {
				continue
			}
		}
		found = append(found, identified{c, identityOf(info)})
	}
	return found
}

func identityOf(info os.FileInfo) inodeOf {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return inodeOf{}
	}
	return inodeOf{uint64(st.Dev), st.Ino}
}

// look reads one file. What is no program comes back without a path, unless it
// was asked for by name.
func (s *scan) look(c candidate) fact.Binary {
	b, err := bounded.Do(&hangs, c.path, func() (fact.Binary, error) { return s.read(c.path) })
	switch {
	case errors.Is(err, errScript):
		b.Unreadable = script
	case errors.Is(err, ErrNotProgram) && !c.asked, errors.Is(err, fs.ErrNotExist):
		return fact.Binary{}
	case err != nil:
		b.Unreadable = reason(err)
	}
	b.Path, b.Called = fact.Printable(c.path), fact.Printable(c.called)
	return b
}

var errScript = fmt.Errorf("%w: a script", ErrNotProgram)

// read says what in the program at path resolves names.
func (s *scan) read(path string) (fact.Binary, error) {
	f, size, err := Open(path)
	if err != nil {
		return fact.Binary{}, err
	}
	defer f.Close()
	mark := make([]byte, 2)
	if _, err := f.ReadAt(mark, 0); err == nil && string(mark) == "#!" {
		return fact.Binary{}, errScript
	}
	read := func() (fact.Binary, error) {
		return s.namesOf(&image{file: f, size: size, left: mostRead + 3*mostSymbols}, path)
	}
	if s.memory == nil {
		return read()
	}
	return s.memory.recall(f, path, read)
}
