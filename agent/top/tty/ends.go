package tty

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// inlet is where keys come from. It says when nothing comes any more.
type inlet struct {
	*os.File
	gone func()
}

// Read implements io.Reader.
func (i *inlet) Read(p []byte) (int, error) {
	n, err := i.File.Read(p)
	if err != nil {
		i.gone()
	}
	return n, err
}

// outlet is where is drawn: the terminal, opened once more, so that a write to it
// can be given up. Where that may not be, it is the terminal as it was given.
type outlet struct {
	file *os.File
	own  bool
	gone func()
}

func openOutlet(f *os.File, gone func()) *outlet {
	again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return &outlet{f, false, gone}
	}
	if again.SetWriteDeadline(time.Time{}) != nil { // it would be no better
		_ = again.Close() // nothing was written to it
		return &outlet{f, false, gone}
	}
	return &outlet{again, true, gone}
}

// hurry gives what is written from now on a bound.
func (o *outlet) hurry() {
	if o.own {
		_ = o.file.SetWriteDeadline(time.Now().Add(patience)) // it could be set before
	}
}

func (o *outlet) close() {
	if o.own {
		_ = o.file.Close() // what was written is written
	}
}

// Write implements io.Writer.
func (o *outlet) Write(p []byte) (int, error) {
	n, err := o.file.Write(p)
	if err != nil {
		o.gone()
	}
	return n, err
}

// Read implements io.Reader.
func (o *outlet) Read(p []byte) (int, error) { return o.file.Read(p) }

// Close does nothing: whoever opened it closes it.
func (o *outlet) Close() error { return nil }

// Fd is the descriptor, and leaves it as it is: that of os.File would make writes
// wait for ever again.
func (o *outlet) Fd() (fd uintptr) {
	raw, err := o.file.SyscallConn()
	if err != nil {
		return ^uintptr(0)
	}
	_ = raw.Control(func(f uintptr) { fd = f }) // fails when it is closed, and nobody asks then
	return fd
}
