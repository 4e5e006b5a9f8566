package tcpinfo_test

import (
	"errors"
	"io"
	"net"
	"testing"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/tcpinfo"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// The far end of a connection answers, resets, and is gone; the near end is
// closed last.
func TestLifeOfAConnection(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if !tcpinfo.Supported() {
		if _, err := tcpinfo.Read(raw); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("got %v", err)
		}
		return
	}
	if info, err := tcpinfo.Read(raw); err != nil || info.Closed || info.Window == 0 || info.Unacked+info.Unsent > 0 {
		t.Errorf("open: %+v, %v", info, err)
	}
	if _, err := conn.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(peer, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Write([]byte{1}); err != nil { // which acknowledges what was read
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if n, err := tcpinfo.Unacknowledged(raw); err != nil || n != 0 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := errors.Join(peer.(*net.TCPConn).SetLinger(0), peer.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("not reset")
	}
	if info, err := tcpinfo.Read(raw); err != nil || !info.Closed {
		t.Errorf("reset: %+v, %v", info, err)
	}
	conn.Close()
	if _, err := tcpinfo.Read(raw); err == nil {
		t.Error("a closed connection can be read")
	}
	if _, err := tcpinfo.Unacknowledged(raw); err == nil {
		t.Error("a closed connection can be read")
	}
}
