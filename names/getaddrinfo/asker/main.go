//go:build linux && (amd64 || arm64)

// Command asker calls getaddrinfo of the C library that it was loaded with, for
// the program that started it. It is linked dynamically without cgo, and package
// getaddrinfo carries it along; it is a module of its own so that nobody who
// uses that package depends on purego.
//
// Its standard input is one end of a pair of SEQPACKET sockets, on which each
// message is a question or an answer; numbers are little-endian:
//
//	question  id uint32, family '0' (any), '4' or '6', the name
//	answer    id uint32, what getaddrinfo returned int32, errno int32, and each
//	          address: a byte 4, and its 4 bytes; or a byte 6, its 16 bytes,
//	          and its scope uint32
//
// A question without a family asks for a sign of life; its answer is empty, and
// one more such answer, with id 0, says that the program has started. It ends
// when the other end is closed, which is also how it learns that its parent
// died.
package main

import (
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/ebitengine/purego"
)

const (
	socket  = 0
	program = 3 // the file it was loaded from, which nobody needs any more

	mostQuestion = 2 << 10
	mostAnswer   = 100 << 10 // what does not fit is left out: more than 4,000 addresses of each family

	prSetName = 15 // PR_SET_NAME of linux/prctl.h
)

// addrinfo is struct addrinfo of netdb.h, the same in glibc and musl.
type addrinfo struct {
	_                int32 // flags
	family, socktype int32
	_                int32  // protocol
	_                uint32 // length of addr
	addr             *syscall.RawSockaddrAny
	_                *byte // canonical name
	next             *addrinfo
}

// The C library. Both glibc and musl know it by this name.
var (
	getaddrinfo   func(node, service *byte, hints *addrinfo, res **addrinfo) int32
	freeaddrinfo  func(*addrinfo)
	errnoLocation func() *int32
)

func main() {
	name := []byte("lifeline-names\x00")
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&name[0])), 0)
	_ = syscall.Close(program)
	libc, err := purego.Dlopen("libc.so.6", purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	purego.RegisterLibFunc(&getaddrinfo, libc, "getaddrinfo")
	purego.RegisterLibFunc(&freeaddrinfo, libc, "freeaddrinfo")
	purego.RegisterLibFunc(&errnoLocation, libc, "__errno_location")
	// Threads spend their time in C. With few processors for Go, one that returns
	// would wait until the runtime takes one away from another.
	runtime.GOMAXPROCS(16)
	say(answer(nil, 0, 0, 0))
	work()
}

// idle is how many threads wait for a question.
var idle atomic.Int32

// work answers questions on a thread of its own, one after the other. There is
// always another thread that waits for the next one; that so few are asked at a
// time that threads do not become too many is up to who asks.
func work() {
	runtime.LockOSThread() // errno is the thread's
	in, out := make([]byte, mostQuestion), make([]byte, 0, 512)
	for {
		idle.Add(1)
		n, err := syscall.Read(socket, in)
		for err == syscall.EINTR {
			n, err = syscall.Read(socket, in)
		}
		if err != nil || n < 4 {
			os.Exit(0)
		}
		if idle.Add(-1) == 0 {
			go work()
		}
		id := uint32(in[0]) | uint32(in[1])<<8 | uint32(in[2])<<16 | uint32(in[3])<<24
		if n == 4 {
			out = answer(out[:0], id, 0, 0)
		} else {
			out = ask(out[:0], id, in[4], append(in[5:n], 0))
		}
		say(out)
	}
}

// ask asks for a stream socket, so that each address is told once, and without
// flags, as most programs do: AI_ADDRCONFIG would hide all that an isolated
// machine knows.
func ask(out []byte, id uint32, family byte, name []byte) []byte {
	hints := &addrinfo{socktype: syscall.SOCK_STREAM}
	switch family {
	case '4':
		hints.family = syscall.AF_INET
	case '6':
		hints.family = syscall.AF_INET6
	}
	var found *addrinfo
	if code := getaddrinfo(&name[0], nil, hints, &found); code != 0 {
		return answer(out, id, code, *errnoLocation())
	}
	out = answer(out, id, 0, 0)
	for a := found; a != nil && len(out) < mostAnswer; a = a.next {
		switch a.family {
		case syscall.AF_INET:
			in4 := (*syscall.RawSockaddrInet4)(unsafe.Pointer(a.addr))
			out = append(append(out, 4), in4.Addr[:]...)
		case syscall.AF_INET6:
			in6 := (*syscall.RawSockaddrInet6)(unsafe.Pointer(a.addr))
			out = number(append(append(out, 6), in6.Addr[:]...), in6.Scope_id)
		}
	}
	freeaddrinfo(found)
	return out
}

func answer(out []byte, id uint32, code, errno int32) []byte {
	return number(number(number(out, id), uint32(code)), uint32(errno))
}

func number(out []byte, n uint32) []byte {
	return append(out, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
}

// say sends one message. One that cannot be sent has nobody left to read it.
func say(message []byte) {
	for {
		if _, err := syscall.Write(socket, message); err != syscall.EINTR {
			return
		}
	}
}
