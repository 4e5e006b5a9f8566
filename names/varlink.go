package names

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

const varlinkPath = "run/systemd/resolve/io.systemd.Resolve"

// Varlink returns the way that asks systemd-resolved by its socket below root.
func Varlink(root string) Way { return varlinkWay{below(root, varlinkPath)} }

// varlinkWay calls io.systemd.Resolve.ResolveHostname, as nss-resolve does.
type varlinkWay struct{ socket string }

func (varlinkWay) Name() string { return "varlink" }

// Families as Linux numbers them, which is where the daemons are.
const (
	afUnspec = 0
	afINET   = 2
	afINET6  = 10
)

type varlinkCall struct {
	Method     string `json:"method"`
	Parameters struct {
		Name   string `json:"name"`
		Family int    `json:"family"`
		Flags  int    `json:"flags"`
	} `json:"parameters"`
}

type varlinkReply struct {
	Error      string `json:"error"`
	Parameters struct {
		Addresses []struct {
			Interface int   `json:"ifindex"`
			Family    int   `json:"family"`
			Address   []int `json:"address"` // a byte each
		} `json:"addresses"`
		Code *int `json:"rcode"`
	} `json:"parameters"`
}

func (w varlinkWay) Lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	var call varlinkCall
	call.Method = "io.systemd.Resolve.ResolveHostname"
	call.Parameters.Name = host
	call.Parameters.Family = map[string]int{"ip": afUnspec, "ip4": afINET, "ip6": afINET6}[network]
	request, err := json.Marshal(call)
	if err != nil {
		return nil, err
	}
	var reply varlinkReply
	err = overSocket(ctx, w.socket, append(request, 0), func(conn io.Reader) error {
		const most = 1 << 20
		text, err := bufio.NewReader(io.LimitReader(conn, most)).ReadBytes(0)
		if err != nil {
			return fmt.Errorf("varlink: %w", err)
		}
		return json.Unmarshal(text[:len(text)-1], &reply)
	})
	if err != nil {
		return nil, err
	}
	if reply.Error != "" {
		return nil, reply.failure(host)
	}
	addrs := ofNetwork(network, reply.addrs())
	if len(addrs) == 0 {
		return nil, errors.New("varlink: an answer without an address")
	}
	sortAddrs(addrs)
	return addrs, nil
}

func (r *varlinkReply) addrs() (addrs []netip.Addr) {
	for _, a := range r.Parameters.Addresses {
		packed := make([]byte, 0, 16)
		for _, b := range a.Address[:min(len(a.Address), 16)] {
			packed = append(packed, byte(b))
		}
		addr, ok := netip.AddrFromSlice(packed)
		if !ok {
			continue
		}
		if addr.IsLinkLocalUnicast() && addr.Is6() && a.Interface > 0 {
			addr = addr.WithZone(zone(a.Interface))
		}
		if !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

func zone(index int) string {
	if link, err := net.InterfaceByIndex(index); err == nil {
		return link.Name
	}
	return strconv.Itoa(index)
}

// failure tells a no from not knowing, more strictly than nss-resolve does, to
// which all errors but those of reaching servers are a no.
func (r *varlinkReply) failure(host string) error {
	const (
		noError  = 0
		nxDomain = 3
	)
	code := r.Parameters.Code
	switch {
	case r.Error == "io.systemd.Resolve.NoSuchResourceRecord",
		r.Error == "io.systemd.Resolve.DNSError" && code != nil && (*code == noError || *code == nxDomain):
		return notFound(host, "varlink", "no such host")
	}
	return &net.DNSError{Err: fmt.Sprintf("systemd-resolved says %.100q", r.Error), Name: host, Server: "varlink", IsTemporary: true}
}
