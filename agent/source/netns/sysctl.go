package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/bound"
)

// Sysctl reads the settings that bounds rest on, of the network namespace that
// the calling thread is in: the kernel resolves /proc/sys/net by the thread that
// opens it (net_ctl_header_lookup, net/sysctl_net.c). To read another's, call it
// inside [Do].
func Sysctl() (bound.Sysctl, error) {
	var r settings
	s := bound.Sysctl{
		KeepAliveTime:     time.Duration(r.read("tcp_keepalive_time")) * time.Second,
		KeepAliveInterval: time.Duration(r.read("tcp_keepalive_intvl")) * time.Second,
		KeepAliveProbes:   r.read("tcp_keepalive_probes"),
		Retries2:          r.read("tcp_retries2"),
		SynRetries:        r.read("tcp_syn_retries"),
		SynLinearTimeouts: r.readIfAny("tcp_syn_linear_timeouts", -1), // Linux 6.5
		SynAckRetries:     r.read("tcp_synack_retries"),
		RTOMax:            time.Duration(r.readIfAny("tcp_rto_max_ms", 0)) * time.Millisecond, // Linux 6.15
	}
	if r.err != nil {
		return bound.Sysctl{}, r.err
	}
	return s, nil
}

// settings reads files under /proc/sys/net/ipv4 up to the first that fails.
type settings struct{ err error }

// read returns a setting in the way of bound.Sysctl, where 0 stands for the
// default and -1 for a real 0.
func (r *settings) read(name string) int {
	if r.err != nil {
		return 0
	}
	path := "/proc/sys/net/ipv4/" + name
	text, err := os.ReadFile(path)
	if err != nil {
		r.err = err
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		r.err = fmt.Errorf("%s: %w", path, err)
		return 0
	}
	if n == 0 {
		return -1
	}
	return n
}

// readIfAny reads a setting that older kernels do not have; without is what
// they do, in the same way.
func (r *settings) readIfAny(name string, without int) int {
	if r.err != nil {
		return 0
	}
	n := r.read(name)
	if errors.Is(r.err, fs.ErrNotExist) {
		r.err = nil
		return without
	}
	return n
}
