//go:build linux

package run

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run/launch"
)

// message is what the processes tell each other; one field is set, or Started
// with State.
type message struct {
	Order     *order      // to the keeper: what to start
	State     *state      // what it takes to go on in the place of the sender; descriptors go with it
	Begun     bool        // to the front, with a descriptor of the program: it runs already
	Started   *started    // to the front, with that and all of State
	Failed    *failure    // the same: nothing was started
	Stopped   unix.Signal // the same: the program was stopped by it
	Continued bool        // the same, and back: it is understood
	Ended     *ended      // to the front
}

type order struct {
	launch.Order // the keeper leaves the session where the group is 0
	Via          Way
	All          bool
	Report       bool
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

// wire is one end of a wire for messages.
type wire struct{ launch.Wire }

// send sends a message, with copies of descriptors.
func (w *wire) send(m message, fds ...int) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(data) > mostMessage {
		return fmt.Errorf("a message of %d bytes, of %d at most", len(data), mostMessage)
	}
	return w.Send(data, fds...)
}

// receive returns the next message and the descriptors that came with it, which
// the caller must close. They are no os.Files: as such they would be watched, and
// each question to the stub would wake all who have its sockets. The error is io.EOF when the other end is gone.
func (w *wire) receive() (m message, fds []int, err error) {
	data, rights := make([]byte, mostMessage), make([]byte, unix.CmsgSpace(4*mostFiles))
	var n, oobn int
	for {
		n, oobn, _, _, err = unix.Recvmsg(w.FD, data, rights, unix.MSG_CMSG_CLOEXEC)
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
