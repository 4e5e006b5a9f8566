package sockdiag

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestWant(t *testing.T) {
	quiet(t, func(inode uint32) error {
		var fds closer
		defer fds.close()
		_, err := fds.listen(unix.AF_INET, loopback4, 1)
		for _, make := range []func() error{
			func() error { _, err := fds.bound(unix.AF_INET6, unix.SOCK_DGRAM, loopback6); return err },
			func() error { _, _, err := fds.pair(unix.SOCK_STREAM); return err },
		} {
			if err == nil {
				err = make()
			}
		}
		if err != nil {
			return err
		}
		for _, test := range []struct {
			want Want
			n    int
		}{{Want{}, 4}, {Want{TCP: true}, 1}, {Want{UDP: true}, 1}, {Want{Unix: true}, 2}, {Want{TCP: true, Unix: true}, 3}} {
			want, n := test.want, test.n
			before := []fact.Socket{{Inode: 1}}
			sockets, err := Read(before, inode, want)
			if err != nil || len(sockets) != 1+n || sockets[0].Inode != 1 {
				return fmt.Errorf("%+v: %d sockets, error %v", want, len(sockets)-1, err)
			}
			messages, bytes, err := Drain(want)
			if err != nil || messages != n || bytes < 16*n {
				return fmt.Errorf("drain %+v: %d messages, %d bytes, error %v", want, messages, bytes, err)
			}
		}
		return nil
	})
}

// TestMultipath: a subflow has the inode of the connection it belongs to, so
// the connection finds its owner.
func TestMultipath(t *testing.T) {
	const mptcp = 262 // IPPROTO_MPTCP, Linux 5.6
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, mptcp)
	need.Feature(t, "Multipath TCP", err)
	unix.Close(fd)
	quiet(t, func(inode uint32) error {
		var fds closer
		defer fds.close()
		listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, mptcp)
		if err != nil {
			return err
		}
		fds.fds = append(fds.fds, listener)
		client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, mptcp)
		if err != nil {
			return err
		}
		fds.fds = append(fds.fds, client)
		if err := errors.Join(unix.Bind(listener, loopback4), unix.Listen(listener, 1)); err != nil {
			return err
		}
		to, err := unix.Getsockname(listener)
		if err != nil {
			return err
		}
		if err := unix.Connect(client, to); err != nil {
			return err
		}
		server, err := fds.accept(listener)
		if err != nil {
			return err
		}
		sockets, err := Read(nil, inode, Want{TCP: true})
		if err != nil {
			return err
		}
		inodes := make(map[uint32]bool)
		for _, s := range sockets {
			inodes[s.Inode] = true
		}
		for name, fd := range map[string]int{"listener": listener, "client": client, "server": server} {
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err != nil {
				return err
			}
			if !inodes[uint32(st.Ino)] {
				t.Errorf("the %s, inode %d, is not among %v", name, st.Ino, inodes)
			}
		}
		return nil
	})
}

// TestMissingProtocol asks for a protocol that no kernel has a module for: it
// is named, and the others are still read.
func TestMissingProtocol(t *testing.T) {
	nobody := udpRequest(unix.AF_INET)
	nobody[headerLen+1] = 253 // for experimentation, RFC 3692
	buf := make([]byte, bufferSize)
	_, err := dump(nobody, buf, func([]byte) { t.Error("an answer") })
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Fatalf("got %v, want errors.ErrUnsupported", err)
	}

	r := &reader{dump: func(request, buf []byte, each func([]byte)) (int, error) {
		if string(request) == string(tcpRequest(allStates)) {
			request = nobody
		}
		return dump(request, buf, each)
	}}
	var fds closer
	defer fds.close()
	if _, _, err := fds.pair(unix.SOCK_STREAM); err != nil {
		t.Fatal(err)
	}
	err = each(Want{}, r.query)
	var failed *Error
	if !errors.As(err, &failed) || failed.Protocol != "tcp" || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v, want an Error for tcp that is errors.ErrUnsupported", err)
	}
	if len(r.sockets) < 2 {
		t.Errorf("%d sockets", len(r.sockets))
	}
	blind := Blind(err)
	if len(blind) != 1 || blind[0].Source != "sockets" || !strings.HasPrefix(blind[0].Error, "tcp: ") || blind[0].Needs != "the kernel module tcp_diag" {
		t.Errorf("blind: %+v", blind)
	}
}

func TestBlindMergesOneCause(t *testing.T) {
	err := failures{
		{"tcp", fact.FamilyUnknown, os.NewSyscallError("socket", unix.EPERM)},
		{"udp", fact.IPv4, os.NewSyscallError("socket", unix.EPERM)},
		{"udp", fact.IPv6, os.NewSyscallError("socket", unix.EPERM)},
		{"unix", fact.Unix, ErrInterrupted},
	}.join()
	blind := Blind(fmt.Errorf("looking: %w", err))
	if len(blind) != 2 || blind[0].Error != "tcp, udp over IPv4, udp over IPv6: socket: operation not permitted" || blind[0].Needs == "" ||
		!strings.HasPrefix(blind[1].Error, "unix: the list changed") || blind[1].Needs != "" {
		t.Errorf("%+v", blind)
	}
	if Blind(nil) != nil || len(Blind(errors.New("other"))) != 1 {
		t.Error("no error is not blind, any other is")
	}
}

// TestInterrupted: a dump that the kernel calls inconsistent is made again, and
// what came before is forgotten; after the third it is an error, with the rows.
func TestInterrupted(t *testing.T) {
	row := append([]byte{unix.AF_UNIX, 1, 1, 0}, native32(17, 1, 2)...)
	for _, test := range []struct {
		interrupted, dumps int
		err                error
	}{{0, 1, nil}, {2, 3, nil}, {9, 3, ErrInterrupted}} {
		dumps := 0
		r := &reader{sockets: make([]fact.Socket, 1), dump: func(_, _ []byte, each func([]byte)) (int, error) {
			dumps++
			flags := uint16(0)
			if dumps <= test.interrupted {
				flags = unix.NLM_F_DUMP_INTR
			}
			a := answers{kind: sockDiagByFamily}
			_, err := a.read(append(makeMessage(sockDiagByFamily, flags, row), makeMessage(unix.NLMSG_DONE, 0, native32(0))...), each)
			return 0, err
		}}
		if err := r.query(unixQueries[0], nil); !errors.Is(err, test.err) || dumps != test.dumps || len(r.sockets) != 2 {
			t.Errorf("interrupted %d times: %d dumps, %d sockets, error %v", test.interrupted, dumps, len(r.sockets), err)
		}
	}
}

// TestOverrun: a kernel that ran out of buffers is asked again, and what came
// before is forgotten; after the third time it is an error that says so.
func TestOverrun(t *testing.T) {
	row := append([]byte{unix.AF_UNIX, 1, 1, 0}, native32(17, 1, 2)...)
	for _, test := range []struct {
		overruns, dumps int
		err             error
	}{{2, 3, nil}, {9, 3, unix.ENOBUFS}} {
		dumps := 0
		r := &reader{dump: func(_, _ []byte, each func([]byte)) (int, error) {
			each(row)
			if dumps++; dumps <= test.overruns {
				return 0, os.NewSyscallError("recvfrom", unix.ENOBUFS)
			}
			return 0, nil
		}}
		err := r.query(unixQueries[0], nil)
		if !errors.Is(err, test.err) || dumps != test.dumps || len(r.sockets) != 1 {
			t.Errorf("%d overruns: %d dumps, %d sockets, error %v", test.overruns, dumps, len(r.sockets), err)
		}
		if err != nil && !strings.Contains(Blind(failures{{Protocol: "unix", Err: err}})[0].Error, "no buffer space") {
			t.Errorf("it says %v", Blind(failures{{Protocol: "unix", Err: err}}))
		}
	}
}

// TestStrangersAreIgnored: any process may send to a netlink socket, but only
// the kernel is believed.
func TestStrangersAreIgnored(t *testing.T) {
	need.Root(t) // without, the kernel does not deliver the stranger's message in the first place
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	self, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stranger)
	lie := makeMessage(unix.NLMSG_ERROR, 0, native32(1<<31))
	if err := unix.Sendto(stranger, lie, 0, self); err != nil {
		t.Fatal(err)
	}
	if err := send(fd, unixRequest()); err != nil {
		t.Fatal(err)
	}
	if _, err := receiveAll(fd, make([]byte, bufferSize), sockDiagByFamily, func([]byte) {}); err != nil {
		t.Error(err)
	}
}

// TestShortBuffer: a datagram that does not fit is an error, not half an answer.
func TestShortBuffer(t *testing.T) {
	var fds closer
	defer fds.close()
	if _, _, err := fds.pair(unix.SOCK_STREAM); err != nil {
		t.Fatal(err)
	}
	if _, err := dump(unixRequest(), make([]byte, 20), func([]byte) {}); !errors.Is(err, errMalformed) {
		t.Errorf("got %v, want a malformed message", err)
	}
}
