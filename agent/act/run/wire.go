//go:build linux

package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// message is what the processes tell each other; one field is set, or Started
// with State.
type message struct {
	Order     *order      // to the keeper: what to start
	State     *state      // what it takes to go on in the place of the sender; descriptors go with it
	Started   *started    // to the front
	Failed    *failure    // the same: nothing was started
	Stopped   unix.Signal // the same: the program was stopped by it
	Continued bool        // the same, and back: it is understood
	Ended     *ended      // to the front
}

type order struct {
	Via    Way
	All    bool
	Report bool
	Path   string
	Group  int // that the program goes to; 0 is that of the keeper, which leaves the session then
}

type started struct {
	Way Way
	Why string // why it is not seccomp
}

type failure struct {
	Text        string
	Errno       unix.Errno // of the system call that failed
	Unsupported bool       // by this machine; else by the program
}

type ended struct {
	Wait   unix.WaitStatus
	Report Report
}

const (
	mostMessage = 64 << 10
	mostFiles   = 16
)

// wire connects two of the processes. Nothing is known of the end of a process
// but that its end of the wire is closed.
type wire struct{ fd int }

// newWire returns both ends of a wire.
func newWire() (a, b *wire, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return &wire{fds[0]}, &wire{fds[1]}, nil
}

func (w *wire) close() { unix.Close(w.fd) }

// send sends a message, with copies of descriptors.
func (w *wire) send(m message, fds ...int) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(data) > mostMessage {
		return fmt.Errorf("a message of %d bytes, of %d at most", len(data), mostMessage)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(w.fd, data, rights, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// receive returns the next message and the descriptors that came with it, which
// the caller must close. They are no os.Files: as such they would be watched, and
// each question to the stub would wake all who have its sockets. The error is io.EOF when the other end is gone.
func (w *wire) receive() (m message, fds []int, err error) {
	data, rights := make([]byte, mostMessage), make([]byte, unix.CmsgSpace(4*mostFiles))
	var n, oobn int
	for {
		n, oobn, _, _, err = unix.Recvmsg(w.fd, data, rights, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err == unix.ECONNRESET || err == nil && n == 0 {
		return m, nil, io.EOF
	}
	if err != nil {
		return m, nil, os.NewSyscallError("recvmsg", err)
	}
	if fds, err = received(rights[:oobn]); err != nil {
		return m, fds, err
	}
	return m, fds, json.Unmarshal(data[:n], &m)
}

func received(rights []byte) (fds []int, err error) {
	controls, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	for i := range controls {
		some, err := unix.ParseUnixRights(&controls[i])
		if err != nil {
			return fds, err
		}
		fds = append(fds, some...)
	}
	return fds, nil
}

var errNoOrder = errors.New("this is started by lifeline run only")
