//go:build linux

package lab

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/bound"
	"github.com/lifeline-go/lifeline/internal/need"
	"golang.org/x/sys/unix"
)

// Package bound says what the kernel will do; these tests make the kernel do it
// and take the time. Each has a lab of its own, and all run at once.

func TestIdle(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for name, options := range map[string]bound.Options{
		"keepalive 2/1/3":                              keepalive(2*s, 1*s, 3, 0),
		"keepalive 2/2/1":                              keepalive(2*s, 2*s, 1, 0),
		"user timeout below Idle, count 9 ignored":     keepalive(2*s, 2*s, 9, 1*s),
		"user timeout above Idle, count 9 ignored":     keepalive(2*s, 2*s, 9, 3*s),
		"user timeout of two intervals, count ignored": keepalive(2*s, 2*s, 1, 5*s),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := connected(t, bound.Sysctl{}, options)
			p.far.Unplug()
			heard, b := p.heard(t), p.bounds(t, options).Idle()
			judge(t, b, p.noticed(t, heard, b), b.After)
		})
	}
}

func TestIdleIPv6(t *testing.T) {
	t.Parallel()
	options := keepalive(1*time.Second, 1*time.Second, 2, 0)
	p := &path{}
	p.near, p.far = hosts(t, "fd77::1/64", "fd77::2/64")
	p.connect(t, "[fd77::2]:80", options)
	p.far.Unplug()
	heard, b := p.heard(t), p.bounds(t, options).Idle()
	judge(t, b, p.noticed(t, heard, b), b.After)
}

func TestIdleForEver(t *testing.T) {
	t.Parallel()
	options := bound.Options{UserTimeout: time.Second}
	p := connected(t, bound.Sysctl{}, options)
	if b := p.bounds(t, options).Idle(); !b.Never() {
		t.Errorf("without keepalive: %+v, want never", b)
	}
	p.far.Unplug()
	p.open(t, 6*time.Second)
}

// The answer to a probe does not set the timer anew, so that the next probe is
// an interval away, however short Idle is.
func TestIdleIntervalLongerThanIdle(t *testing.T) {
	t.Parallel()
	options := keepalive(1*time.Second, 4*time.Second, 1, 0)
	p := connected(t, bound.Sysctl{}, options)
	p.open(t, 2*time.Second) // the first probe was answered after one
	p.far.Unplug()
	heard := p.heard(t)
	b := p.bounds(t, options).Idle()
	judge(t, b, p.noticed(t, heard, b), b.After)
}

// An outage of less than three seconds ends a connection that has a user
// timeout, although the path is back before the kernel gives up; and it does
// not end one that has none.
func TestIdleOneLoss(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]bound.Options{
		"with a user timeout":    keepalive(2*time.Second, 2*time.Second, 9, 3*time.Second),
		"without a user timeout": keepalive(2*time.Second, 2*time.Second, 9, 0),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := connected(t, bound.Sysctl{}, options)
			p.far.Unplug()
			heard, b := p.heard(t), p.bounds(t, options).Idle()
			for p.info(t).Probes == 0 && time.Since(heard) < b.Latest { // until a probe is lost
				time.Sleep(10 * time.Millisecond)
			}
			p.far.Plug()
			if !b.OneLoss {
				p.open(t, 4*time.Second)
				return
			}
			judge(t, b, p.noticed(t, heard, b), b.After)
		})
	}
}

func TestSending(t *testing.T) {
	t.Parallel()
	const s = time.Second
	fast := keepalive(1*s, 1*s, 2, 0) // would end the connection after 3 s, but does not run
	for name, test := range map[string]struct {
		sysctl  bound.Sysctl
		options bound.Options
	}{
		"tcp_retries2=3":                        {bound.Sysctl{Retries2: 3}, fast},
		"tcp_retries2=5":                        {bound.Sysctl{Retries2: 5}, fast},
		"user timeout":                          {bound.Sysctl{}, keepalive(1*s, 1*s, 2, 5*s)},
		"user timeout longer than tcp_retries2": {bound.Sysctl{Retries2: 2}, keepalive(1*s, 1*s, 2, 8*s)},
		"user timeout without keepalive":        {bound.Sysctl{}, bound.Options{UserTimeout: 1500 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sending(t, test.sysctl, test.options)
		})
	}
}

func TestSendingRTOMax(t *testing.T) {
	t.Parallel()
	_, err := os.Stat("/proc/sys/net/ipv4/tcp_rto_max_ms")
	need.Feature(t, "tcp_rto_max_ms (Linux 6.15)", err)
	sending(t, bound.Sysctl{Retries2: 4, RTOMax: time.Second}, bound.Options{})
}

func sending(t *testing.T, sysctl bound.Sysctl, options bound.Options) {
	t.Helper()
	p := connected(t, sysctl, options)
	p.far.Unplug()
	c := p.bounds(t, options)
	b := c.Sending()
	sent := time.Now()
	if _, err := p.conn.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	judge(t, b, p.noticed(t, sent, b), b.After-c.RTO) // the kernel need not send a loss probe
}

