// Command gen writes docs/findings.md from the rules of package verdict and the
// findings of its scenarios. go generate runs it in agent/verdict.
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/lifeline-go/lifeline/agent/verdict"
)

func main() {
	log.SetFlags(0)
	seen, err := examples("testdata")
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("../../docs/findings.md", []byte(page(verdict.Rules, seen)), 0o644); err != nil {
		log.Fatal(err)
	}
}

// examples returns the most telling finding of each rule in the scenarios: the
// first of the highest severity, as "severity title". Those of its promise come
// before those of a command.
func examples(dir string) (map[string]string, error) {
	seen := make(map[string]string)
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, err
	}
	overTime, err := filepath.Glob(filepath.Join(dir, "opened", "*.txt"))
	if err != nil {
		return nil, err
	}
	files = append(files, overTime...)
	for _, r := range verdict.Rules {
		best := verdict.Info
		own := filepath.Join(dir, r.Promise.String()+".txt")
		for _, file := range append([]string{own}, files...) {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			for line := range strings.Lines(string(text)) {
				found, ours := strings.CutPrefix(strings.TrimSpace(line), r.Code+" ")
				word, _, _ := strings.Cut(found, " ")
				severity, err := verdict.ParseSeverity(word)
				if ours && err == nil && (seen[r.Code] == "" || severity > best) {
					best, seen[r.Code] = severity, found
				}
			}
		}
	}
	return seen, nil
}

const head = `# Findings

<!-- Made by go generate from the rules in agent/verdict. Change them there. -->

What ` + "`lifeline check`" + ` can say, and what it rests on. Every finding has a code that
stays the same, a severity, the facts that were seen, and what to do.

| severity | means |
|---|---|
| fail | wrong now |
| warn | will hurt when something else fails, or may be wrong already |
| info | good to know |

On a healthy busy machine nothing is a fail. What could not be looked at accuses
nobody and is listed as a blind spot; the line *looks at* says which sources a
rule needs. Each rule has scenarios in ` + "`agent/verdict/testdata`" + ` that reach it, and
others that come near and must stay silent.

`

var promises = []struct {
	promise verdict.Promise
	title   string
}{
	{verdict.Names, "Names: its name resolves"},
	{verdict.Calls, "Calls: its calls return"},
	{verdict.Silence, "Silence: its silence is noticed"},
	{verdict.Leaks, "Leaks: its socket is closed"},
}

// page is the whole document.
func page(rules []verdict.Rule, seen map[string]string) string {
	var b strings.Builder
	b.WriteString(head)
	b.WriteString("| code | says | at most |\n|---|---|---|\n")
	for _, r := range rules {
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s |\n", r.Code, strings.ToLower(r.Code), r.Title, r.Worst)
	}
	for _, p := range promises {
		fmt.Fprintf(&b, "\n## %s\n", p.title)
		for _, r := range rules {
			if r.Promise == p.promise {
				section(&b, &r, seen[r.Code])
			}
		}
	}
	return b.String()
}

func section(b *strings.Builder, r *verdict.Rule, example string) {
	fmt.Fprintf(b, "\n### %s\n\n**%s%s.** At most %s; looks at %s.\n\n", r.Code, strings.ToUpper(r.Title[:1]), r.Title[1:], r.Worst, strings.Join(r.Sees, ", "))
	fmt.Fprintf(b, "```\n%s %s\n```\n\n%s\n\n", r.Code, example, r.Meaning)
	fmt.Fprintf(b, "*How it can be wrong.* %s\n\n*What to do.*\n\n", r.Wrong)
	for _, fix := range r.Fix {
		fmt.Fprintf(b, "- %s\n", fix)
	}
}
