package names

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// nscdPath is where glibc looks for it, by way of /var/run, which is a link to
// /run since long.
const nscdPath = "run/nscd/socket"

// errDisabled is of a daemon that does not do hosts.
var errDisabled = errors.New("does not look hosts up: enable-cache hosts is no")

// NSCD returns the way that asks the name service cache daemon, or NixOS's nsncd,
// by its socket below root.
func NSCD(root string) Way { return nscdWay{below(root, nscdPath)} }

// nscdWay speaks the protocol of glibc's nscd/nscd-client.h, version 2.
type nscdWay struct{ socket string }

func (nscdWay) Name() string { return "nscd" }

func (w nscdWay) Lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	const (
		version = 2
		getAI   = 14 // both families, in no order
	)
	request := bytes.NewBuffer(nil)
	key := append([]byte(host), 0)
	for _, n := range []int32{version, getAI, int32(len(key))} {
		_ = binary.Write(request, binary.NativeEndian, n) // into memory
	}
	request.Write(key)
	var addrs []netip.Addr
	err := overSocket(ctx, w.socket, request.Bytes(), func(conn io.Reader) (err error) {
		addrs, err = readNSCD(conn, host)
		return err
	})
	if err != nil {
		return nil, err
	}
	if addrs = ofNetwork(network, addrs); len(addrs) == 0 {
		return nil, notFound(host, "nscd", "no address of this kind")
	}
	sortAddrs(addrs)
	return addrs, nil
}

// readNSCD reads an ai_response_header and what follows it: the addresses, and
// then for each one byte that says of which family it is.
func readNSCD(conn io.Reader, host string) ([]netip.Addr, error) {
	const (
		addrsMax = 4096
		tryAgain = 2 // h_errno, netdb.h
	)
	var header struct{ Version, Found, Count, AddrsLength, CanonLength, Error int32 }
	if err := binary.Read(conn, binary.NativeEndian, &header); err != nil {
		return nil, fmt.Errorf("nscd: %w", err)
	}
	switch {
	case header.Version != 2:
		return nil, fmt.Errorf("nscd: version %d of the protocol, not 2", header.Version)
	case header.Found < 0:
		return nil, fmt.Errorf("nscd: %w", errDisabled)
	case header.Found == 0 && (header.Error == tryAgain || header.Error < 0):
		return nil, &net.DNSError{Err: "could not find out", Name: host, Server: "nscd", IsTemporary: true}
	case header.Found == 0:
		return nil, notFound(host, "nscd", "no such host")
	case header.Count < 1 || header.Count > addrsMax || header.AddrsLength < 0 || header.AddrsLength > 16*header.Count:
		return nil, fmt.Errorf("nscd: %d addresses in %d bytes", header.Count, header.AddrsLength)
	}
	body := make([]byte, header.AddrsLength+header.Count)
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, fmt.Errorf("nscd: %w", err)
	}
	packed, families := body[:header.AddrsLength], body[header.AddrsLength:]
	addrs := make([]netip.Addr, 0, len(families))
	for _, family := range families {
		size := map[byte]int{afINET: 4, afINET6: 16}[family]
		if size == 0 || size > len(packed) {
			return nil, errors.New("nscd: addresses of no known family")
		}
		addr, _ := netip.AddrFromSlice(packed[:size])
		addrs, packed = append(addrs, addr), packed[size:]
	}
	return addrs, nil
}

// overSocket sends a request to a unix socket and reads the answer, within ctx.
func overSocket(ctx context.Context, path string, request []byte, read func(io.Reader) error) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err = conn.Write(request); err == nil {
		err = read(conn)
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
