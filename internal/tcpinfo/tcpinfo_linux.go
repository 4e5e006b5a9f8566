package tcpinfo

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const stateClose = 7 // TCP_CLOSE of include/net/tcp_states.h

// Read returns what the kernel knows. It does not wait. The error is that of a
// connection which this process has closed.
func Read(conn syscall.RawConn) (Info, error) {
	var (
		info   *unix.TCPInfo
		failed error
	)
	err := conn.Control(func(fd uintptr) {
		info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if err != nil {
		return Info{}, err
	}
	if failed != nil {
		return Info{}, failed
	}
	return Info{
		Closed:      info.State == stateClose,
		LastAck:     time.Duration(info.Last_ack_recv) * time.Millisecond,
		LastData:    time.Duration(min(info.Last_data_sent, info.Last_data_recv)) * time.Millisecond,
		Unacked:     info.Unacked,
		Unsent:      info.Notsent_bytes,
		Retransmits: info.Retransmits,
		Probes:      info.Probes,
		Resent:      info.Total_retrans,
		Window:      info.Snd_wnd,
	}, nil
}

// Unacknowledged returns how many bytes were written and have not been
// acknowledged, whether they were sent or not; an end of the stream counts as
// one. It is cheaper than [Read].
func Unacknowledged(conn syscall.RawConn) (bytes int, err error) {
	var failed error
	err = conn.Control(func(fd uintptr) {
		bytes, failed = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	})
	if err == nil {
		err = failed
	}
	return bytes, err
}

// Supported reports whether this system has what the package reads.
func Supported() bool { return true }
