//go:build linux

package redirect

import (
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run/notify"
	"github.com/lifeline-go/lifeline/agent/fact"
)

// mostPath is PATH_MAX.
const mostPath = 4096

// notice remembers what will be left out: programs that change their rights, that
// may not be looked into, and those that connect by other means.
func (r *Redirector) notice(c *notify.Call) {
	switch c.Nr {
	case unix.SYS_IO_URING_SETUP:
		r.Tally.add(r.program(c), Unseen)
	case unix.SYS_EXECVE:
		r.executed(c, c.Args[0], unix.AT_FDCWD)
	case unix.SYS_EXECVEAT:
		r.executed(c, c.Args[1], descriptorOf(c))
	}
}

// executed looks at a program that is about to start. The path may be changed
// until then: this is for a report and decides nothing.
func (r *Redirector) executed(c *notify.Call, at uint64, dir int) {
	tid := int(c.TID)
	path, err := readText(tid, at, mostPath)
	if err != nil || path == "" {
		return
	}
	found := proc(tid, "root") + path
	if !filepath.IsAbs(path) {
		from := "cwd"
		if dir != unix.AT_FDCWD {
			from = "fd/" + strconv.Itoa(dir)
		}
		found = filepath.Join(proc(tid, from), path)
	}
	var st unix.Stat_t
	if unix.Stat(found, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	if rights(found, &st) && confined(tid) {
		r.Tally.add(fact.Printable(path), Privileged)
	}
	if unix.Access(found, unix.R_OK) != nil && unix.Access(found, unix.X_OK) == nil {
		r.Tally.add(fact.Printable(path), ExecOnly)
	}
}

// rights reports that a program runs with more rights than who starts it.
func rights(path string, st *unix.Stat_t) bool {
	if st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 && st.Mode&unix.S_IXUSR != 0 {
		return int(st.Uid) != unix.Geteuid() || st.Mode&unix.S_ISGID != 0
	}
	n, err := unix.Getxattr(path, "security.capability", nil)
	return err == nil && n > 0
}

// confined reports that a process has no way to more rights.
func confined(tid int) bool {
	on, err := status(tid, "NoNewPrivs")
	return err == nil && on == "1"
}
