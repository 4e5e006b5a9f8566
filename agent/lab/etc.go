//go:build linux

package lab

import (
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// What an Etc needs, beside what every lab needs; and what a module needs.
var (
	EtcPrograms    = []string{"unshare", "mount", "sh"}
	ModulePrograms = []string{"gcc"}
)

// moduleSource is a source of names for nsswitch.conf. It is not built before
// there is a use for it, by the compiler and for the C library of this machine.
//
//go:embed nss/lab.c
var moduleSource string

// Etc is a host with files of /etc of its own, and with an NSS module that
// nobody else has: where its programs look names up is up to who made it. For
// the rest they see the files of this machine, of which nothing is changed: the
// files are mounted over its own in a mount namespace of each command.
type Etc struct {
	host   *Host
	dir    string
	files  []string
	module bool
}

// Etc gives programs of a host files of /etc, by their names below it, such as
// resolv.conf. Each must exist on this machine. The caller must have asked for
// EtcPrograms. The files are removed with the lab.
func (h *Host) Etc(files map[string]string) *Etc {
	h.lab.t.Helper()
	h.lab.etcs++
	e := &Etc{host: h, dir: h.lab.makeDir(fmt.Sprintf("-etc-%d", h.lab.etcs), 0o755), files: slices.Sorted(maps.Keys(files))}
	for _, name := range e.files {
		if _, err := os.Stat(filepath.Join("/etc", name)); err != nil {
			h.lab.t.Fatalf("lab: there must be a file that another can be mounted over: %v", err)
		}
		e.Write(name, files[name])
	}
	return e
}

// Dir is a directory that every user may read, below which the files are. What
// programs of the host need may be put there, and so may programs: it is where
// they are executed also on machines that execute none in /run.
func (e *Etc) Dir() string { return e.dir }

// Write changes a file. Programs that run already see the change.
func (e *Etc) Write(name, text string) {
	e.host.lab.t.Helper()
	path := filepath.Join(e.dir, "etc", name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		e.host.lab.t.Fatalf("lab: %v", err)
	}
}

// Module builds an NSS module, lab, for "hosts: lab" in nsswitch.conf. A line of
// its table is a name or *.DOMAIN, and addresses; instead of those, "sleep
// SECONDS" keeps whoever asks that long, and "abort" ends the program. It may be
// called again to change the table, which programs that run already see. The
// caller must have asked for ModulePrograms.
func (e *Etc) Module(table string) {
	e.host.lab.t.Helper()
	if err := e.buildModule(table); err != nil {
		e.host.lab.t.Fatalf("lab: NSS module: %v", err)
	}
	e.module = true
}

func (e *Etc) buildModule(table string) error {
	names := filepath.Join(e.dir, "names")
	if err := os.WriteFile(names, []byte(table), 0o644); err != nil || e.module {
		return err
	}
	gcc := exec.Command("gcc", "-shared", "-fPIC", "-O1", "-Wall", "-D_GNU_SOURCE", fmt.Sprintf("-DTABLE=%q", names),
		"-o", filepath.Join(e.dir, "libnss_lab.so.2"), "-x", "c", "-")
	gcc.Stdin = strings.NewReader(moduleSource)
	if out, err := gcc.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// inEtc mounts files, $2 and on as far as "--", of the directory $1 over those
// of /etc. What answers for this machine's own configuration must not be asked.
// Debian mounts /run with noexec, which would keep the module from being loaded.
const inEtc = `
dir=$1; shift
mount --bind "$dir" "$dir" && mount -o remount,bind,exec "$dir" || exit 125
for socket in /run/nscd/socket /run/systemd/resolve/io.systemd.Resolve; do
	[ ! -e "$socket" ] || mount --bind /dev/null "$socket" || exit 125
done
while [ "$1" != -- ]; do
	mount --bind "$dir/etc/$1" "/etc/$1" || exit 125
	shift
done
shift
unset LOCALDOMAIN RES_OPTIONS HOSTALIASES
[ ! -e "$dir/libnss_lab.so.2" ] || export LD_LIBRARY_PATH="$dir"
exec "$@"
`

// Command is Host.Command with these files. A program that drops its rights, or
// is another user's, finds them and the module too; one that gains rights
// (setuid) does not find the module.
func (e *Etc) Command(name string, args ...string) *exec.Cmd {
	all := slices.Concat([]string{"--mount", "--", "sh", "-c", inEtc, "sh", e.dir}, e.files, []string{"--", name}, args)
	return e.host.Command("unshare", all...)
}
