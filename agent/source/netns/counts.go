package netns

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Counts reads what the kernel counted of TCP, IPv4 and IPv6 together, in the
// network namespace that the calling thread is in. It needs no right.
func Counts() (fact.TCPCounts, error) {
	const path = "/proc/thread-self/net/snmp"
	text, err := os.ReadFile(path)
	if err != nil {
		return fact.TCPCounts{}, err
	}
	counts, err := parseCounts(string(text))
	if err != nil {
		return counts, fmt.Errorf("%s: %w", path, err)
	}
	return counts, nil
}

// parseCounts reads the two lines of TCP in /proc/net/snmp: names, then values.
func parseCounts(text string) (c fact.TCPCounts, err error) {
	var names []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Tcp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		into := map[string]*uint64{"ActiveOpens": &c.Opened, "PassiveOpens": &c.Accepted, "EstabResets": &c.Reset, "RetransSegs": &c.Resent}
		for i := range min(len(names), len(fields)) {
			target := into[names[i]]
			if target == nil {
				continue
			}
			if *target, err = strconv.ParseUint(fields[i], 10, 64); err != nil {
				return fact.TCPCounts{}, fmt.Errorf("%s: %w", names[i], err)
			}
			delete(into, names[i])
		}
		if len(into) > 0 {
			return fact.TCPCounts{}, fmt.Errorf("%d counters of TCP are missing", len(into))
		}
		return c, nil
	}
	return c, fmt.Errorf("it does not speak of TCP")
}
