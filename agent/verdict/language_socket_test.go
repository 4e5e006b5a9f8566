package verdict

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

var stateWords = map[string]fact.State{
	"estab": fact.Established, "syn-sent": fact.SynSent, "fin-wait-1": fact.FinWait1, "fin-wait-2": fact.FinWait2,
	"time-wait": fact.TimeWait, "close-wait": fact.CloseWait, "last-ack": fact.LastAck, "listen": fact.Listen,
}

func (w *world) socket(l *words, n int) error {
	isNew, isGone := l.flag("new"), l.flag("gone")
	protocol, state := l.next(), l.next()
	s := fact.Socket{Netns: 1, State: stateWords[state]}
	switch {
	case protocol == "tcp" && s.State != 0:
		s.Protocol = fact.TCP
	case protocol == "udp" && s.State != 0:
		s.Protocol = fact.UDP
	default:
		return fmt.Errorf("no protocol and state: %s %s", protocol, state)
	}
	local, err := endpoint(l.next())
	if err != nil {
		return err
	}
	var remote counter
	if s.State != fact.Listen {
		if remote, err = endpoint(l.next()); err != nil {
			return err
		}
	}
	if err := socketKeys(l, "", &s); err != nil {
		return err
	}
	was := w.aged(s)
	if err := socketKeys(l, "was.", &was); err != nil {
		return err
	}
	for i := range n {
		w.cookie++
		for _, one := range []*fact.Socket{&s, &was} {
			one.Cookie, one.Inode = w.cookie, uint32(w.cookie)
			one.Local, one.Remote = local.at(i), remote.at(i)
			one.Family = fact.IPv4
			if one.Local.Addr().Is6() {
				one.Family = fact.IPv6
			}
		}
		if !isGone {
			w.now.Sockets = append(w.now.Sockets, s)
		}
		if !isNew {
			w.was.Sockets = append(w.was.Sockets, was)
		}
	}
	return nil
}

// aged is the socket as it was in the earlier look.
func (w *world) aged(s fact.Socket) fact.Socket {
	if s.Conn == nil {
		return s
	}
	was := *s.Conn
	for _, age := range []*time.Duration{&was.LastAck, &was.LastSent, &was.LastReceived} {
		if *age >= w.elapsed {
			*age -= w.elapsed
		}
	}
	s.Conn = &was
	if s.Timer != fact.TimerNone {
		s.TimerLeft += w.elapsed
	}
	return s
}

// socketKeys reads the keys of a socket. Ages that are not given are those of
// ack, and one second without it.
func socketKeys(l *words, prefix string, s *fact.Socket) error {
	var pid int32
	errs := []error{set(l, prefix+"pid", &pid, integer[int32]), set(l, prefix+"ns", &s.Netns, integer[uint32])}
	if pid != 0 {
		s.Owners = []fact.Owner{{PID: pid, FD: 3}}
	}
	if prefix == "" && s.Protocol == fact.TCP && s.State != fact.TimeWait && s.State != fact.Listen {
		s.Conn = &fact.Conn{Life: fact.Life{LastAck: time.Second, RTO: 204 * time.Millisecond}}
		errs = append(errs, set(l, "ack", &s.Conn.LastAck, time.ParseDuration))
		s.Conn.LastSent, s.Conn.LastReceived = s.Conn.LastAck, s.Conn.LastAck
	}
	if c := s.Conn; c != nil {
		errs = append(errs, connKeys(l, prefix, c)...)
	}
	errs = append(errs,
		set(l, prefix+"iface", &s.Interface, integer[uint32]),
		set(l, prefix+"rq", &s.RecvQueue, integer[uint32]),
		set(l, prefix+"sq", &s.SendQueue, integer[uint32]),
		set(l, prefix+"keepalive", &s.Options, keepAlive),
		set(l, prefix+"uto", &s.Options.Value.UserTimeout, time.ParseDuration))
	if timer, found := l.take(prefix + "timer"); found {
		kind, left, _ := strings.Cut(timer, ":")
		var err error
		s.TimerLeft, err = time.ParseDuration(left)
		s.Timer = map[string]fact.Timer{"resend": fact.TimerResend, "keepalive": fact.TimerKeepAlive, "probe": fact.TimerProbe}[kind]
		errs = append(errs, err)
	}
	return firstError(errs)
}

