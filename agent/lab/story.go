//go:build linux

package lab

import (
	"strings"

	"github.com/lifeline-go/lifeline/internal/need"
)

// Story is the path of the silent WebSockets: a load balancer, the node that
// only forwards, and the pod on another node.
//
//	lb 10.77.1.2 ── 10.77.1.1 node 10.77.2.1 ── 10.77.2.2 pod
//	lb fd77:1::2 ── fd77:1::1 node fd77:2::1 ── fd77:2::2 pod
//
// What comes to port 30080 of the node goes on to port 8080 of the pod, and the
// pod sees the node as the client, as kube-proxy has it. Whatever else the load
// balancer and the pod send each other is forwarded as it is.
type Story struct{ LB, Node, Pod *Host }

// NAT is what rewrites addresses on the node of a Story.
type NAT string

// The programs that a node's NAT may be made with, by their names.
const (
	NFTables NAT = "nft"
	IPTables NAT = "iptables"
)

// Addresses of a Story: where the load balancer connects to, and where the pod
// listens.
const (
	StoryNodePort  = "10.77.1.1:30080"
	StoryPod       = "10.77.2.2:8080"
	StoryNodePort6 = "[fd77:1::1]:30080"
	StoryPod6      = "[fd77:2::2]:8080"
)

const storyRules = `
table ip nat {
	chain pre {
		type nat hook prerouting priority dstnat
		ip daddr 10.77.1.1 tcp dport 30080 dnat to 10.77.2.2:8080
	}
	chain post {
		type nat hook postrouting priority srcnat
		oifname "eth1" tcp dport 8080 masquerade
	}
}
table ip6 nat {
	chain pre {
		type nat hook prerouting priority dstnat
		ip6 daddr fd77:1::1 tcp dport 30080 dnat to [fd77:2::2]:8080
	}
	chain post {
		type nat hook postrouting priority srcnat
		oifname "eth1" tcp dport 8080 masquerade
	}
}`

// NewStory builds a Story in a lab of its own, which is taken apart when the
// test ends. It skips the test where the NAT cannot be made.
func NewStory(t T, with NAT) *Story {
	t.Helper()
	for _, name := range with.Programs() {
		need.Program(t, name)
	}
	return New(t).Story(with)
}

// Programs returns what a node needs for its NAT, beside what every lab needs.
func (n NAT) Programs() []string {
	if n == IPTables {
		return []string{"iptables", "ip6tables"}
	}
	return []string{string(n)}
}

// Story builds a Story in this lab. The caller must have asked for the programs
// of its NAT.
func (l *Lab) Story(with NAT) *Story {
	l.t.Helper()
	s := &Story{l.Host("lb"), l.Host("node"), l.Host("pod")}
	l.Wire(s.LB, "10.77.1.2/24", s.Node, "10.77.1.1/24")
	l.Wire(s.Pod, "10.77.2.2/24", s.Node, "10.77.2.1/24")
	l.ip(s.LB, "addr", "add", "fd77:1::2/64", "dev", "eth0", "nodad")
	l.ip(s.Node, "addr", "add", "fd77:1::1/64", "dev", "eth0", "nodad")
	l.ip(s.Node, "addr", "add", "fd77:2::1/64", "dev", "eth1", "nodad")
	l.ip(s.Pod, "addr", "add", "fd77:2::2/64", "dev", "eth0", "nodad")
	s.LB.Route("default", "10.77.1.1")
	s.Pod.Route("default", "10.77.2.1")
	s.LB.Route("fd77:2::/64", "fd77:1::1")
	s.Pod.Route("fd77:1::/64", "fd77:2::1")
	s.Node.Sysctl("net.ipv4.ip_forward", "1")
	s.Node.Sysctl("net.ipv6.conf.all.forwarding", "1")
	if with == NFTables {
		s.Node.Nft(storyRules)
		return s
	}
	for _, c := range []struct{ program, node, pod string }{
		{"iptables", "10.77.1.1", StoryPod},
		{"ip6tables", "fd77:1::1", StoryPod6},
	} {
		s.Node.Run(c.program, "-t", "nat", "-A", "PREROUTING", "-d", c.node, "-p", "tcp", "--dport", "30080", "-j", "DNAT", "--to-destination", c.pod)
		s.Node.Run(c.program, "-t", "nat", "-A", "POSTROUTING", "-o", "eth1", "-p", "tcp", "--dport", "8080", "-j", "MASQUERADE")
	}
	return s
}

// Nft gives the host rules in the language of nft(8). The caller must have
// asked package need for the program.
func (h *Host) Nft(rules string) {
	h.lab.t.Helper()
	cmd := h.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.lab.t.Fatalf("lab: %s: nft: %v: %s", h.name, err, out)
	}
}
