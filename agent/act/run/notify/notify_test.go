//go:build linux

package notify_test

import (
	"errors"
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run/notify"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// thread calls f on a thread that ends with it, which the first one does not.
func thread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and not unlocked
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			thread(f)
			return
		}
		f()
	}()
	<-done
}

// filtered calls f on a thread with the filter on it. All calls that the
// listener is told of fail with EOWNERDEAD.
func filtered(t *testing.T, filter notify.Filter, f func()) {
	t.Helper()
	var listener *notify.Listener
	var failed error
	var received sync.WaitGroup
	thread(func() {
		if listener, failed = filter.Install(); failed != nil {
			return
		}
		received.Go(func() {
			for {
				var c notify.Call
				if listener.Receive(&c) != nil {
					return
				}
				if !listener.Valid(c.ID) {
					t.Error("a call that was just received is not valid")
				}
				listener.Return(c.ID, unix.EOWNERDEAD)
			}
		})
		f()
	})
	need.Feature(t, "seccomp user notification", failed)
	if err := listener.WaitUnused(); err != nil {
		t.Error(err)
	}
	if !listener.Unused() {
		t.Error("the listener does not know that its thread is gone")
	}
	received.Wait()
	listener.Close()
}

func call(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	_, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	return errno
}

// The filter tells of what it should, and of nothing else.
func TestFilter(t *testing.T) {
	var address [128]byte
	at := uintptr(unsafe.Pointer(&address))
	const nobody = ^uintptr(0) // no descriptor: the kernel says EBADF when it is let by
	tests := []struct {
		name string
		told bool
		nr   uintptr
		args []uintptr
	}{
		{"connect to IPv4", true, unix.SYS_CONNECT, []uintptr{nobody, at, 16}},
		{"connect to IPv6 without a scope", true, unix.SYS_CONNECT, []uintptr{nobody, at, 24}},
		{"connect to IPv6", true, unix.SYS_CONNECT, []uintptr{nobody, at, 28}},
		{"connect with sockaddr_storage", true, unix.SYS_CONNECT, []uintptr{nobody, at, 128}},
		{"connect to a unix socket", false, unix.SYS_CONNECT, []uintptr{nobody, at, 110}},
		{"connect to netlink", false, unix.SYS_CONNECT, []uintptr{nobody, at, 12}},
		{"sendto as musl asks", true, unix.SYS_SENDTO, []uintptr{nobody, at, 30, unix.MSG_NOSIGNAL, at, 16}},
		{"the same, IPv6", true, unix.SYS_SENDTO, []uintptr{nobody, at, 30, unix.MSG_NOSIGNAL, at, 28}},
		{"sendto with other flags", false, unix.SYS_SENDTO, []uintptr{nobody, at, 30, 0, at, 16}},
		{"sendto of much", false, unix.SYS_SENDTO, []uintptr{nobody, at, 513, unix.MSG_NOSIGNAL, at, 16}},
		{"send", false, unix.SYS_SENDTO, []uintptr{nobody, at, 30, unix.MSG_NOSIGNAL, 0, 0}},
		{"recvfrom", false, unix.SYS_RECVFROM, []uintptr{nobody, at, 30, 0, at, at}},
		{"sendmsg", false, unix.SYS_SENDMSG, []uintptr{nobody, at, 0}},
		{"io_uring_setup", false, unix.SYS_IO_URING_SETUP, []uintptr{0, 0}},
	}
	filtered(t, notify.Filter{}, func() {
		for _, test := range tests {
			if told := errors.Is(call(test.nr, test.args...), unix.EOWNERDEAD); told != test.told {
				t.Errorf("%s: told is %v", test.name, told)
			}
		}
	})
	filtered(t, notify.Filter{Notice: true}, func() {
		for _, nr := range []uintptr{unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_IO_URING_SETUP, unix.SYS_CONNECT} {
			if err := call(nr, nobody, at, 16); !errors.Is(err, unix.EOWNERDEAD) {
				t.Errorf("system call %d is not told of: %v", nr, err)
			}
		}
	})
}

// A second listener is refused by a name that callers can tell.
func TestBusy(t *testing.T) {
	filtered(t, notify.Filter{}, func() {
		if _, err := (notify.Filter{}).Install(); !errors.Is(err, unix.EBUSY) {
			t.Errorf("the error is %v, want EBUSY", err)
		}
	})
}
