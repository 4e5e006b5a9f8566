//go:build linux

package tune

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Cgroup is a cgroup v2, with all below it.
type Cgroup struct {
	Path string // of its directory
	ID   uint64 // the kernel's name for it: the inode of that directory

	below map[uint64]bool // IDs, its own too
	pids  map[int32]bool  // of the processes in them
}

// FindCgroup returns the cgroup that text names: a directory, or a path below
// the place where cgroup v2 is mounted, as /proc/PID/cgroup has it:
// system.slice/nginx.service.
func FindCgroup(text string) (*Cgroup, error) {
	tried := []string{text}
	if mount, err := unified(); err == nil {
		tried = append(tried, filepath.Join(mount, text))
	}
	for _, path := range tried {
		path, err := filepath.Abs(path)
		if err != nil {
			continue
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(path, &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		c := &Cgroup{Path: path, below: make(map[uint64]bool), pids: make(map[int32]bool)}
		if c.ID, err = inode(path); err != nil {
			return nil, err
		}
		return c, c.fill()
	}
	return nil, fmt.Errorf("%q is no cgroup v2: take its directory, or its path as in /proc/PID/cgroup, such as system.slice/nginx.service", text)
}

// fill reads which cgroups are below c, and which processes are in them. What
// goes away meanwhile is left out.
func (c *Cgroup) fill() error {
	err := filepath.WalkDir(c.Path, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.IsDir() {
			return err
		}
		id, err := inode(path)
		if err != nil {
			return nil
		}
		c.below[id] = true
		text, _ := os.ReadFile(filepath.Join(path, "cgroup.procs")) // of a threaded cgroup it cannot be read
		for line := range bytes.Lines(text) {
			if pid, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 10, 32); err == nil && pid > 0 {
				c.pids[int32(pid)] = true
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cgroup %s: %w", c.Path, err)
	}
	return nil
}

// Has reports whether a socket is of the cgroup: made in it, which is what the
// kernel goes by, or of a process that is in it.
func (c *Cgroup) Has(s *fact.Socket) bool {
	return c.below[s.Cgroup] || slices.ContainsFunc(s.Owners, func(o fact.Owner) bool { return c.pids[o.PID] })
}

func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

// unified returns where cgroup v2 is mounted.
func unified() (string, error) { return mounted("cgroup2") }

// mounted returns where a file system of this type is mounted.
func mounted(kind string) (string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(table)) {
		// 41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
		left, right, _ := strings.Cut(line, " - ")
		fields := strings.Fields(left)
		if len(fields) > 4 && strings.HasPrefix(right, kind+" ") {
			return strings.ReplaceAll(fields[4], `\040`, " "), nil
		}
	}
	return "", fmt.Errorf("%w: no %s is mounted", errors.ErrUnsupported, kind)
}

// named returns the directory of the cgroup with an ID, "" when it is gone.
func named(id uint64) (found string) {
	mount, err := unified()
	if err != nil {
		return ""
	}
	_ = filepath.WalkDir(mount, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		if got, err := inode(path); err == nil && got == id {
			found = path
			return filepath.SkipAll
		}
		return nil
	})
	return found
}
