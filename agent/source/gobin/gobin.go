// Package gobin reads what an executable file says about itself: whether it is
// a Go program, of which version and module, built with which tags, with or
// without cgo, and whether it needs a dynamic loader. It executes nothing.
//
// Rights: the executable of another user's process needs CAP_SYS_PTRACE; a file
// that may be executed but not read needs CAP_DAC_READ_SEARCH.
//
// Bound: files are foreign. Only regular files are opened for reading, of each
// at most a few MiB are read however large it is, and what a file claims about
// its own size is checked before memory is spent on it. A file system whose
// server is gone costs [bounded.Patience] once and leaves behind a goroutine
// until the kernel gives it back, at most [bounded.MostHung] in all.
package gobin

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/procfs/bounded"
)

// ErrNotProgram is the error of a file that can be read and is no ELF program:
// a script, a library of objects, an empty or damaged file, a directory.
var ErrNotProgram = errors.New("not an ELF program")

// hangs is one for all, as the goroutines and threads that it bounds are.
var hangs bounded.Calls

// Read reads the executable file at path. A program that is not written in Go
// is no error: its Go is "". The error of what is not a program is
// [ErrNotProgram]; [fs.ErrPermission] and [fs.ErrNotExist] mean what they say.
func Read(path string) (fact.Program, error) {
	return new(Cache).Read(path)
}

// OfProcess reads the executable of a process, in whatever container it is, and
// also when it was deleted or replaced since it was started; the kernel then
// puts " (deleted)" after its path. The error is [fs.ErrNotExist] when the
// process is gone, and for kernel threads and zombies, which have none.
func OfProcess(pid int32) (fact.Program, error) {
	return new(Cache).OfProcess(pid)
}

// Cache remembers programs by the identity of their files, so that a look each
// second, or at hundreds of processes of one program, reads a file once. The
// zero Cache is empty and ready. It may be used from many goroutines at once.
type Cache struct {
	mu   sync.Mutex
	seen map[identity]outcome
}

// mostRemembered bounds a [Cache]; a machine runs a few hundred programs.
const mostRemembered = 4096

// identity changes with the content of a file: writing to a file changes its
// ctime, which no program can set.
type identity struct {
	dev, inode   uint64
	size         int64
	mtime, ctime unix.Timespec
}

type outcome struct {
	program fact.Program // without its path, which is not the file's own
	err     error
}

// Read is like the function [Read].
func (c *Cache) Read(path string) (fact.Program, error) {
	p, err := c.program(path)
	if err != nil {
		return fact.Program{}, fmt.Errorf("executable %s: %w", fact.Printable(path), err)
	}
	p.Path = fact.Printable(path)
	return p, nil
}

// OfProcess is like the function [OfProcess].
func (c *Cache) OfProcess(pid int32) (fact.Program, error) {
	link := "/proc/" + strconv.Itoa(int(pid)) + "/exe"
	path, err := os.Readlink(link)
	var p fact.Program
	if err == nil {
		p, err = c.program(link)
	}
	if err != nil {
		var errno unix.Errno
		if errors.As(err, &errno) {
			err = errno // the path of the link says no more than the PID
		}
		if errno == unix.ESRCH {
			err = fs.ErrNotExist
		}
		return fact.Program{}, fmt.Errorf("executable of process %d: %w", pid, err)
	}
	p.Path = fact.Printable(path)
	return p, nil
}

// program reads, or remembers, the file at path.
func (c *Cache) program(path string) (fact.Program, error) {
	p, err := bounded.Do(&hangs, path, func() (fact.Program, error) {
		handle, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fact.Program{}, err
		}
		defer unix.Close(handle)
		return c.file(handle)
	})
	p.Tags = slices.Clone(p.Tags) // the caller's own
	return p, err
}

// file reads, or remembers, the file that handle refers to. The handle is of
// the O_PATH kind, which opens nothing: a FIFO has no reader yet and a device
// has not started to do anything, and neither ever will.
func (c *Cache) file(handle int) (fact.Program, error) {
	var st unix.Stat_t
	if err := unix.Fstat(handle, &st); err != nil {
		return fact.Program{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fact.Program{}, fmt.Errorf("%w, but %s", ErrNotProgram, kind(st.Mode))
	}
	id := identityFrom(&st)
	if o, ok := c.recall(id); ok {
		return o.program, o.err
	}
	f, err := reopen(handle)
	if err != nil {
		return fact.Program{}, err
	}
	defer f.Close()
	p, err := inspect(&image{file: f, size: st.Size, left: mostRead})
	if _, disk := errors.AsType[*fs.PathError](err); !disk {
		c.remember(id, outcome{p, err})
	}
	return p, err
}

// reopen opens for reading the regular file that an O_PATH handle refers to.
// O_NONBLOCK: not to wait for whoever holds a lease on the file.
func reopen(handle int) (*os.File, error) {
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(handle), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "executable"), nil
}

// Open opens the executable file at path for reading, for sources that read
// more of it than this one does, and returns its size. Only a regular file is
// opened, and its first bytes were read within [bounded.Patience]. The caller
// must close it.
func Open(path string) (*os.File, int64, error) {
	f, err := bounded.Do(&hangs, path, func() (*os.File, error) {
		handle, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(handle)
		var st unix.Stat_t
		if err := unix.Fstat(handle, &st); err != nil {
			return nil, err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return nil, fmt.Errorf("%w, but %s", ErrNotProgram, kind(st.Mode))
		}
		f, err := reopen(handle)
		if err != nil {
			return nil, err
		}
		if _, err := f.ReadAt(make([]byte, 1), 0); err != nil {
			f.Close()
			return nil, fmt.Errorf("%w: it cannot be read: %w", ErrNotProgram, err)
		}
		return f, nil
	})
	if err != nil {
		return nil, 0, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, size, nil
}

func (c *Cache) recall(id identity) (outcome, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.seen[id]
	return o, ok
}

func (c *Cache) remember(id identity, o outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = make(map[identity]outcome)
	}
	if len(c.seen) >= mostRemembered {
		for any := range c.seen {
			delete(c.seen, any)
			break
		}
	}
	c.seen[id] = o
}

func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "a device"
	default:
		return "not a regular file"
	}
}
