package netns

import (
	"bytes"
	"os"
	"path"
	"slices"
	"strings"
)

// mount is a file that a network namespace is bound to.
type mount struct {
	inode uint32
	path  string
}

// name is what people call it: the last part of its path.
func (m mount) name() string { return path.Base(m.path) }

// preferred reports whether ip netns knows it.
func (m mount) preferred() bool {
	return strings.HasPrefix(m.path, "/run/netns/") || strings.HasPrefix(m.path, "/var/run/netns/")
}

// mounts returns the network namespaces that are bound to a file anywhere:
// ip netns and CNI use /run/netns, Docker /run/docker/netns, others other
// places. The table of mounts has them all with their inodes, also where the
// directory itself may only be entered by root.
func mounts() ([]mount, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMounts(table), nil
}

// parseMounts reads mountinfo, proc_pid_mountinfo(5), and returns what is a
// network namespace, those that ip netns knows first.
func parseMounts(table []byte) []mount {
	var found []mount
	for line := range bytes.Lines(table) {
		// 43 42 0:4 net:[4026532177] /run/netns/blue rw shared:2 - nsfs nsfs rw
		if !bytes.Contains(line, []byte(" net:[")) {
			continue
		}
		fields := bytes.Fields(line)
		const root, point = 3, 4
		if len(fields) <= point {
			continue
		}
		if inode, ok := parseLink(fields[root]); ok {
			found = append(found, mount{inode: inode, path: unescape(string(fields[point]))})
		}
	}
	slices.SortStableFunc(found, func(a, b mount) int {
		switch {
		case a.preferred() == b.preferred():
			return 0
		case a.preferred():
			return -1
		}
		return 1
	})
	return found
}

// unescape undoes what the kernel does to spaces, tabs, newlines and
// backslashes in a path, mangle_path in fs/seq_file.c.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace
