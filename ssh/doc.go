// Package ssh is an SSH client whose every call returns.
//
// An SSH connection fails in ways that golang.org/x/crypto/ssh, on which this
// package is built, waits through for ever: a host that reboots, a server that
// is frozen while its kernel acknowledges, one that never sends its version, a
// channel that is never confirmed, a command whose child keeps its output open.
// Here
//
//	every call returns within the least of: its context, its own budget
//	([Budgets]), and the liveness bound ([Liveness].Silence).
//
// [Client.Bound] states these times for a client. The error, an [*Error], says
// in which phase the call was, what ended it, and whether the command may have
// run. A call that gives up while the server lives abandons its own channel and
// nothing else: the connection, and other commands on it, go on.
//
//	client, err := ssh.Dial(ctx, "web1", ssh.Config{User: "admin", Auth: auth, HostKey: hostKey})
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	out, err := client.Command("uname -r").Output(ctx)
//
//	var failed *ssh.Error
//	switch {
//	case errors.Is(err, ssh.ErrSilent): // the server is dead, frozen or cut off; the client too is of no more use
//	case errors.Is(err, context.DeadlineExceeded): // ctx or a budget ran out; the client can be used on
//	case errors.As(err, &failed) && failed.Fate == ssh.NotSent: // nothing has run: safe to try again
//	}
//
// # How it is kept
//
// Every call into x/crypto runs in a goroutine of its own, and what waits for it
// waits for the context, the budget and the end of the connection as well. There
// is one way to end a connection: closing its net.Conn, which needs no lock
// that a stuck call may hold, and frees them all.
//
// Any byte from the server is life. When there was none for
// [Liveness].Interval, the server is asked by one keepalive@openssh.com, one at
// a time, and whatever comes next is an answer, a refusal too. When there was
// none for [Liveness].Silence the connection is ended. The time runs only while
// this process does: one that was stopped asks again before it judges. A server
// that does not read what it is sent for so long cannot answer either, and is
// given up. A slow reader of output on this side is not silence: its command
// waits, and the connection lives.
//
// # What is not promised
//
// A function of the caller that does not return (a callback, a Reader given as
// Stdin, a Writer given as Stdout) does not keep a call from returning, but
// keeps its own goroutine until it returns. A net.Conn given to [NewClient] must
// unblock its Read and Write when closed. Closing a channel does not end the
// remote process. A command that is given up is sent SIGTERM and SIGKILL, which
// servers may ignore: OpenSSH passes no signals on where the user is root. With a
// [Pty] the process is hung up. After [Client.Close] nothing else is left.
package ssh
