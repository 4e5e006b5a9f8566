package sockdiag

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Samples is how many parts [Sample] knows.
const Samples = 8

// The ports of the parts, in stripes, as a kernel gives ports out one after the
// other. One end of most connections has one of these: ip_local_port_range begins
// with 32768 by default.
const (
	sampledPorts = 32768
	stripes      = 8
	stripe       = (65536 - sampledPorts) / stripes
	portsEach    = stripe / Samples
)

// Sample is [Read] for one part of the TCP connections that are in use: those
// of which either end has a port of part, 0 to Samples-1. All parts together
// have all connections with a port from 32768 on, one with two such ports twice.
//
// It is for who looks often for what will show on many connections: the kernel
// fills in only what is asked for, so a part costs little more than its share.
func Sample(dst []fact.Socket, netns uint32, part int) ([]fact.Socket, error) {
	r := &reader{sockets: dst, netns: netns, dump: dump}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	q := query{"tcp", fact.FamilyUnknown, sampleRequest(part), (*reader).tcp}
	if err := r.query(q, buf[:]); err != nil {
		return r.sockets, &Error{Protocol: q.protocol, Family: q.family, Err: err}
	}
	return r.sockets, nil
}

// sampleRequest is tcpRequest with a program that takes the ports of a part,
// source or destination (inet_diag_bc_run in net/ipv4/inet_diag.c).
func sampleRequest(part int) []byte {
	const (
		states    = headerLen + 52
		attribute = 1 // INET_DIAG_REQ_BYTECODE
		length    = 2 * stripes * rangeLen
	)
	b := tcpRequest()
	binary.NativeEndian.PutUint32(b[states:], 1<<fact.Established|1<<fact.CloseWait)
	b = binary.NativeEndian.AppendUint16(b, unix.SizeofNlAttr+length)
	b = binary.NativeEndian.AppendUint16(b, attribute)
	for left := 2 * stripes; left > 0; left-- {
		low := uint16(sampledPorts + (left-1)/2*stripe + part%Samples*portsEach)
		b = appendRange(b, left%2 == 0, low, left-1)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

// rangeLen is what one range takes: two comparisons, each with the port in an
// instruction of its own, and a jump.
const rangeLen = 5 * 4

// appendRange appends: when the port is one of the range, jump over the ranges
// that are left to the end, which means yes; else go on with the next. After the
// last that is one instruction past the end, which means no.
func appendRange(b []byte, source bool, low uint16, left int) []byte {
	const jump, sourceFrom, sourceTo, destFrom, destTo = 1, 2, 3, 4, 5 // INET_DIAG_BC_*
	from, to := byte(sourceFrom), byte(sourceTo)
	if !source {
		from, to = destFrom, destTo
	}
	next := uint16(rangeLen)
	if left == 0 {
		next += 4
	}
	instruction := func(code, yes byte, no uint16) {
		b = binary.NativeEndian.AppendUint16(append(b, code, yes), no)
	}
	instruction(from, 8, next)
	instruction(0, 0, low)
	instruction(to, 8, next-8)
	instruction(0, 0, low+portsEach-1)
	instruction(jump, 4, uint16(4+left*rangeLen))
	return b
}
