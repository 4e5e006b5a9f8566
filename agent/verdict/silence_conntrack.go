package verdict

import (
	"fmt"
	"strconv"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Conntrack refuses new connections when its table is full. At 80 % there is
// time to act; at 95 % an ordinary burst takes the rest.
const (
	conntrackHighPercent = 80
	conntrackFullPercent = 95
)

var conntrackFull = Rule{
	Code:    "S005",
	Promise: Silence,
	Title:   "the connection tracking table is nearly full",
	Worst:   Fail,
	Sees:    []string{"conntrack"},
	Meaning: `When the table is full the kernel drops the first packet of every new connection without a word ("nf_conntrack: table full, dropping packet" in its log): to the programs that is a silent path. A warning above 80 % of the maximum, a failure above 95 %.`,
	Wrong:   `A table that is kept full of entries nobody waits for (half-open, closing) can be emptied by the kernel itself when it must; it drops those first.`,
	Fix: []string{
		"sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max",
		"raise the maximum: sysctl -w net.netfilter.nf_conntrack_max=MAX (about 320 bytes of kernel memory an entry)",
		"forget idle connections sooner than after 5 days: sysctl -w net.netfilter.nf_conntrack_tcp_timeout_established=86400",
	},
	judge: judgeConntrack,
}

func judgeConntrack(v *view) []Finding {
	var findings []Finding
	for i := range v.Conntrack {
		t := &v.Conntrack[i]
		used, ok := t.Count.Get()
		most, bounded := t.Max.Get()
		if !ok || !bounded || most <= 0 || !above(used, most, conntrackHighPercent) {
			continue
		}
		f := Finding{
			Severity: Warn,
			Title: fmt.Sprintf("connection tracking is %d %% full: %s of %s entries",
				percent(used, most), Number(used), Number(most)),
			Subject:  Values{{"netns", t.Netns}},
			Evidence: Values{{"entries", used}, {"max", most}, {"used_percent", percent(used, most)}},
			Why:      "When the table is full, the kernel drops every new connection without a word to either end.",
			fill:     []string{"MAX", strconv.FormatInt(2*int64(most), 10)},
			weight:   percent(used, most),
		}
		if ns := v.Namespace(t.Netns); ns != nil && ns.Name != "" {
			f.Subject = f.Subject.add("namespace", ns.Name)
		}
		if above(used, most, conntrackFullPercent) {
			f.Severity = Fail
		}
		if grown, ok := v.conntrackGrowth(t, used); ok {
			f.Evidence = f.Evidence.add("growth_per_second", grown)
		}
		findings = append(findings, f)
	}
	return findings
}

// conntrackGrowth is the change since the earlier look, in entries per second.
func (v *view) conntrackGrowth(t *fact.Conntrack, used int) (float64, bool) {
	if v.Earlier == nil || v.elapsed <= 0 {
		return 0, false
	}
	for i := range v.Earlier.Conntrack {
		was := &v.Earlier.Conntrack[i]
		if n, ok := was.Count.Get(); ok && was.Netns == t.Netns {
			return rounded(float64(used-n) / v.elapsed.Seconds()), true
		}
	}
	return 0, false
}
