package sftp

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"time"
)

// Types of packets (draft-ietf-secsh-filexfer-02, section 3).
const (
	kindInit          = 1
	kindVersion       = 2
	kindOpen          = 3
	kindClose         = 4
	kindRead          = 5
	kindWrite         = 6
	kindLstat         = 7
	kindFstat         = 8
	kindSetstat       = 9
	kindFsetstat      = 10
	kindOpendir       = 11
	kindReaddir       = 12
	kindRemove        = 13
	kindMkdir         = 14
	kindStat          = 17
	kindRename        = 18
	kindReadlink      = 19
	kindSymlink       = 20
	kindStatus        = 101
	kindHandle        = 102
	kindData          = 103
	kindName          = 104
	kindAttrs         = 105
	kindExtended      = 200
	kindExtendedReply = 201
)

// Flags of open (section 6.3).
const (
	openRead   = 0x01
	openWrite  = 0x02
	openCreate = 0x08
	openExcl   = 0x20
)

// Flags of attributes (section 5).
const (
	attrSize  = 0x01
	attrOwner = 0x02
	attrPerm  = 0x04
	attrTimes = 0x08
	attrExtra = 0x80000000
)

// packet is one that is being made: its length comes first.
type packet []byte

func newPacket(buf []byte, kind byte, id uint32) packet {
	return packet(append(buf[:0], 0, 0, 0, 0, kind)).uint32(id)
}

func (p packet) uint32(n uint32) packet { return binary.BigEndian.AppendUint32(p, n) }
func (p packet) uint64(n uint64) packet { return binary.BigEndian.AppendUint64(p, n) }
func (p packet) string(s string) packet { return append(p.uint32(uint32(len(s))), s...) }

func (p packet) attrs(a attrs) packet {
	p = p.uint32(a.flags)
	if a.flags&attrSize != 0 {
		p = p.uint64(a.size)
	}
	if a.flags&attrPerm != 0 {
		p = p.uint32(a.mode)
	}
	if a.flags&attrTimes != 0 {
		p = p.uint32(a.atime).uint32(a.mtime)
	}
	return p
}

// sealed writes the length.
func (p packet) sealed() []byte {
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
}

// reader takes an answer apart. After it came to the end of what there is, all
// is zero, and short says so.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) take(n uint32) []byte {
	if uint64(n) > uint64(len(r.rest)) {
		r.rest, r.short = nil, true
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) string() string { return string(r.take(r.uint32())) }

// attrs are what is known of a file (section 5).
type attrs struct {
	flags        uint32
	size         uint64
	mode         uint32 // type and permissions as in struct stat of Linux
	atime, mtime uint32
}

func (r *reader) attrs() (a attrs) {
	a.flags = r.uint32()
	if a.flags&attrSize != 0 {
		a.size = r.uint64()
	}
	if a.flags&attrOwner != 0 {
		r.take(8)
	}
	if a.flags&attrPerm != 0 {
		a.mode = r.uint32()
	}
	if a.flags&attrTimes != 0 {
		a.atime, a.mtime = r.uint32(), r.uint32()
	}
	if a.flags&attrExtra != 0 {
		for n := r.uint32(); n > 0 && !r.short; n-- {
			r.take(r.uint32())
			r.take(r.uint32())
		}
	}
	return a
}

// kind returns the type of a file, in the words of package fs. Of a file whose
// type the server does not say it is that of something irregular.
func (a attrs) kind() fs.FileMode {
	if a.flags&attrPerm == 0 {
		return fs.ModeIrregular
	}
	switch a.mode & 0o170000 {
	case 0o100000:
		return 0
	case 0o040000:
		return fs.ModeDir
	case 0o120000:
		return fs.ModeSymlink
	}
	return fs.ModeIrregular
}

func (a attrs) perm() fs.FileMode  { return fs.FileMode(a.mode & 0o777) }
func (a attrs) modTime() time.Time { return time.Unix(int64(a.mtime), 0) }

// length returns the size of a file, as far as it can be one.
func (a attrs) length() int64 { return int64(min(a.size, 1<<62)) }

// entry is a name in a directory.
type entry struct {
	name  string
	attrs attrs
}

// entries reads the answer to readdir.
func (r *reader) entries() (found []entry) {
	for n := r.uint32(); n > 0 && !r.short; n-- {
		name := r.string()
		r.take(r.uint32()) // as ls -l has it
		found = append(found, entry{name, r.attrs()})
	}
	return found
}

// StatusError is a refusal of the server's.
type StatusError struct {
	Code    uint32 // of draft-ietf-secsh-filexfer-02, section 7
	Message string // as the server said it: do not print it to a terminal
}

const (
	statusOK          = 0
	statusEOF         = 1
	statusNoFile      = 2
	statusPermission  = 3
	statusFailure     = 4
	statusUnsupported = 8
)

var statusTexts = map[uint32]string{
	statusEOF: "end of file", statusNoFile: "no such file", statusPermission: "permission denied", statusFailure: "it failed",
	5: "bad message", 6: "no connection", 7: "connection lost", statusUnsupported: "it does not know how",
}

func (e *StatusError) Error() string {
	text := statusTexts[e.Code]
	if text == "" {
		text = fmt.Sprintf("status %d", e.Code)
	}
	if e.Message == "" {
		return "the server says: " + text
	}
	return fmt.Sprintf("the server says: %s (%.200q)", text, e.Message)
}

// Is knows what [fs.ErrNotExist] and [fs.ErrPermission] are here.
func (e *StatusError) Is(target error) bool {
	return e.Code == statusNoFile && target == fs.ErrNotExist || e.Code == statusPermission && target == fs.ErrPermission
}
