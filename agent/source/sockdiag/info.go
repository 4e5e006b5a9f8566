package sockdiag

import (
	"encoding/binary"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Where the fields of struct tcp_info of linux/tcp.h are. The kernel only ever
// adds to its end, so how much of it came tells which fields the kernel has.
const (
	infoRetransmits     = int(unsafe.Offsetof(unix.TCPInfo{}.Retransmits))
	infoProbes          = int(unsafe.Offsetof(unix.TCPInfo{}.Probes))
	infoBackoff         = int(unsafe.Offsetof(unix.TCPInfo{}.Backoff))
	infoRTO             = int(unsafe.Offsetof(unix.TCPInfo{}.Rto))
	infoUnacked         = int(unsafe.Offsetof(unix.TCPInfo{}.Unacked))
	infoLastSent        = int(unsafe.Offsetof(unix.TCPInfo{}.Last_data_sent))
	infoLastReceived    = int(unsafe.Offsetof(unix.TCPInfo{}.Last_data_recv))
	infoLastAck         = int(unsafe.Offsetof(unix.TCPInfo{}.Last_ack_recv))
	infoRTT             = int(unsafe.Offsetof(unix.TCPInfo{}.Rtt))
	infoTotalRetransmit = int(unsafe.Offsetof(unix.TCPInfo{}.Total_retrans))
	infoBytesAcked      = int(unsafe.Offsetof(unix.TCPInfo{}.Bytes_acked))
	infoBytesReceived   = int(unsafe.Offsetof(unix.TCPInfo{}.Bytes_received))
	infoNotSent         = int(unsafe.Offsetof(unix.TCPInfo{}.Notsent_bytes))
	infoSegmentsIn      = int(unsafe.Offsetof(unix.TCPInfo{}.Data_segs_in))
	infoSegmentsOut     = int(unsafe.Offsetof(unix.TCPInfo{}.Data_segs_out))
	infoSendWindow      = int(unsafe.Offsetof(unix.TCPInfo{}.Snd_wnd))
)

// infoSmallest is the struct tcp_info of Linux 2.6, which every field that is
// not a fact.Known lies in, save one: the bytes not sent, Linux 4.6.
const infoSmallest = infoTotalRetransmit + 4

// parseInfo fills c from a struct tcp_info of at least infoSmallest bytes.
func parseInfo(c *fact.Conn, b []byte) {
	_ = b[infoSmallest-1]
	c.Retransmits = b[infoRetransmits]
	c.Probes = b[infoProbes]
	c.Backoff = b[infoBackoff]
	c.RTO = times(b[infoRTO:], time.Microsecond)
	c.Unacked = binary.NativeEndian.Uint32(b[infoUnacked:])
	c.LastSent = times(b[infoLastSent:], time.Millisecond)
	c.LastReceived = times(b[infoLastReceived:], time.Millisecond)
	c.LastAck = times(b[infoLastAck:], time.Millisecond)
	c.RTT = times(b[infoRTT:], time.Microsecond)
	c.TotalRetransmit = binary.NativeEndian.Uint32(b[infoTotalRetransmit:])

	c.Acked = field64(b, infoBytesAcked)
	c.Received = field64(b, infoBytesReceived)
	c.NotSent = field32(b, infoNotSent).Value
	c.SegmentsIn = field32(b, infoSegmentsIn)
	c.SegmentsOut = field32(b, infoSegmentsOut)
	c.SendWindow = field32(b, infoSendWindow)
}

func times(b []byte, unit time.Duration) time.Duration {
	return time.Duration(binary.NativeEndian.Uint32(b)) * unit
}

func field32(b []byte, at int) fact.Known[uint32] {
	if len(b) < at+4 {
		return fact.Known[uint32]{}
	}
	return fact.Seen(binary.NativeEndian.Uint32(b[at:]))
}

func field64(b []byte, at int) fact.Known[uint64] {
	if len(b) < at+8 {
		return fact.Known[uint64]{}
	}
	return fact.Seen(binary.NativeEndian.Uint64(b[at:]))
}
