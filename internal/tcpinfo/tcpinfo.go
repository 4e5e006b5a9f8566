// Package tcpinfo reads from the kernel how the peer of a TCP connection
// answers. Only Linux has all of it in one system call; elsewhere every
// function returns an error that is [errors.ErrUnsupported].
package tcpinfo

import "time"

// Info is the part of struct tcp_info of include/uapi/linux/tcp.h that tells a
// silent peer from a slow one.
type Info struct {
	Closed      bool          // the connection has ended: state TCP_CLOSE
	LastAck     time.Duration // since the last segment with an acceptable acknowledgement
	LastData    time.Duration // since data was last sent or received, or the connection was established
	Unacked     uint32        // segments sent and not acknowledged
	Unsent      uint32        // bytes written and not sent yet
	Retransmits uint8         // timeouts in a row that sent the oldest of them again
	Probes      uint8         // window or keepalive probes in a row that were not answered
	Resent      uint32        // segments sent again, over the life of the connection
	Window      uint32        // bytes that the peer is ready to receive, Linux 5.4 and later
}
