package procfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/procfs/bounded"
)

// mostBytes is how much is read of one file. It holds the cgroups of all 14
// controllers of cgroup v1 at realistic lengths, and what is worth showing of a
// command line, which may have megabytes.
const mostBytes = 16 << 10

var buffers = sync.Pool{New: func() any { return new([mostBytes]byte) }}

// look is what is common to one pass over processes.
type look struct {
	root   string
	detail Detail
	counts bool          // the kernel counts open descriptors
	now    time.Duration // since boot
}

// steps are what is read of a process after its name and uid.
var steps = []struct {
	what   string
	detail Detail
	hangs  bool // may wait for ever
	read   func(l *look, fd int, buf []byte, p *fact.Process) error
}{
	{"the cgroup", Brief, true, (*look).cgroup},
	{"the command line", Brief, true, (*look).command},
	{"the age", Full, false, (*look).age},
	{countFiles, Full, false, (*look).files},
	{"the network namespace", Full, false, (*look).netns},
}

// process reads one process; where that hangs, again without what can hang.
func (l *look) process(pid int32) (fact.Process, []miss, error) {
	dir := l.root + "/" + strconv.Itoa(int(pid))
	type seen struct {
		process fact.Process
		misses  []miss
	}
	s, err := bounded.Do(&hangs, dir, func() (s seen, err error) {
		s.process, s.misses, err = l.read(dir, pid, true)
		return s, err
	})
	if errors.Is(err, bounded.ErrHung) {
		s.process, s.misses, err = l.read(dir, pid, false)
		s.misses = append(s.misses, miss{"the command line and cgroup", bounded.ErrHung})
	}
	return s.process, s.misses, err
}

// read reads one process, and only when patient what may hang. All files are
// opened relative to one directory, which stays with the process it was opened
// for: one that gets the same PID in between is not mistaken for it.
func (l *look) read(dir string, pid int32, patient bool) (p fact.Process, misses []miss, err error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return p, nil, gone(err)
	}
	defer unix.Close(fd)
	buf := buffers.Get().(*[mostBytes]byte)
	defer buffers.Put(buf)

	// This directory has the effective uid as its owner even when the process
	// is not dumpable (fs/proc/base.c, task_dump_owner).
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return p, nil, gone(err)
	}
	comm, err := readFile(fd, "comm", buf[:])
	if err != nil {
		return p, nil, gone(err)
	}
	p = fact.Process{PID: pid, UID: st.Uid, Name: strings.TrimSuffix(string(comm), "\n")}

	for _, step := range steps {
		if step.detail > l.detail || step.hangs && !patient {
			continue
		}
		err := gone(step.read(l, fd, buf[:], &p))
		if err == os.ErrNotExist {
			return fact.Process{}, nil, err
		}
		if err != nil {
			misses = append(misses, miss{step.what, err})
		}
	}
	p.Name = fact.Printable(p.Name)
	return p, misses, nil
}

// gone turns what the kernel says of a process that is no more into
// [os.ErrNotExist]: ENOENT where a file is opened, ESRCH where it was open.
func gone(err error) error {
	if err == unix.ENOENT || err == unix.ESRCH {
		return os.ErrNotExist
	}
	return err
}

// readFile reads a file of a process into buf and returns what is in it; more
// than buf holds is cut off. One read is enough: the kernel makes these files
// in one piece, so that a short read is the end.
func readFile(dir int, name string, buf []byte) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

func (l *look) cgroup(fd int, buf []byte, p *fact.Process) error {
	text, err := readFile(fd, "cgroup", buf)
	if err == unix.ENOENT { // a kernel without cgroups, unless all else is gone too
		var st unix.Stat_t
		return unix.Fstatat(fd, "comm", &st, 0)
	}
	if err != nil {
		return err
	}
	if len(text) == len(buf) {
		return fmt.Errorf("longer than %d bytes", len(buf))
	}
	g := parseCgroup(string(text))
	p.Cgroup, p.Container, p.Runtime, p.Unit = g.path, g.container, g.runtime, g.unit
	return nil
}

// command reads the command line, which a brief look needs only to complete a
// name that the kernel cut.
func (l *look) command(fd int, buf []byte, p *fact.Process) error {
	if l.detail == Brief && len(p.Name) != commBytes {
		return nil
	}
	text, err := readFile(fd, "cmdline", buf)
	if err != nil {
		return err
	}
	args := parseCommand(text, len(text) == len(buf))
	p.Name = fullName(p.Name, args)
	if l.detail == Full {
		for i := range args {
			args[i] = fact.Printable(args[i])
		}
		p.Command = args
	}
	return nil
}

func (l *look) age(fd int, buf []byte, p *fact.Process) error {
	text, err := readFile(fd, "stat", buf)
	if err != nil {
		return err
	}
	start, err := parseStart(text)
	if err != nil {
		return err
	}
	p.Started = max(l.now-start, 1) // started after the look began: new, but looked at
	return nil
}

func (l *look) files(fd int, buf []byte, p *fact.Process) error {
	text, err := readFile(fd, "limits", buf)
	if err != nil {
		return err
	}
	var files fact.Files
	if files.Limit, err = parseLimit(text); err != nil {
		return err
	}
	if files.Open, err = l.open(fd); err != nil {
		return err
	}
	p.Files = fact.Seen(files)
	return nil
}

// open counts open descriptors. Since Linux 6.2 the kernel does, and tells
// everybody (fs/proc/fd.c, proc_fd_getattr).
func (l *look) open(fd int) (int, error) {
	if l.counts {
		var st unix.Stat_t
		err := unix.Fstatat(fd, "fd", &st, 0)
		return int(st.Size), err
	}
	dir, err := unix.Openat(fd, "fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	f := os.NewFile(uintptr(dir), "fd")
	defer f.Close()
	n := 0
	for {
		names, err := f.Readdirnames(1024)
		n += len(names)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func (l *look) netns(fd int, buf []byte, p *fact.Process) error {
	n, err := unix.Readlinkat(fd, "ns/net", buf)
	if err == unix.ENOENT {
		return nil // a zombie is in no namespace
	}
	if err != nil {
		return err
	}
	p.Netns, err = parseNamespace(string(buf[:n]))
	return err
}
