package gobin

import (
	"bufio"
	"debug/elf"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// closure follows the libraries that a program needs, and those that they need,
// and fills in what in any of them resolves names.
func (s *scan) closure(b *fact.Binary, program linked, origin string) {
	queue := []string{""} // paths; the first stands for the program
	seen := map[string]bool{}
	add := func(list *[]fact.Asking, what []string, in string) {
		for _, w := range what {
			*list = append(*list, fact.Asking{What: text(w), In: text(in)})
		}
	}
	for at := 0; at < len(queue); at++ {
		l, in, from := &program, "", origin
		if at > 0 {
			l, in, from = s.library(queue[at]), filepath.Base(queue[at]), filepath.Dir(queue[at])
		}
		if l == nil {
			b.Part = true
			continue
		}
		b.Part = b.Part || l.part
		if !begins(in, ownClients) {
			add(&b.Asks, l.asks, in)
			add(&b.Own, l.own, in)
		}
		// What libraries of the system load is their own business: it is plug-ins
		// of theirs. Those that came with the program are the program.
		b.Loads = b.Loads || l.loads && (at == 0 || !slices.Contains(s.systemDirs(), from))
		for _, name := range l.needed {
			if begins(filepath.Base(name), systemLibraries) || len(seen) >= mostNeeded {
				continue
			}
			path := s.find(name, from, l, &program, origin)
			if path == "" {
				b.Part = true
			} else if !seen[path] {
				seen[path] = true
				queue = append(queue, path)
			}
		}
	}
	compact := func(list []fact.Asking) []fact.Asking { // the program itself before its libraries
		const most = 8
		return slices.Clip(list[:min(len(list), most)])
	}
	b.Asks, b.Own = compact(b.Asks), compact(b.Own)
}

// library reads the library at path, or remembers it; nil when there is none.
func (s *scan) library(path string) *linked {
	s.mu.Lock()
	l, known := s.libraries[path]
	s.mu.Unlock()
	if known {
		return l
	}
	if read, err := readLibrary(path); err == nil {
		l = &read
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.libraries == nil || len(s.libraries) >= mostLibraries {
		s.libraries = make(map[string]*linked)
	}
	s.libraries[path] = l
	return l
}

// mostLibraries is how many paths are remembered, also of what is not there. A
// machine has some thousand libraries.
const mostLibraries = 1 << 16

func readLibrary(path string) (linked, error) {
	f, size, err := Open(path)
	if err != nil {
		return linked{}, err
	}
	defer f.Close()
	m := &image{file: f, size: size, left: mostRead + 3*mostSymbols}
	if err := m.check(); err != nil {
		return linked{}, err
	}
	e, err := elf.NewFile(m)
	if err != nil {
		return linked{}, m.notProgram(err.Error())
	}
	l := readLinked(m, e)
	return l, m.failed
}

// find returns the path of a library as the loader would find it, ld.so(8),
// without LD_LIBRARY_PATH, which is the environment's; "" when there is none.
func (s *scan) find(name, from string, by, program *linked, origin string) string {
	if strings.Contains(name, "/") {
		if filepath.IsAbs(name) {
			return name
		}
		return "" // relative to wherever the program is started
	}
	var dirs []string
	for _, of := range []struct {
		dirs   []string
		origin string
	}{{by.search, from}, {program.search, origin}} {
		for _, d := range of.dirs {
			d = strings.NewReplacer("$ORIGIN", of.origin, "${ORIGIN}", of.origin, "$LIB", "lib", "${LIB}", "lib").Replace(d)
			if filepath.IsAbs(d) {
				dirs = append(dirs, d)
			}
		}
	}
	for _, d := range slices.Concat(dirs, s.systemDirs()) {
		path := filepath.Join(d, name)
		if l := s.library(path); l != nil && l.class == program.class && l.machine == program.machine {
			return path
		}
	}
	return ""
}

// systemDirs are where glibc's loader and musl's look, those of ld.so.conf first.
func (s *scan) systemDirs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dirs == nil {
		triple := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
		s.dirs = append(ldConf("/etc/ld.so.conf", 0), "/lib/"+triple, "/usr/lib/"+triple, "/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib")
	}
	return s.dirs
}

// ldConf reads the directories of ld.so.conf and the files that it includes,
// ldconfig(8).
func ldConf(path string, depth int) (dirs []string) {
	const mostDeep, mostBytes, mostDirs = 4, 64 << 10, 200
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, mostBytes))
	for lines.Scan() && len(dirs) < mostDirs {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		switch {
		case len(words) == 2 && words[0] == "include" && depth < mostDeep:
			pattern := words[1]
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(filepath.Dir(path), pattern)
			}
			included, err := filepath.Glob(pattern)
			if errors.Is(err, filepath.ErrBadPattern) {
				continue
			}
			for _, file := range included {
				dirs = append(dirs, ldConf(file, depth+1)...)
			}
		case len(words) == 1 && filepath.IsAbs(words[0]):
			dirs = append(dirs, words[0])
		}
	}
	return dirs
}
