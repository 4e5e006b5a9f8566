package show

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// resolvers in the order in which they are counted, with what they are.
var resolvers = []struct {
	resolver verdict.Resolver
	meaning  string
}{
	{verdict.ByGo, "ask DNS by Go's own resolver"},
	{verdict.ByEither, "may do either"},
	{verdict.ByItself, "ask nameservers by code that they bring along"},
	{verdict.BySystem, "ask the operating system"},
	{verdict.ByUnknown, "cannot be told from their files"},
	{verdict.ByNobody, "look no names up"},
}

// Programs writes who resolves the names of each program, and which of them fail
// here: those that do not ask the operating system, or all.
func Programs(w io.Writer, m *fact.Machine, programs []verdict.Program, all bool, s Style) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	listed := 0
	for i := range programs {
		p := &programs[i]
		if !all && p.Resolver != verdict.ByGo && p.Resolver != verdict.ByEither && p.Resolver != verdict.ByItself {
			continue
		}
		if listed++; listed == 1 {
			fmt.Fprintf(t, "RESOLVER\tFAILS HERE\tPROGRAM\tWHY\n")
		}
		resolver := string(p.Resolver)
		if p.Here != p.Resolver && p.Here != verdict.ByUnknown {
			resolver += ", " + string(p.Here) + " here"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", resolver, failsText(p), p.Path, p.Reason)
	}
	_ = t.Flush()
	p := &page{w: w, style: s}
	if listed > 0 {
		p.line("")
	}
	p.hang("", "  ", programsSummary(m, programs, all))
	for _, why := range reasonsToFail(programs) {
		p.hang("", "  ", why)
	}
}

func failsText(p *verdict.Program) string {
	switch fails, ok := p.Fails.Get(); {
	case !ok:
		return "not known"
	case fails:
		return "yes"
	}
	return "no"
}

func programsSummary(m *fact.Machine, programs []verdict.Program, all bool) string {
	text := plural(len(programs), "program")
	if m.Programs.Scripts > 0 {
		text += fmt.Sprintf(" and %s (what interprets them resolves their names)", plural(m.Programs.Scripts, "script"))
	}
	separator := ": "
	for _, r := range resolvers {
		n, failing := 0, 0
		for i := range programs {
			if programs[i].Resolver == r.resolver {
				n++
				if programs[i].Fails.OK && programs[i].Fails.Value {
					failing++
				}
			}
		}
		if n == 0 {
			continue
		}
		text += fmt.Sprintf("%s%s %s (%s)", separator, verdict.Number(n), r.resolver, r.meaning)
		switch {
		case failing == n && n == 1:
			text += " and fails here"
		case failing == n:
			text += ", all of which fail here"
		case failing > 0:
			text += fmt.Sprintf(", %s of which fail here", verdict.Number(failing))
		}
		separator = "; "
	}
	if !all {
		text += ". --all lists every one"
	}
	if m.Programs.Cut {
		text += ". There were more, for which there was no time"
	}
	return text + "."
}

// reasonsToFail are why programs fail, each once, with whose reason it is.
func reasonsToFail(programs []verdict.Program) (texts []string) {
	for i := range programs {
		p := &programs[i]
		if !p.Fails.OK || !p.Fails.Value {
			continue
		}
		text := fmt.Sprintf("Those that resolve by %q fail because %s.", p.Here, strings.TrimSuffix(p.Why, "."))
		if !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	return texts
}

// programJSON is verdict.Program in JSON.
type programJSON struct {
	Path     string           `json:"path"`
	Name     string           `json:"name"`
	Resolver verdict.Resolver `json:"resolver"`
	Here     verdict.Resolver `json:"resolver_here"`
	Reason   string           `json:"reason"`
	Fails    *bool            `json:"fails_here"` // null: not known
	Why      *string          `json:"fails_why"`
	Go       *string          `json:"go"` // null: not a Go program
	CGO      *bool            `json:"cgo_enabled"`
	Tags     []string         `json:"tags"`
	Static   bool             `json:"static"`
	Libc     *string          `json:"libc"`
}

// ProgramsJSON writes the same as one document, with what it means.
func ProgramsJSON(w io.Writer, m *fact.Machine, programs []verdict.Program, meaning []verdict.Finding) error {
	list := make([]programJSON, 0, len(programs))
	for i := range programs {
		p := &programs[i]
		j := programJSON{Path: p.Path, Name: p.Called, Resolver: p.Resolver, Here: p.Here, Reason: p.Reason, Fails: known(p.Fails), Why: given(p.Why),
			Go: given(p.Go), CGO: known(p.CGO), Tags: p.Tags, Static: p.Static, Libc: given(p.Libc.String())}
		if j.Tags == nil {
			j.Tags = []string{}
		}
		list = append(list, j)
	}
	if meaning == nil {
		meaning = []verdict.Finding{}
	}
	return encode(w, struct {
		Head
		Binaries []programJSON     `json:"binaries"`
		Scripts  int               `json:"scripts"`
		Cut      bool              `json:"cut"`
		Meaning  []verdict.Finding `json:"meaning"`
	}{head(m), list, m.Programs.Scripts, m.Programs.Cut, meaning}, false)
}

// Meaning writes findings without a heading; nothing when there are none.
func Meaning(w io.Writer, findings []verdict.Finding, s Style) {
	p := &page{w: w, style: s}
	for i := range findings {
		if i == 0 {
			p.line("")
		}
		p.finding(&findings[i], i > 0 && findings[i-1].Code == findings[i].Code)
	}
}
