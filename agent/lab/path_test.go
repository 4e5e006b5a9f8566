//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/bound"
	"golang.org/x/sys/unix"
)

const (
	early = 50 * time.Millisecond // by which a clock read beside the kernel's may be off
	slack = 10 * time.Second      // that an overloaded machine may take to tell
)

// path is a connection between two hosts, seen from the near one.
type path struct {
	near, far *Host
	conn      *net.TCPConn // near end
	peer      *net.TCPConn // far end
	sysctl    bound.Sysctl // of the near host
	end       chan end     // of the near connection
}

// end is what ended a connection, and when.
type end struct {
	at  time.Time
	err error
}

// connected returns a connection on which both sides have spoken. The far end
// has the smallest receive buffer there is.
func connected(t *testing.T, sysctl bound.Sysctl, options bound.Options) *path {
	t.Helper()
	p := &path{sysctl: sysctl}
	p.near, p.far = hosts(t, "10.77.1.1/24", "10.77.1.2/24")
	p.connect(t, "10.77.1.2:80", options)
	return p
}

// hosts returns two hosts that do not forget each other's link address, so that
// a dead one is silent: to a neighbour that is not found ARP gives an error.
func hosts(t *testing.T, nearAddr, farAddr string) (near, far *Host) {
	t.Helper()
	l := New(t)
	near, far = l.Host("near"), l.Host("far")
	l.Wire(near, nearAddr, far, farAddr)
	near.Sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms", "600000")
	near.Sysctl("net.ipv6.neigh.eth0.base_reachable_time_ms", "600000")
	return near, far
}

func (p *path) connect(t *testing.T, addr string, options bound.Options) {
	t.Helper()
	setSysctl(p.near, p.sysctl)
	ln := p.far.Listen("tcp", addr).(*net.TCPListener)
	setOption(t, ln, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
	p.conn = p.near.Dial("tcp", addr).(*net.TCPConn)
	setOptions(t, p.conn, options)
	peer, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	p.peer = peer
	if _, err := peer.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p.end = make(chan end, 1)
	go func() {
		_, err := p.conn.Read(make([]byte, 1))
		p.end <- end{time.Now(), err}
	}()
}

// noticed waits for the kernel to report the failure, for as long as it may
// take and a little more.
func (p *path) noticed(t *testing.T, since time.Time, b bound.Bound) time.Duration {
	t.Helper()
	select {
	case end := <-p.end:
		took := end.at.Sub(since)
		if !errors.Is(end.err, syscall.ETIMEDOUT) {
			t.Fatalf("after %v: %v, want ETIMEDOUT", took, end.err)
		}
		return took
	case <-time.After(time.Until(since) + b.Latest + 10*time.Second):
		t.Fatalf("not noticed in %v", time.Since(since))
		return 0
	}
}

// open fails the test if the connection ends within d.
func (p *path) open(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case end := <-p.end:
		t.Fatalf("got %v, want the connection to be open for %v", end.err, d)
	case <-time.After(d):
	}
}

// heard returns when the last segment came from the far end, as
// keepalive_time_elapsed of include/net/tcp.h sees it.
func (p *path) heard(t *testing.T) time.Time {
	t.Helper()
	info := p.info(t)
	return time.Now().Add(-time.Duration(min(info.Last_ack_recv, info.Last_data_recv)) * time.Millisecond)
}

func (p *path) info(t *testing.T) *unix.TCPInfo {
	t.Helper()
	var info *unix.TCPInfo
	control(t, p.conn, func(fd int) (err error) {
		info, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		return err
	})
	return info
}

// bounds returns what bound is told of the connection.
func (p *path) bounds(t *testing.T, options bound.Options) bound.Conn {
	t.Helper()
	rto := time.Duration(p.info(t).Rto) * time.Microsecond
	return bound.Conn{Options: options, Sysctl: p.sysctl, RTO: rto, Tick: clockTick(t)}
}

func clockTick(t *testing.T) time.Duration {
	t.Helper()
	var res unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &res); err != nil {
		t.Fatal(err)
	}
	return time.Duration(res.Nano())
}

// fill writes until the far end has closed its window, and returns when that
// was.
func (p *path) fill(t *testing.T) time.Time {
	t.Helper()
	chunk := make([]byte, 16<<10)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		control(t, p.conn, func(fd int) error {
			if _, err := unix.Write(fd, chunk); err != nil && err != unix.EAGAIN {
				return err
			}
			return nil
		})
		if info := p.info(t); info.Unacked == 0 && info.Notsent_bytes > 0 {
			return p.heard(t)
		}
	}
	t.Fatalf("the window never closed: %+v", p.info(t))
	return time.Time{}
}

// judge compares what the kernel did with what bound said.
func judge(t *testing.T, b bound.Bound, took, least time.Duration) {
	t.Helper()
	t.Logf("took %v; by the rule %v, at the latest %v, by %v", took.Round(time.Millisecond), b.After, b.Latest, b.By)
	if took > b.Latest+slack {
		t.Errorf("took %v, later than the bound of %v", took, b.Latest)
	}
	if took < least-early {
		t.Errorf("took %v, so soon that the bound of %v says little", took, b.Latest)
	}
}

func control(t *testing.T, c syscall.Conn, f func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil || failed != nil {
		t.Fatal(errors.Join(err, failed))
	}
}

func setOption(t *testing.T, c syscall.Conn, level, option, value int) {
	t.Helper()
	control(t, c, func(fd int) error { return unix.SetsockoptInt(fd, level, option, value) })
}

func setOptions(t *testing.T, c syscall.Conn, o bound.Options) {
	t.Helper()
	if o.KeepAlive {
		setOption(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(o.Idle/time.Second))
		setOption(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(o.Interval/time.Second))
		setOption(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, o.Count)
		setOption(t, c, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	} else {
		setOption(t, c, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
	}
	setOption(t, c, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(o.UserTimeout/time.Millisecond))
}

// setSysctl sets what is not at its default.
func setSysctl(h *Host, s bound.Sysctl) {
	h.lab.t.Helper()
	for _, setting := range []struct {
		name  string
		value int
	}{
		{"tcp_retries2", s.Retries2},
		{"tcp_syn_retries", s.SynRetries},
		{"tcp_syn_linear_timeouts", s.SynLinearTimeouts},
		{"tcp_synack_retries", s.SynAckRetries},
		{"tcp_rto_max_ms", int(s.RTOMax / time.Millisecond)},
	} {
		if setting.value != 0 {
			h.Sysctl("net.ipv4."+setting.name, fmt.Sprint(max(setting.value, 0)))
		}
	}
}

func keepalive(idle, interval time.Duration, count int, userTimeout time.Duration) bound.Options {
	return bound.Options{KeepAlive: true, Idle: idle, Interval: interval, Count: count, UserTimeout: userTimeout}
}
