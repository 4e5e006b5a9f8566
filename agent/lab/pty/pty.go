// Package pty is a terminal with nobody at it, for tests: what a program draws on
// it can be read as text, and keys are typed by the test.
package pty

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Terminal is one. Use [Open], and Close in the end.
type Terminal struct {
	master *os.File
	path   string
	done   chan struct{}

	mu    sync.Mutex
	glass glass
	raw   []byte // all that was drawn
	news  chan struct{}
	held  chan struct{} // nothing is read while it is open; nil = it is read
}

// Open makes a terminal.
func Open(width, height int) (*Terminal, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	var number int
	err = control(master, func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, master.Close())
	}
	t := &Terminal{master: master, path: fmt.Sprintf("/dev/pts/%d", number), done: make(chan struct{}), news: make(chan struct{})}
	if err := t.Resize(width, height); err != nil {
		return nil, errors.Join(err, master.Close())
	}
	go t.read()
	return t, nil
}

// control runs f on the descriptor of a file, which stays as it is.
func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// Resize gives it another size; who draws on it is told by the kernel.
func (t *Terminal) Resize(width, height int) error {
	t.mu.Lock()
	t.glass.resize(width, height)
	t.mu.Unlock()
	return control(t.master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(height), Col: uint16(width)})
	})
}

// Side opens the side that programs have.
func (t *Terminal) Side() (*os.File, error) { return os.OpenFile(t.path, os.O_RDWR|unix.O_NOCTTY, 0) }

// Start starts a command on it, in a session of its own.
func (t *Terminal) Start(cmd *exec.Cmd) error {
	side, err := t.Side()
	if err != nil {
		return err
	}
	defer side.Close()
	if cmd.Stdin = side; cmd.Stdout == nil {
		cmd.Stdout = side
	}
	if cmd.Stderr == nil {
		cmd.Stderr = side
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	return cmd.Start()
}

// read takes what is drawn until Close.
func (t *Terminal) read() {
	defer close(t.done)
	buf := make([]byte, 32<<10)
	for {
		t.mu.Lock()
		held := t.held
		t.mu.Unlock()
		if held != nil {
			<-held
		}
		n, err := t.master.Read(buf)
		t.mu.Lock()
		t.raw = append(t.raw, buf[:n]...)
		t.glass.write(buf[:n])
		close(t.news)
		t.news = make(chan struct{})
		t.mu.Unlock()
		if errors.Is(err, unix.EIO) { // nobody has its other side open now
			time.Sleep(time.Millisecond) // there is nothing to wait for; Close makes it another error
			continue
		}
		if err != nil {
			return
		}
	}
}

// Type types keys. It is an error when nobody takes them for a second.
func (t *Terminal) Type(keys string) error {
	if err := t.master.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err := t.master.WriteString(keys)
	return err
}

// Hold stops taking what is drawn, as a terminal does whose user pressed ctrl+s,
// until Close.
func (t *Terminal) Hold() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held == nil {
		t.held = make(chan struct{})
	}
}

// Close takes the terminal away: the kernel hangs up on who uses it.
func (t *Terminal) Close() error {
	t.mu.Lock()
	if t.held != nil {
		close(t.held)
		t.held = nil
	}
	t.mu.Unlock()
	err := t.master.Close()
	<-t.done
	return err
}

// Settings are those of the line: what stty shows.
func (t *Terminal) Settings() (s *unix.Termios, err error) {
	err = control(t.master, func(fd int) error {
		s, err = unix.IoctlGetTermios(fd, unix.TCGETS)
		return err
	})
	return s, err
}

// Screen is what is on it, line by line, without blanks at the ends.
func (t *Terminal) Screen() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.glass.text()
}

// Raw is all that was ever drawn, as it came.
func (t *Terminal) Raw() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]byte(nil), t.raw...)
}

// Plain reports that it is as a shell has it: the main screen, with a cursor.
func (t *Terminal) Plain() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.glass.alt && !t.glass.hidden
}

// Unknown are sequences that were drawn and that this terminal does not know.
func (t *Terminal) Unknown() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.glass.unknown...)
}

// Until waits until what is on the screen fits. The error when late is closed
// first has the screen.
func (t *Terminal) Until(late <-chan struct{}, fits func(screen string) bool) error {
	for {
		t.mu.Lock()
		screen, news := t.glass.text(), t.news
		t.mu.Unlock()
		if fits(screen) {
			return nil
		}
		select {
		case <-news:
		case <-t.done:
			if screen = t.Screen(); fits(screen) {
				return nil
			}
			return fmt.Errorf("the terminal was closed, with this on it:\n%s", screen)
		case <-late:
			return fmt.Errorf("it took too long, with this on the screen:\n%s", screen)
		}
	}
}
