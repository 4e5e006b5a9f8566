package show

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// ActJSON writes what an act did, or what it would do, as one document: what
// was seen first, then the list of what was done to whom, then the values in
// more.
func ActJSON(w io.Writer, m *fact.Machine, done bool, list []verdict.Values, more ...verdict.Value) error {
	return actJSON(w, m, done, list, more, false)
}

// ActLine is [ActJSON] on one line, for a stream of them.
func ActLine(w io.Writer, m *fact.Machine, done bool, list []verdict.Values, more ...verdict.Value) error {
	return actJSON(w, m, done, list, more, true)
}

func actJSON(w io.Writer, m *fact.Machine, done bool, list []verdict.Values, more []verdict.Value, line bool) error {
	if list == nil {
		list = []verdict.Values{}
	}
	name := "would"
	if done {
		name = "done"
	}
	h := head(m)
	return encode(w, append(verdict.Values{
		{Key: "schema", V: h.Schema},
		{Key: "host", V: h.Host},
		{Key: "time", V: h.Time},
		{Key: "blind", V: h.Blind},
		{Key: name, V: list},
	}, more...), line)
}

// Touched tells for JSON what an act does to the connections of each group.
func Touched(what string, c *census.Census) (list []verdict.Values) {
	for i := range c.Groups {
		g := &c.Groups[i]
		values := verdict.Values{{Key: "what", V: what}}
		for _, v := range groupValues(c.By, g) {
			values = append(values, v)
			if v.Key == "processes" {
				break // what follows is for who counts
			}
		}
		list = append(list, values)
	}
	return list
}

// Touching writes whom an act touches, as a table.
func Touching(w io.Writer, c *census.Census) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "COUNT\tPEER\tNETNS\tPROCESSES\tLAST ACK\n")
	for i := range c.Groups {
		g := &c.Groups[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", verdict.Number(g.Count), g.Labels[0], g.Labels[1], holders(g), lastAck(g))
	}
	_ = t.Flush()
}
