package show

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/profile"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// promises are in the order in which people read them, each with what it says
// when it is kept.
var promises = []struct {
	promise verdict.Promise
	kept    string
}{
	{verdict.Names, "its name resolves"},
	{verdict.Calls, "its calls return"},
	{verdict.Silence, "its silence is noticed"},
	{verdict.Leaks, "its socket is closed"},
}

// Check writes the findings by promise, what could not be seen, and one line
// that sums it up. judged says which promises were judged at all, rights what
// whoever looked may see and do.
func Check(w io.Writer, m *fact.Machine, findings []verdict.Finding, judged func(verdict.Promise) bool, rights profile.Standing, s Style) {
	p := &page{w: w, style: s}
	p.hang("", "", looked(m))
	kept := 0
	for _, one := range promises {
		if !judged(one.promise) {
			continue
		}
		kept++
		p.line("")
		var of []verdict.Finding
		for _, f := range findings {
			if f.Promise == one.promise {
				of = append(of, f)
			}
		}
		title := s.paint("1", one.promise.String()) + "  " + one.kept
		if len(of) == 0 {
			title += ": nothing found"
		}
		p.line(title)
		for i := range of {
			p.finding(&of[i], i > 0 && of[i-1].Code == of[i].Code)
		}
	}
	p.line("")
	if len(m.Blind) > 0 {
		Blindness(w, m.Blind, s)
		p.line("")
	}
	p.hang("Rights: ", "  ", rights.String()+".")
	p.line("")
	p.line(summary(findings, kept, len(m.Blind)))
}

// looked says what the findings rest on.
func looked(m *fact.Machine) string {
	text := fmt.Sprintf("%s: looked at %s sockets of %s processes in %s", m.Host, verdict.Number(len(m.Sockets)), verdict.Number(len(m.Processes)), plural(len(m.Namespaces), "network namespace"))
	if m.Earlier != nil {
		text += " for " + bound.Format(m.Time.Sub(m.Earlier.Time))
	}
	return text + "."
}

// colours of severities, as SGR codes.
var colours = map[verdict.Severity]string{verdict.Fail: "31;1", verdict.Warn: "33", verdict.Info: "36"}

// finding writes one. What it means and what to do is said once for a run of
// findings of one rule.
// It may come from what answers in place of an agent, and draws nothing by its words.
func (p *page) finding(f *verdict.Finding, again bool) {
	const indent = "            "
	p.hang("  "+p.style.paint(colours[f.Severity], fmt.Sprintf("%-4s", f.Severity))+" "+fact.Printable(f.Code)+" ", indent, fact.Printable(f.Title))
	if seen := valuesText(f.Evidence); seen != "" {
		p.hang(indent+"seen: ", indent+"      ", fact.Printable(seen))
	}
	if again {
		return
	}
	p.hang(indent+"why:  ", indent+"      ", fact.Printable(f.Why))
	for _, fix := range f.Fix {
		p.hang(indent+"do:   ", indent+"      ", fact.Printable(fix))
	}
}

// valuesText is evidence in one line: key value; key value.
func valuesText(values verdict.Values) string {
	var parts []string
	for _, v := range values {
		key := strings.ReplaceAll(v.Key, "_", " ")
		if d, ok := strings.CutSuffix(v.Key, "_seconds"); ok {
			if seconds, ok := v.V.(float64); ok {
				parts = append(parts, strings.ReplaceAll(d, "_", " ")+" "+bound.Format(time.Duration(seconds*float64(time.Second))))
				continue
			}
		}
		switch value := v.V.(type) {
		case nil:
			parts = append(parts, key+" unknown")
		case string:
			parts = append(parts, key+" "+value)
		case bool:
			if value {
				parts = append(parts, key)
			} else {
				parts = append(parts, "not "+key)
			}
		case int:
			parts = append(parts, key+" "+verdict.Number(value))
		case []string:
			parts = append(parts, key+" "+strings.Join(value, ", "))
		default:
			parts = append(parts, key+" "+fmt.Sprint(value))
		}
	}
	return strings.Join(parts, "; ")
}

// summary is the last line. It never calls well what it could not see.
func summary(findings []verdict.Finding, promises, blind int) string {
	n := make(map[verdict.Severity]int)
	for _, f := range findings {
		n[f.Severity]++
	}
	text := "All four promises are kept"
	if promises < 4 {
		text = "Nothing found in " + plural(promises, "promise")
	}
	if len(findings) > 0 {
		text = fmt.Sprintf("%s, %s, %s", plural(n[verdict.Fail], "failure"), plural(n[verdict.Warn], "warning"), plural(n[verdict.Info], "note"))
	}
	if blind > 0 {
		return text + ", as far as could be seen: " + plural(blind, "blind spot") + " above."
	}
	return text + "."
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return verdict.Number(n) + " " + noun + "s"
}

// CheckJSON writes the findings as one document.
func CheckJSON(w io.Writer, m *fact.Machine, findings []verdict.Finding, rights profile.Standing, line bool) error {
	if findings == nil {
		findings = []verdict.Finding{}
	}
	return encode(w, struct {
		Head
		Findings []verdict.Finding `json:"findings"`
		Profile  profile.Standing  `json:"profile"`
	}{head(m), findings, rights}, line)
}
