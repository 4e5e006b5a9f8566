// Package sockopt sets and reads the options of TCP sockets that package net has
// no method for. Where a system has no such option, the error is
// [errors.ErrUnsupported].
package sockopt

import "syscall"

// control calls f with the descriptor and returns the first error.
func control(conn syscall.RawConn, f func(fd uintptr) error) error {
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = f(fd) }); err != nil {
		return err
	}
	return failed
}
