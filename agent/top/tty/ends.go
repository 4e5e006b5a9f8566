package tty

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// escapeTime is how long the rest of a sequence may take to come.
const escapeTime = 50 * time.Millisecond

// readKeys hands over each key until ctx ends. That nothing comes any more is an
// error.
func readKeys(ctx context.Context, from *os.File, press func(key)) error {
	wake, waker, err := os.Pipe()
	if err != nil {
		return err
	}
	defer wake.Close()
	stop := context.AfterFunc(ctx, func() { waker.Close() })
	defer func() {
		if stop() {
			waker.Close()
		}
	}()
	var typed []byte
	buf := make([]byte, 1024)
	fds := []unix.PollFd{{Fd: int32(from.Fd()), Events: unix.POLLIN}, {Fd: int32(wake.Fd()), Events: unix.POLLIN}}
	for {
		wait := -1
		if len(typed) > 0 {
			wait = int(escapeTime / time.Millisecond)
		}
		n, err := unix.Poll(fds, wait)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case ctx.Err() != nil:
			return nil
		case n > 0:
			if n, err = unix.Read(int(fds[0].Fd), buf); errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
				continue
			}
			if err != nil || n == 0 {
				return fmt.Errorf("nothing comes any more: %w", err)
			}
			typed = append(typed, buf[:n]...)
		}
		for len(typed) > 0 {
			k, size := decode(typed, n == 0)
			if size == 0 {
				break
			}
			typed = typed[size:]
			if k.name != "" || k.paste {
				press(k)
			}
		}
	}
}

// line is the line to a terminal, as it was found.
type line struct {
	fd     int
	before *unix.Termios
}

func lineOf(f *os.File) (line, error) {
	before, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return line{}, fmt.Errorf("this is no terminal: %w", err)
	}
	return line{int(f.Fd()), before}, nil
}

// raw makes keys come one by one and as they are. What is written is changed as
// before: a new line begins at the left.
func (l *line) raw() error {
	t := *l.before
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Oflag |= unix.OPOST | unix.ONLCR
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(l.fd, unix.TCSETS, &t)
}

// restore makes it as it was. What was typed and not read is for nobody: it may
// be an answer of the terminal.
func (l *line) restore() {
	_ = unix.IoctlSetInt(l.fd, unix.TCFLSH, unix.TCIFLUSH) // both fail where it is gone
	_ = unix.IoctlSetTermios(l.fd, unix.TCSETS, l.before)
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
