package procfs

import (
	"strconv"
	"strings"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// group is what the cgroup of a process tells.
type group struct {
	path, container, runtime, unit string
}

// parseCgroup reads /proc/PID/cgroup, one line "hierarchy:controllers:path" for
// each hierarchy (cgroups(7)). With cgroup v2 alone there is one line, 0::path.
// With v1, or both, they may disagree: a runtime that manages v1 leaves its
// containers in the v2 cgroup of its own service. So the line that names a
// container decides; where none does, systemd's own hierarchy; then v2; then
// the first that is not the root.
func parseCgroup(text string) group {
	var systemd, unified, first string
	for line := range strings.Lines(text) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		path = strings.TrimSuffix(path, " (deleted)") // a zombie may outlive its cgroup
		if g := parsePath(path); g.container != "" {
			return g
		}
		switch {
		case controllers == "name=systemd":
			systemd = path
		case controllers == "":
			unified = path
		case first == "" && path != "/":
			first = path
		}
	}
	for _, path := range []string{systemd, unified, first} {
		if path != "" && path != "/" {
			return parsePath(path)
		}
	}
	return parsePath(unified)
}

// parsePath finds container and unit in the path of a cgroup. It goes from the
// innermost segment out, because containers and services nest: the process
// belongs to the innermost container, and to the innermost *.service or
// *.scope, be that inside the container, of a user's systemd, or around all of
// it. The scope that only names the container is not its unit. The init.scope
// is the unit of a systemd itself, which its service names better where there
// is one around it.
//
// A path may begin with "/.." where the cgroup lies outside of the cgroup
// namespace of the reader.
func parsePath(path string) group {
	g := group{path: fact.Printable(path)}
	segments := strings.Split(path, "/")
	for i := len(segments) - 1; i >= 0; i-- {
		s := segments[i]
		if id, runtime := container(segments, i); id != "" {
			if g.container == "" {
				g.container, g.runtime = fact.Printable(id), runtime
			}
		} else if (g.unit == "" || g.unit == "init.scope") && isUnit(s) {
			g.unit = fact.Printable(s)
		}
	}
	return g
}

func isUnit(segment string) bool {
	return strings.HasSuffix(segment, ".service") || strings.HasSuffix(segment, ".scope")
}

// runtimes are the words that runtimes put before the id of a container. The
// monitors that run beside it (crio-conmon-, libpod-conmon-) are not in it.
var runtimes = map[string]string{
	"docker":         "docker",
	"cri-containerd": "containerd",
	"nerdctl":        "containerd",
	"crio":           "cri-o",
	"libpod":         "podman",
	"libpod-payload": "podman",
}

// parents are the cgroups that hold containers named by their bare id.
var parents = map[string]string{
	"docker":  "docker",
	"default": "containerd", // the namespace that ctr and nerdctl use unless told otherwise
	"k8s.io":  "containerd",
}

// container returns the id, or for LXC and systemd-nspawn the name, of the
// container that segment i of a path stands for, "" when it stands for none.
// The runtime may stay "": of a bare id under kubepods only the kubelet knows.
func container(segments []string, i int) (id, runtime string) {
	s := strings.TrimSuffix(segments[i], ".scope")
	var parent, child string
	if i > 0 {
		parent = segments[i-1]
	}
	if i+1 < len(segments) {
		child = segments[i+1]
	}

	const idLength = 64
	if cut := len(s) - idLength; cut >= 0 && isHex(s[cut:]) {
		prefix, id := s[:cut], s[cut:]
		if prefix == "" {
			return id, parents[parent]
		}
		// docker-ID.scope; kubepods-podUID.slice:cri-containerd:ID of runc with
		// the cgroupfs driver under a kubelet with the systemd driver.
		word := prefix[strings.LastIndexByte(prefix[:cut-1], ':')+1 : cut-1]
		if runtime := runtimes[word]; runtime != "" && strings.IndexByte("-:", prefix[cut-1]) >= 0 {
			return id, runtime
		}
		return "", ""
	}

	if parent == "lxc" || parent == "lxc.payload" {
		return s, "lxc"
	}
	if name, ok := strings.CutPrefix(s, "lxc.payload."); ok {
		return name, "lxc"
	}
	// systemd-nspawn keeps itself in supervisor/, beside payload/; machines
	// without payload/, such as those of libvirt, are not containers.
	if child == "payload" {
		if name, ok := strings.CutPrefix(s, "machine-"); ok && s != segments[i] {
			return unescape(name), "systemd-nspawn"
		}
		if name, ok := strings.CutPrefix(s, "systemd-nspawn@"); ok {
			return unescape(strings.TrimSuffix(name, ".service")), "systemd-nspawn"
		}
	}
	return "", ""
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}

// unescape undoes the \xNN of systemd.unit(5) in a machine's name.
func unescape(s string) string {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, `\x`)
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		if len(after) < 2 {
			return b.String() + `\x` + after
		}
		code, err := strconv.ParseUint(after[:2], 16, 8)
		if err != nil {
			b.WriteString(`\x`)
			s = after
			continue
		}
		b.WriteByte(byte(code))
		s = after[2:]
	}
}
