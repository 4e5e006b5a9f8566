package daemon

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// silentCode is that of findings of the watch of peers.
const silentCode = "S001"

// silence is the finding of a verdict of the watch: that of S001.
func silence(c *verdict.Change) verdict.Finding {
	f := verdict.Finding{Code: silentCode, Promise: verdict.Silence, Severity: verdict.Fail, Evidence: c.Evidence,
		Subject: append(verdict.AboutPeer(c.Addr, c.Netns, c.Interface), verdict.Value{Key: "processes", V: holderNames(c.Processes)}, verdict.Value{Key: "count", V: c.Count}),
		Why:     "What was sent to it went unanswered. Programs that use these connections do not know it: writes succeed, reads wait."}
	f.Title = fmt.Sprintf("%s is silent: %s", c.Addr, many(c.Count, "connection"))
	if quiet, ok := c.Quiet.Get(); ok {
		f.Title += fmt.Sprintf(", nothing acknowledged for %s when it was noticed", bound.Format(quiet))
	}
	last, known := c.Last.Get()
	switch {
	case c.Never:
		f.Why += " Of some the kernel never tells."
	case known:
		f.Bound = c.Last
		f.Why += fmt.Sprintf(" The kernel tells the last of them after %s.", bound.Format(last))
	}
	f.Fix = fixOf(silentCode, c.Addr)
	return f
}

// fixOf is the advice of a rule about a peer.
func fixOf(code string, peer netip.Addr) []string {
	i := slices.IndexFunc(verdict.Rules, func(r verdict.Rule) bool { return r.Code == code })
	fix := slices.Clone(verdict.Rules[i].Fix)
	for i := range fix {
		fix[i] = strings.ReplaceAll(fix[i], "PEER", peer.String())
	}
	return fix
}

func holderNames(holders []verdict.Holder) []string {
	names := []string{}
	for _, h := range holders {
		names = append(names, fmt.Sprintf("%s[%d]", h.Name, h.PID))
	}
	return names
}

// place is a call in words.
func place(c fact.Call) string {
	if c.Line == 0 {
		return c.Func
	}
	return fmt.Sprintf("%s (%s:%d)", c.Func, c.File[strings.LastIndex(c.File, "/")+1:], c.Line)
}
