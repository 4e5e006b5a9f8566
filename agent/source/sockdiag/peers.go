package sockdiag

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// MostPeers is how many peers [Want] takes.
const MostPeers = 64

// Of linux/inet_diag.h.
const (
	requestBytecode = 1 // INET_DIAG_REQ_BYTECODE

	bytecodeJump = 1 // INET_DIAG_BC_JMP
	bytecodePeer = 8 // INET_DIAG_BC_D_COND
)

// peersRequest is a [tcpRequest] with the program by which the kernel leaves out
// what is not connected to one of the peers, before it writes anything about it.
func peersRequest(wanted uint32, peers []netip.Addr) []byte {
	b := tcpRequest(wanted)
	program := peersProgram(peers)
	b = binary.NativeEndian.AppendUint16(b, uint16(attributeLen+len(program)))
	b = binary.NativeEndian.AppendUint16(b, requestBytecode)
	b = append(b, program...)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

// peersProgram takes a socket when the program ends exactly at its end, as
// inet_diag_bc_run of net/ipv4/inet_diag.c runs it. Each operation says how far to
// go on, when it holds and when not. A condition that holds goes on to the jump to
// the end that follows it, the last one, after which there is none, to the end; one
// that does not goes on behind that, and so beyond the end after the last.
//
// A condition for IPv4 also takes the IPv6 sockets that speak it.
func peersProgram(peers []netip.Addr) []byte {
	const operation, condition = 4, 8 // sizes of struct inet_diag_bc_op and inet_diag_hostcond
	var program []byte
	for i := len(peers) - 1; i >= 0; i-- { // each jump needs the length of what follows
		address := peers[i].Unmap().AsSlice()
		family := byte(unix.AF_INET6)
		if len(address) == 4 {
			family = unix.AF_INET
		}
		size := operation + condition + len(address)
		one := make([]byte, 0, size+operation+len(program))
		one = append(one, bytecodePeer, byte(size))
		one = binary.NativeEndian.AppendUint16(one, uint16(size+operation))
		one = append(one, family, byte(8*len(address)), 0, 0)
		one = append(one, 0xff, 0xff, 0xff, 0xff) // any port: -1
		one = append(one, address...)
		if len(program) > 0 {
			one = append(one, bytecodeJump, operation)
			one = binary.NativeEndian.AppendUint16(one, uint16(operation+len(program)))
		}
		program = append(one, program...)
	}
	return program
}
