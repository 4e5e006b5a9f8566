package lifeline

import (
	"errors"
	"syscall"
)

// errSilent is what the system says of a peer that does not answer.
const errSilent = wsaETIMEDOUT

// Of the errors of Windows Sockets that package syscall has no name for.
const (
	wsaEMFILE       syscall.Errno = 10024
	wsaENETRESET    syscall.Errno = 10052 // keepalive found a failure
	wsaETIMEDOUT    syscall.Errno = 10060
	wsaEHOSTUNREACH syscall.Errno = 10065
)

// isExhausted reports whether the process may open no more sockets.
func isExhausted(err error) bool { return errors.Is(err, wsaEMFILE) }

// kindOf returns what an error of an open connection is about, nil for the end
// of the stream, deadlines, and the like. Windows also says WSAECONNABORTED of
// data that stayed unacknowledged, and nobody can cut a connection there.
func kindOf(err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return nil
	}
	switch errno {
	case wsaETIMEDOUT, wsaENETRESET, wsaEHOSTUNREACH, syscall.WSAECONNABORTED:
		return ErrSilent
	case syscall.WSAECONNRESET:
		return ErrReset
	}
	return nil
}