func connKeys(l *words, prefix string, c *fact.Conn) []error {
	retransmits := c.Retransmits
	errs := []error{
		set(l, prefix+"ack", &c.LastAck, time.ParseDuration),
		set(l, prefix+"sent", &c.LastSent, time.ParseDuration),
		set(l, prefix+"recv", &c.LastReceived, time.ParseDuration),
		set(l, prefix+"rto", &c.RTO, time.ParseDuration),
		set(l, prefix+"retrans", &c.Retransmits, integer[uint8]),
		set(l, prefix+"probes", &c.Probes, integer[uint8]),
		set(l, prefix+"unacked", &c.Unacked, integer[uint32]),
		set(l, prefix+"notsent", &c.NotSent, integer[uint32]),
		set(l, prefix+"total", &c.TotalRetransmit, integer[uint32]),
		set(l, prefix+"window", &c.SendWindow, seen(integer[uint32])),
		set(l, prefix+"out", &c.SegmentsOut, seen(integer[uint32])),
		set(l, prefix+"in", &c.SegmentsIn, seen(integer[uint32])),
	}
	if c.Retransmits != retransmits { // the timeout is written without its back-off
		c.RTO >>= c.Backoff
		c.Backoff = c.Retransmits
		c.RTO = min(c.RTO<<min(c.Backoff, 20), 120*time.Second)
	}
	return errs
}

func firstError(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// keepAlive reads idle/interval/count, off or unknown.
func keepAlive(s string) (o fact.Known[bound.Options], err error) {
	if s == "unknown" {
		return o, nil
	}
	o.OK = true
	if s == "off" {
		return o, nil
	}
	o.Value.KeepAlive = true
	if s == "system" {
		return o, nil
	}
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return o, fmt.Errorf("keepalive is idle/interval/count, off, system or unknown: %s", s)
	}
	if o.Value.Idle, err = time.ParseDuration(parts[0]); err != nil {
		return o, err
	}
	if o.Value.Interval, err = time.ParseDuration(parts[1]); err != nil {
		return o, err
	}
	o.Value.Count, err = strconv.Atoi(parts[2])
	return o, err
}

// counter is an address and port, either of which may count up.
type counter struct {
	addr         netip.Addr
	port         uint16
	addrs, ports bool
}

func endpoint(s string) (c counter, err error) {
	at := strings.LastIndexByte(s, ':')
	if at < 0 {
		return c, fmt.Errorf("no address and port: %q", s)
	}
	host, number := s[:at], s[at+1:]
	host, c.addrs = strings.CutSuffix(host, "+")
	number, c.ports = strings.CutSuffix(number, "+")
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return c, err
	}
	c.port = uint16(n)
	c.addr, err = netip.ParseAddr(strings.Trim(host, "[]"))
	return c, err
}

func (c counter) at(i int) netip.AddrPort {
	addr, number := c.addr, c.port
	if c.addrs {
		bytes := addr.AsSlice()
		for at, carry := len(bytes)-1, i; at >= 0 && carry > 0; at-- {
			carry += int(bytes[at])
			bytes[at] = byte(carry)
			carry >>= 8
		}
		if len(bytes) > 0 {
			addr, _ = netip.AddrFromSlice(bytes)
		}
	}
	if c.ports {
		number += uint16(i)
	}
	return netip.AddrPortFrom(addr, number)
}

func (w *world) pair(l *words, n int) error {
	isNew := l.flag("new")
	path := l.next()
	var client, server int32
	errs := []error{set(l, "client", &client, integer[int32]), set(l, "server", &server, integer[int32])}
	for range n {
		ends := [2]fact.Socket{}
		for i, pid := range []int32{client, server} {
			w.cookie++
			ends[i] = fact.Socket{Protocol: fact.UnixStream, Family: fact.Unix, State: fact.Established, Netns: 1,
				Cookie: w.cookie, Inode: uint32(w.cookie)}
			if pid != 0 {
				ends[i].Owners = []fact.Owner{{PID: pid, FD: 3}}
			}
		}
		ends[0].PeerInode, ends[1].PeerInode, ends[1].Path = ends[1].Inode, ends[0].Inode, path
		w.now.Sockets = append(w.now.Sockets, ends[:]...)
		if !isNew {
			w.was.Sockets = append(w.was.Sockets, ends[:]...)
		}
	}
	return firstError(errs)
}
