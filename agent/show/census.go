package show

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// holdersShown is how many processes a line names before it only counts them.
const holdersShown = 2

// Census writes the counts as a table. top limits the lines; 0 means all. What
// is left out is counted in a line of its own, so that the column adds up.
func Census(w io.Writer, c *census.Census, top int) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	var names []string
	for _, key := range c.By {
		names = append(names, strings.ToUpper(string(key)))
	}
	fmt.Fprintf(t, "COUNT\t%s\tPROCESSES\tLAST ACK\tUNACKED\tSILENT FOR: IDLE\tSENDING\n", strings.Join(names, "\t"))
	for i := range c.Groups {
		if top > 0 && i == top {
			rest := c.Groups[top:]
			n := 0
			for j := range rest {
				n += rest[j].Count
			}
			fmt.Fprintf(t, "%s\t(%s more)\n", verdict.Number(n), verdict.Number(len(rest)))
			break
		}
		g := &c.Groups[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", verdict.Number(g.Count), strings.Join(g.Labels, "\t"), holders(g), lastAck(g), unacked(g), longest(g.Idle), longest(g.Sending))
	}
	fmt.Fprintf(t, "%s\ttotal: %s ipv4, %s ipv6, %s unix\n", verdict.Number(c.Total), verdict.Number(c.Counts[0]), verdict.Number(c.Counts[1]), verdict.Number(c.Counts[2]))
	_ = t.Flush()
}

func holders(g *census.Group) string {
	var names []string
	for _, h := range g.Holders[:min(holdersShown, len(g.Holders))] {
		name := h.Name
		if h.PID != 0 {
			name += "[" + strconv.Itoa(int(h.PID)) + "]"
		}
		if len(g.Holders) > 1 {
			name += " " + verdict.Number(h.Count)
		}
		names = append(names, name)
	}
	if more := len(g.Holders) - holdersShown; more > 0 {
		names = append(names, fmt.Sprintf("%s more", verdict.Number(more)))
	}
	return strings.Join(names, ", ")
}

func lastAck(g *census.Group) string {
	if ack, ok := g.LastAck.Get(); ok {
		return bound.Format(ack)
	}
	return "-"
}

func unacked(g *census.Group) string {
	if g.Unacked == 0 {
		return "-"
	}
	return fmt.Sprintf("%d%%", (100*g.Unacked+g.Count-1)/g.Count)
}

func longest(l census.Longest) string {
	switch {
	case l.Known > 0:
		return l.Bound.String()
	case l.Unknown > 0:
		return "?"
	}
	return "-"
}

// censusDocument is the JSON of a census.
type censusDocument struct {
	Head
	By     []census.Key     `json:"by"`
	Groups []verdict.Values `json:"groups"`
	Total  int              `json:"total"`
	Totals map[string]int   `json:"totals"`
}

// CensusJSON writes the counts as one document, on one line when line is set.
func CensusJSON(w io.Writer, m *fact.Machine, c *census.Census, top int, line bool) error {
	d := censusDocument{Head: head(m), By: c.By, Groups: []verdict.Values{}, Total: c.Total,
		Totals: map[string]int{"ipv4": c.Counts[0], "ipv6": c.Counts[1], "unix": c.Counts[2]}}
	for i := range c.Groups {
		if top > 0 && i == top {
			break
		}
		d.Groups = append(d.Groups, groupValues(c.By, &c.Groups[i]))
	}
	return encode(w, d, line)
}

type holder struct {
	PID   *int32 `json:"pid"` // null for sockets without an owner
	Name  string `json:"name"`
	Count int    `json:"count"`
}

func groupValues(by []census.Key, g *census.Group) verdict.Values {
	var v verdict.Values
	for i, key := range by {
		v = append(v, verdict.Value{Key: string(key), V: g.Labels[i]})
	}
	processes := []holder{}
	for _, h := range g.Holders {
		one := holder{Name: h.Name, Count: h.Count}
		if h.PID != 0 {
			one.PID = &h.PID
		}
		processes = append(processes, one)
	}
	var lastAck any
	if ack, ok := g.LastAck.Get(); ok {
		lastAck = seconds(ack)
	}
	return append(v,
		verdict.Value{Key: "count", V: g.Count},
		verdict.Value{Key: "processes", V: processes},
		verdict.Value{Key: "last_ack_seconds", V: lastAck},
		verdict.Value{Key: "unacked", V: g.Unacked},
		verdict.Value{Key: "queue_bytes", V: g.QueueBytes},
		verdict.Value{Key: "bound_idle_seconds", V: boundSeconds(g.Idle)},
		verdict.Value{Key: "bound_sending_seconds", V: boundSeconds(g.Sending)},
		verdict.Value{Key: "bound_idle_never", V: g.Idle.Known > 0 && g.Idle.Never()},
		verdict.Value{Key: "bound_unknown", V: g.Idle.Unknown},
	)
}

// boundSeconds is null for a bound that is unknown or that never ends.
func boundSeconds(l census.Longest) any {
	if l.Known == 0 || l.Never() {
		return nil
	}
	return seconds(l.After)
}
