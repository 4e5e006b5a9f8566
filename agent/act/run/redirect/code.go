//go:build linux

package redirect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

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

// trusted is how long a thread is taken to be of the same program as before. If
// it has executed another one meanwhile whose library calls from the very address,
// that is answered as if it were its own code, which does no harm.
const trusted = time.Second

// code is what makes a system call.
type code struct {
	own     bool   // the program's, and not a library's
	program string // the path of its executable
}

// place is an address in processes of one executable.
type place struct {
	dev, inode uint64
	ctime      unix.Timespec
	ip         uint64
}

// caller is an address in a thread.
type caller struct {
	tid int
	ip  uint64
}

// places remembers whose code is where.
type places struct {
	mu      sync.Mutex
	seen    map[place]code
	callers map[caller]recent
}

type recent struct {
	code
	until time.Time
}

// of says whose the code at ip is. Code that no file has, such as a packed
// executable's, is the program's own.
func (p *places) of(tid int, ip uint64) (code, error) {
	now, who := time.Now(), caller{tid, ip}
	p.mu.Lock()
	last, ok := p.callers[who]
	p.mu.Unlock()
	if ok && now.Before(last.until) {
		return last.code, nil
	}
	c, err := p.look(tid, ip)
	if err != nil {
		return c, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.callers == nil || len(p.callers) >= mostPlaces {
		p.callers = make(map[caller]recent)
	}
	p.callers[who] = recent{c, now.Add(trusted)}
	return c, nil
}

func (p *places) look(tid int, ip uint64) (code, error) {
	var exe unix.Stat_t
	if err := unix.Stat(proc(tid, "exe"), &exe); err != nil {
		return code{}, err
	}
	here := place{exe.Dev, exe.Ino, exe.Ctim, ip}
	p.mu.Lock()
	c, ok := p.seen[here]
	p.mu.Unlock()
	if ok {
		return c, nil
	}
	own, err := belongs(tid, ip)
	if err != nil {
		return code{}, err
	}
	c = code{own, executable(tid)}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == nil || len(p.seen) >= mostPlaces {
		p.seen = make(map[place]code)
	}
	p.seen[here] = c
	return c, nil
}

// belongs reports that the code at ip is of the file that the program began in.
func belongs(tid int, ip uint64) (bool, error) {
	maps, err := readAtMost(proc(tid, "maps"), mostMaps)
	if err != nil {
		return false, err
	}
	auxv, err := readAtMost(proc(tid, "auxv"), 1<<12)
	if err != nil {
		return false, err
	}
	at, ok := mapping(maps, ip)
	if !ok {
		return false, errors.New("the code that asks is in no mapping")
	}
	program, ok := mapping(maps, entry(auxv))
	return at == (file{}) || ok && at == program, nil
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
