package show

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// Lookups writes what came of looking names up in every way: a table for each,
// the way to each nameserver, and what it all means.
func Lookups(w io.Writer, m *fact.Machine, meaning []verdict.Finding, s Style) {
	p := &page{w: w, style: s}
	for i := range m.Lookups {
		l := &m.Lookups[i]
		if i > 0 {
			p.line("")
		}
		title := s.paint("1", fact.Printable(l.Name))
		if l.Asked != l.Name {
			title += ", asked for as " + l.Asked
		}
		p.line(title)
		lookupTable(w, l)
	}
	p.line("")
	for _, line := range serverRoutes(m.Names) {
		p.hang("", "  ", line)
	}
	Meaning(w, meaning, s)
	if len(meaning) == 0 {
		p.line("")
		p.line(allResolve(m))
	}
}

// allResolve is what there is to say where nothing is wrong.
func allResolve(m *fact.Machine) string {
	asked := slices.ContainsFunc(m.Lookups, func(l fact.Lookup) bool { return l.Ways[0].Kind != fact.WayAddress })
	switch {
	case !asked:
		return "An address needs no resolver: nobody was asked."
	case len(m.Lookups) == 1:
		return "It resolves in every way that programs use."
	}
	return "They resolve in every way that programs use."
}

// lookupRow is one line: a way, with its answers to both questions at once and
// to each alone.
type lookupRow struct {
	name  string
	ways  [3]*fact.Way // by family
	first *fact.Way
}

func lookupTable(w io.Writer, l *fact.Lookup) {
	var rows []*lookupRow
	for i := range l.Ways {
		way := &l.Ways[i]
		at := slices.IndexFunc(rows, func(r *lookupRow) bool {
			return r.first.Kind == way.Kind && r.first.Server == way.Server && r.first.Transport == way.Transport
		})
		if at < 0 {
			at = len(rows)
			rows = append(rows, &lookupRow{name: wayName(way), first: way})
		}
		if int(way.Family) < len(rows[at].ways) {
			rows[at].ways[way.Family] = way
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "  WAY\tBOTH\tA\tAAAA\tTIME\n")
	for _, r := range rows {
		var took time.Duration
		cells := [3]string{"-", "-", "-"}
		for i, way := range r.ways {
			if way != nil {
				took, cells[i] = max(took, way.Took), answerText(way)
			}
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", r.name, cells[0], cells[1], cells[2], tookText(took))
	}
	_ = t.Flush()
}

// wayName is what a way is called: getaddrinfo, nameserver 10.0.0.53 udp.
func wayName(w *fact.Way) string {
	name := w.Kind.String()
	if w.Kind == fact.WayGo {
		name = "Go's own"
	}
	if w.Server.IsValid() {
		name += " " + w.Server.String()
	}
	if w.Transport != fact.TransportNone {
		name += " " + w.Transport.String()
	}
	return name
}

func answerText(w *fact.Way) string {
	const most = 3
	text := w.Answer.String()
	switch {
	case w.Answer == fact.Addresses:
		text = strings.Join(addressTexts(w.Addresses[:min(len(w.Addresses), most)]), ", ")
		if more := len(w.Addresses) - most; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
	case w.Answer == fact.Refused || w.Answer == fact.Failed:
		text = cmp.Or(w.Error, text)
	case w.Kind == fact.WayHosts && w.Answer == fact.NoName:
		text = "not in it"
	}
	if longest := 40; len(text) > longest && w.Answer != fact.Addresses {
		text = text[:strings.LastIndexByte(text[:longest], ' ')+1] + "…"
	}
	if w.Truncated {
		text += " (cut off)"
	}
	return text
}

func addressTexts(addrs []netip.Addr) []string {
	list := make([]string, 0, len(addrs))
	for _, a := range addrs {
		list = append(list, a.String())
	}
	return list
}

func tookText(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return bound.Format(d.Round(10 * time.Millisecond))
}

// serverRoutes says by which interface and next hop each nameserver is reached.
func serverRoutes(names *fact.Names) (lines []string) {
	if names == nil {
		return nil
	}
	if resolv, ok := names.Resolv.Get(); ok && len(resolv.Servers) == 0 {
		lines = append(lines, "resolv.conf names no nameserver: resolvers ask this machine itself.")
	}
	for i := range names.Nameservers {
		s := &names.Nameservers[i]
		text := "nameserver " + s.Addr.String()
		switch {
		case s.NoRoute != "":
			text += ": no route, " + s.NoRoute
		case s.Interface == "":
			text += ": by a route that was not found out"
		case s.Gateway.IsValid():
			text += fmt.Sprintf(": by %s, next hop %s", s.Interface, s.Gateway)
		default:
			text += ": by " + s.Interface + ", on the link"
		}
		if i >= 3 {
			text += "; nobody asks more than the first three"
		}
		lines = append(lines, text)
	}
	return lines
}

// wayJSON is fact.Way in JSON.
type wayJSON struct {
	Name      string   `json:"name"`
	Way       string   `json:"way"`
	Family    string   `json:"family"`
	Server    *string  `json:"server"`
	Transport *string  `json:"transport"`
	OK        bool     `json:"ok"`
	Answer    string   `json:"answer"`
	Addresses []string `json:"addresses"`
	MS        float64  `json:"ms"`
	Error     *string  `json:"error"`
	RCode     *string  `json:"rcode"`
	Truncated bool     `json:"truncated"`
}

type nameserverJSON struct {
	Address   string  `json:"address"`
	Interface *string `json:"interface"`
	Gateway   *string `json:"gateway"` // null: on the link, or no route
	NoRoute   *string `json:"no_route"`
}

// LookupsJSON writes the same as one document.
func LookupsJSON(w io.Writer, m *fact.Machine, meaning []verdict.Finding) error {
	ways := []wayJSON{}
	for i := range m.Lookups {
		for j := range m.Lookups[i].Ways {
			ways = append(ways, wayOf(&m.Lookups[i], &m.Lookups[i].Ways[j]))
		}
	}
	servers := []nameserverJSON{}
	if m.Names != nil {
		for _, s := range m.Names.Nameservers {
			j := nameserverJSON{Address: s.Addr.String(), Interface: given(s.Interface), NoRoute: given(s.NoRoute)}
			if s.Gateway.IsValid() {
				j.Gateway = given(s.Gateway.String())
			}
			servers = append(servers, j)
		}
	}
	if meaning == nil {
		meaning = []verdict.Finding{}
	}
	return encode(w, struct {
		Head
		Ways        []wayJSON         `json:"ways"`
		Nameservers []nameserverJSON  `json:"nameservers"`
		Meaning     []verdict.Finding `json:"meaning"`
	}{head(m), ways, servers, meaning}, false)
}

func wayOf(l *fact.Lookup, w *fact.Way) wayJSON {
	j := wayJSON{
		Name: l.Name, Way: w.String(), Family: w.Family.String(), OK: w.Answer == fact.Addresses, Answer: w.Answer.String(),
		Addresses: addressTexts(w.Addresses), MS: milliseconds(w.Took),
		Error: given(w.Error), RCode: given(w.RCode), Transport: given(w.Transport.String()), Truncated: w.Truncated,
	}
	if w.Server.IsValid() {
		j.Server = given(w.Server.String())
	}
	if !j.OK && j.Error == nil {
		j.Error = given(w.Answer.String())
	}
	return j
}

// given is a text, null where there is none.
func given(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
