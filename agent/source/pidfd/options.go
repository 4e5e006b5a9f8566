// Package pidfd reads the keepalive and user timeout of TCP sockets without
// BPF: it borrows each socket from a process that owns it, pidfd_getfd(2), and
// asks the socket itself.
//
// It needs Linux 5.6 and the right to trace the owner, and costs microseconds
// for each socket; the package bpf reads the same from all at once.
package pidfd

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Options fills in the options of TCP connections that have owners and no
// options yet, and returns what it could not see. It stops when ctx ends. It holds two
// file descriptors at a time, however many sockets there are.
//
// The times are those in force: what the program has not set is that of the
// sysctl, where the package bpf reports zero. A user timeout of zero means
// none.
//
// A socket that was closed since the look at it is not a blind spot; its
// options stay unknown. A close by its program takes effect when the loan
// ends, a few microseconds later.
func Options(ctx context.Context, sockets []fact.Socket) []fact.Blind {
	var b blindness
	for loans := wanted(sockets); len(loans) > 0; {
		slices.SortFunc(loans, func(a, b loan) int { return cmp.Compare(a.owner().PID, b.owner().PID) })
		var again []loan
		for len(loans) > 0 {
			n := 1
			for n < len(loans) && loans[n].owner().PID == loans[0].owner().PID {
				n++
			}
			again = append(again, b.process(ctx, loans[:n])...)
			loans = loans[n:]
		}
		loans = again
	}
	return b.report()
}

// loan is a socket to borrow from one of its owners.
type loan struct {
	socket *fact.Socket
	from   int
}

func (l loan) owner() fact.Owner { return l.socket.Owners[l.from] }

func wanted(sockets []fact.Socket) []loan {
	var loans []loan
	for i := range sockets {
		s := &sockets[i]
		if s.Protocol == fact.TCP && s.State != fact.Listen && !s.Options.OK && len(s.Owners) > 0 {
			loans = append(loans, loan{socket: s})
		}
	}
	return loans
}

// process takes loans from one process, and returns those to try again with
// the next owner of the socket.
func (b *blindness) process(ctx context.Context, loans []loan) (again []loan) {
	failed := ctx.Err()
	var process int
	if failed == nil {
		process, failed = unix.PidfdOpen(int(loans[0].owner().PID), 0)
	}
	if failed == nil {
		defer unix.Close(process)
	}
	for _, l := range loans {
		if failed == nil {
			failed = ctx.Err()
		}
		err := failed
		if err == nil {
			err = l.take(process)
		}
		if err == nil {
			continue
		}
		if err == unix.EPERM {
			failed = err // the right is to the process, so the others fail too
		}
		if l.from+1 < len(l.socket.Owners) && ctx.Err() == nil {
			again = append(again, loan{l.socket, l.from + 1})
			continue
		}
		b.add(l, err)
	}
	return again
}

// errOther says that the descriptor refers to another file by now.
var errOther = errors.New("the descriptor refers to another file")

// gone says whether the owner has let go of the socket since it was seen.
func gone(err error) bool {
	return err == errOther || err == unix.EBADF || err == unix.ESRCH
}

// take borrows the socket through the pidfd of its owner and fills in its
// options.
//
// It is known by the inode, as it was when it was joined to its owner: a
// descriptor of an MPTCP socket has the inode of the TCP socket below it, but
// not its cookie. If the program closes it during the loan, ours is the last
// close and does what that would have done, SO_LINGER included.
func (l loan) take(process int) error {
	fd, err := unix.PidfdGetfd(process, int(l.owner().FD), 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFSOCK || uint32(stat.Ino) != l.socket.Inode {
		return errOther
	}
	options, err := read(fd)
	if err != nil {
		return err
	}
	l.socket.Options = fact.Seen(options)
	return nil
}
