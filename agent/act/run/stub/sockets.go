//go:build linux

package stub

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
)

// Sockets are where a stub listens: at one port of 127.0.0.1, the same for UDP
// and TCP, and at one of ::1 where there is IPv6.
type Sockets struct {
	udp [2]*net.UDPConn // IPv4, IPv6; nil where there is none
	tcp [2]*net.TCPListener
}

// attempts to find a port that is free for both UDP and TCP.
const attempts = 32

// Listen opens them. Without IPv6 there are none for it, which is no error.
func Listen() (*Sockets, error) {
	s := new(Sockets)
	if err := s.listen(0, UDP4); err != nil {
		return nil, err
	}
	_ = s.listen(1, UDP6)
	return s, nil
}

func (s *Sockets) listen(i int, network Network) error {
	var failed error
	for range attempts {
		tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(network.loopback(), 0)))
		if err != nil {
			return err
		}
		port := uint16(tcp.Addr().(*net.TCPAddr).Port)
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(network.loopback(), port)))
		if err == nil {
			_ = udp.SetReadBuffer(1 << 20) // as much of it as may be
			s.udp[i], s.tcp[i] = udp, tcp
			return nil
		}
		tcp.Close()
		failed = err
	}
	return fmt.Errorf("no port of %v is free for both UDP and TCP: %w", network.loopback(), failed)
}

// IPv4 returns where it listens.
func (s *Sockets) IPv4() netip.AddrPort { return s.at(0) }

// IPv6 returns where it listens, the zero address where there is no IPv6.
func (s *Sockets) IPv6() netip.AddrPort { return s.at(1) }

func (s *Sockets) at(i int) netip.AddrPort {
	if s.udp[i] == nil {
		return netip.AddrPort{}
	}
	return s.udp[i].LocalAddr().(*net.UDPAddr).AddrPort()
}

func (s *Sockets) datagrams() map[Network]*net.UDPConn {
	all := map[Network]*net.UDPConn{UDP4: s.udp[0]}
	if s.udp[1] != nil {
		all[UDP6] = s.udp[1]
	}
	return all
}

func (s *Sockets) streams() map[Network]*net.TCPListener {
	all := map[Network]*net.TCPListener{TCP4: s.tcp[0]}
	if s.tcp[1] != nil {
		all[TCP6] = s.tcp[1]
	}
	return all
}

// Files returns copies of the descriptors, for another process; the caller must
// close them.
func (s *Sockets) Files() ([]*os.File, error) {
	var files []*os.File
	for i := range s.udp {
		if s.udp[i] == nil {
			continue
		}
		udp, err1 := s.udp[i].File()
		tcp, err2 := s.tcp[i].File()
		if udp != nil {
			files = append(files, udp)
		}
		if tcp != nil {
			files = append(files, tcp)
		}
		if err := errors.Join(err1, err2); err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
	}
	return files, nil
}

// FromFiles returns the sockets that another process made. The files remain the
// caller's.
func FromFiles(files []*os.File) (*Sockets, error) {
	s := new(Sockets)
	for i := range files[:len(files)&^1] {
		if i%2 == 0 {
			conn, err := net.FilePacketConn(files[i])
			if err != nil {
				s.Close()
				return nil, err
			}
			s.udp[i/2] = conn.(*net.UDPConn)
			continue
		}
		listener, err := net.FileListener(files[i])
		if err != nil {
			s.Close()
			return nil, err
		}
		s.tcp[i/2] = listener.(*net.TCPListener)
	}
	return s, nil
}

// Close closes them.
func (s *Sockets) Close() {
	for i := range s.udp {
		if s.udp[i] != nil {
			s.udp[i].Close()
		}
		if s.tcp[i] != nil {
			s.tcp[i].Close()
		}
	}
}
