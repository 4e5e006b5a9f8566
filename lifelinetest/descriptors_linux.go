package lifelinetest

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// descriptors maps each open file descriptor to what it refers to. The
// runtime's own poller and the directory being read do not count.
func descriptors() map[string]string {
	open := make(map[string]string)
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return open
	}
	for _, name := range names {
		target, err := os.Readlink("/proc/self/fd/" + name.Name())
		if err != nil || strings.HasPrefix(target, "anon_inode:[event") || strings.HasSuffix(target, "/fd") {
			continue
		}
		open[name.Name()] = target
	}
	return open
}

// ends returns the addresses of a socket, "" for what is none.
func ends(descriptor string) string {
	fd, err := strconv.Atoi(descriptor)
	if err != nil {
		return ""
	}
	local, err := syscall.Getsockname(fd)
	if err != nil {
		return ""
	}
	text := address(local)
	if remote, err := syscall.Getpeername(fd); err == nil {
		text += " to " + address(remote)
	}
	return text
}

func address(a syscall.Sockaddr) string {
	switch a := a.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)).String()
	case *syscall.SockaddrUnix:
		if a.Name == "" {
			return "an unnamed unix socket"
		}
		return a.Name
	}
	return fmt.Sprintf("%T", a)
}