// A peer that answers but does not read is alive, and is cut off under a user
// timeout all the same.
func TestStalledSlowReader(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]bound.Options{
		"with a user timeout":    keepalive(1*time.Second, 1*time.Second, 2, 3*time.Second),
		"without a user timeout": keepalive(1*time.Second, 1*time.Second, 2, 0),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := connected(t, bound.Sysctl{}, options)
			closed := p.fill(t)
			b := p.bounds(t, options).Stalled()
			if !b.SlowDies {
				p.open(t, 8*time.Second)
				return
			}
			// On a busy machine fill sees the answer to the first probe already.
			judge(t, b, p.noticed(t, closed, b), b.After-500*time.Millisecond)
		})
	}
}

// A peer that dies while its window is closed is given as many probes as
// tcp_retries2 says, as far apart as they have become.
func TestStalledPeerDies(t *testing.T) {
	t.Parallel()
	sysctl := bound.Sysctl{Retries2: 3}
	options := keepalive(1*time.Second, 1*time.Second, 2, 0)
	p := connected(t, sysctl, options)
	p.fill(t)
	b := p.bounds(t, options).Stalled()
	p.open(t, 6*time.Second) // probes are answered, and become rarer
	p.far.Unplug()
	heard := p.heard(t)
	judge(t, b, p.noticed(t, heard, b), b.After)
}

func TestConnecting(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		sysctl  bound.Sysctl
		options bound.Options
	}{
		"tcp_syn_retries=1":                      {sysctl: bound.Sysctl{SynRetries: 1}},
		"tcp_syn_retries=2":                      {sysctl: bound.Sysctl{SynRetries: 2}},
		"tcp_syn_retries=3":                      {sysctl: bound.Sysctl{SynRetries: 3}},
		"tcp_syn_retries=3, no linear time-outs": {sysctl: bound.Sysctl{SynRetries: 3, SynLinearTimeouts: -1}},
		"tcp_syn_retries=1, one linear time-out": {sysctl: bound.Sysctl{SynRetries: 1, SynLinearTimeouts: 1}},
		"user timeout":                           {options: bound.Options{UserTimeout: 2500 * time.Millisecond}},
		"user timeout below a second":            {options: bound.Options{UserTimeout: 100 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.sysctl.SynLinearTimeouts == 0 {
				_, err := os.Stat("/proc/sys/net/ipv4/tcp_syn_linear_timeouts")
				need.Feature(t, "tcp_syn_linear_timeouts (Linux 6.5)", err)
			}
			near, _ := hosts(t, "10.77.1.1/24", "10.77.1.2/24")
			setSysctl(near, test.sysctl)
			near.Run("ip", "neigh", "add", "10.77.1.9", "lladdr", "02:00:00:00:00:09", "dev", "eth0")
			b := bound.Conn{Options: test.options, Sysctl: test.sysctl, Tick: clockTick(t)}.Connecting()
			took, err := connect(near, "10.77.1.9:80", test.options.UserTimeout, b.Latest+10*time.Second)
			if !errors.Is(err, syscall.ETIMEDOUT) {
				t.Fatalf("after %v: %v, want ETIMEDOUT", took, err)
			}
			judge(t, b, took, b.After)
		})
	}
}

// connect takes the time of a connection attempt.
func connect(h *Host, addr string, userTimeout, limit time.Duration) (took time.Duration, err error) {
	dialer := net.Dialer{Timeout: limit, Control: func(_, _ string, c syscall.RawConn) (err error) {
		ctlErr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout/time.Millisecond))
		})
		return errors.Join(err, ctlErr)
	}}
	err = h.Do(func() error {
		start := time.Now()
		conn, err := dialer.Dial("tcp", addr)
		took = time.Since(start)
		if err == nil {
			conn.Close()
		}
		return err
	})
	return took, err
}

// The peer's SYN comes from an address to which the way back is lost, and the
// peer asks only once.
func TestAccepting(t *testing.T) {
	t.Parallel()
	sysctl := bound.Sysctl{SynAckRetries: 2}
	near, far := hosts(t, "10.77.1.1/24", "10.77.1.2/24")
	setSysctl(near, sysctl)
	near.Sysctl("net.ipv4.conf.all.rp_filter", "0")
	near.Sysctl("net.ipv4.conf.eth0.rp_filter", "0")
	near.Run("ip", "neigh", "add", "10.77.1.9", "lladdr", "02:00:00:00:00:09", "dev", "eth0")
	far.Run("ip", "addr", "add", "10.77.1.9/32", "dev", "lo")
	near.Listen("tcp", "10.77.1.1:80")

	asked := time.Now()
	err := far.Do(func() error {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 77, 1, 9)}, Timeout: 500 * time.Millisecond}
		conn, err := dialer.Dial("tcp", "10.77.1.1:80")
		if err == nil {
			conn.Close()
		}
		return err
	})
	if timeout := net.Error(nil); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("connecting without a way back: %v", err)
	}
	if !halfOpen(t, near) {
		t.Fatal("the SYN did not arrive")
	}
	b := bound.Conn{Sysctl: sysctl, Tick: clockTick(t)}.Accepting()
	for halfOpen(t, near) && time.Since(asked) < b.Latest+10*time.Second {
		time.Sleep(20 * time.Millisecond)
	}
	judge(t, b, time.Since(asked), b.After)
}

// halfOpen reports that the host has a connection in SYN_RECV.
func halfOpen(t *testing.T, h *Host) bool {
	t.Helper()
	var table []byte
	err := h.Do(func() (err error) {
		table, err = os.ReadFile("/proc/thread-self/net/tcp")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 3 && fields[3] == "03" {
			return true
		}
	}
	return false
}
