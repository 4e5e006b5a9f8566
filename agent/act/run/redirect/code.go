//go:build linux

package redirect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Whether a program asks nameservers by itself or lets the C library do it is
// told by where the instruction is that made the system call. In a Go program,
// also one that has both resolvers in it and chooses each time, and in every
// static program, it is the executable's own code. In all others it is libc's,
// a file of its own; what libc asks for, the operating system is asked for
// already.

// mostMaps bounds what is read of a process's maps; JVMs with some ten thousand
// mappings have 2 MB.
const mostMaps = 8 << 20

// mostPlaces bounds the memory of places; when there are more it forgets all.
const mostPlaces = 1024

// place is an address in processes of one executable.
type place struct {
	dev, inode uint64
	ctime      unix.Timespec
	ip         uint64
}

// places remembers whose code is where.
type places struct {
	mu   sync.Mutex
	seen map[place]bool
}

// own reports that the code at ip belongs to the program and not to a library.
// Code that no file has, such as a packed executable's, is the program's.
func (p *places) own(tid int, ip uint64) (bool, error) {
	var exe unix.Stat_t
	if err := unix.Stat(proc(tid, "exe"), &exe); err != nil {
		return false, err
	}
	here := place{exe.Dev, exe.Ino, exe.Ctim, ip}
	p.mu.Lock()
	own, ok := p.seen[here]
	p.mu.Unlock()
	if ok {
		return own, nil
	}
	maps, err := readAtMost(proc(tid, "maps"), mostMaps)
	if err != nil {
		return false, err
	}
	auxv, err := readAtMost(proc(tid, "auxv"), 1<<12)
	if err != nil {
		return false, err
	}
	code, ok := mapping(maps, ip)
	if !ok {
		return false, errors.New("the code that asks is in no mapping")
	}
	program, ok := mapping(maps, entry(auxv))
	own = code == (file{}) || ok && code == program
	p.mu.Lock()
	if p.seen == nil || len(p.seen) >= mostPlaces {
		p.seen = make(map[place]bool)
	}
	p.seen[here] = own
	p.mu.Unlock()
	return own, nil
}

// file is what maps say of a file. On overlay file systems that is not what
// stat(2) says of it, so files of maps are compared with each other only.
type file struct{ device, inode string }

// mapping finds which file is mapped at an address in the text of
// /proc/PID/maps, proc_pid_maps(5); no file is the zero one.
func mapping(maps []byte, at uint64) (f file, ok bool) {
	for line := range bytes.Lines(maps) {
		words := strings.Fields(string(line[:min(len(line), 120)])) // but for the path
		if len(words) < 5 {
			continue
		}
		first, last, _ := strings.Cut(words[0], "-")
		from, err1 := strconv.ParseUint(first, 16, 64)
		to, err2 := strconv.ParseUint(last, 16, 64)
		if err1 != nil || err2 != nil || at < from || at >= to {
			continue
		}
		if words[4] == "0" {
			return file{}, true
		}
		return file{device: words[3], inode: words[4]}, true
	}
	return file{}, false
}

// entry returns where the program begins, in the auxiliary vector that the
// kernel gave it, getauxval(3); 0 when it does not say.
func entry(auxv []byte) uint64 {
	const atEntry = 9
	for ; len(auxv) >= 16; auxv = auxv[16:] {
		if binary.NativeEndian.Uint64(auxv) == atEntry {
			return binary.NativeEndian.Uint64(auxv[8:])
		}
	}
	return 0
}
