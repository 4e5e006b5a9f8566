package web

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

var (
	//go:embed page.html
	pageText string

	// Made when it is needed first, since each start of the command would pay for it.
	pageTemplate = sync.OnceValue(func() *template.Template {
		return template.Must(template.New("page").Funcs(template.FuncMap{
			"number": verdict.Number, "seconds": secondsText, "bound": boundText, "moment": momentText, "status": statusText,
			"open": func(f state.Finding) bool { return f.Resolved == nil }, "percent": percentText, "mib": mibText, "value": valueText, "first": first, "rest": restText,
		}).Parse(pageText))
	})
)

// page is the State to be read, made anew for each who asks. Where there is
// JavaScript, app.js puts the live page in its place.
func (s *server) page(w http.ResponseWriter, r *http.Request) {
	var text bytes.Buffer
	if err := pageTemplate().Execute(&text, s.Agent.State()); err != nil {
		refuse(w, http.StatusInternalServerError, fmt.Sprintf("the page cannot be made: %v", err))
		return
	}
	send(w, r, "text/html; charset=utf-8", text.Bytes(), packed(text.Bytes()))
}

// mostRows is how many entries of a list can be read without JavaScript.
const mostRows = 50

// first are the entries of a list that are shown, rest says of the others.
func first(list any) any {
	v := reflect.ValueOf(list)
	return v.Slice(0, min(v.Len(), mostRows)).Interface()
}

func restText(list any) template.HTML {
	n := reflect.ValueOf(list).Len() - mostRows
	if n <= 0 {
		return ""
	}
	return template.HTML(fmt.Sprintf(`<p class="dim">and %s more, in the <a href="/api/v1/state">JSON</a></p>`, verdict.Number(n)))
}

// secondsText is a time in seconds as people read it.
func secondsText(s *float64) string {
	if s == nil {
		return "unknown"
	}
	return bound.Format(time.Duration(*s * float64(time.Second)))
}

func boundText(s *float64, never bool) string {
	if never {
		return "never"
	}
	return secondsText(s)
}

func momentText(t any) string {
	switch t := t.(type) {
	case time.Time:
		if !t.IsZero() {
			return t.Format("2006-01-02 15:04:05")
		}
	case *time.Time:
		if t != nil {
			return momentText(*t)
		}
	}
	return "not yet"
}

// statusText is a status in a word, beside its colour.
func statusText(s state.Status) string {
	return cmp.Or(map[state.Status]string{state.Kept: "kept", state.Warned: "warning", state.Broken: "broken"}[s], "unknown")
}

func percentText(f *float64) string {
	if f == nil {
		return "unknown"
	}
	return fmt.Sprintf("%.2g %%", *f*100)
}

func mibText(n *uint64) string {
	if n == nil {
		return "unknown"
	}
	return fmt.Sprintf("%d MiB", *n>>20)
}

func valueText(v any) string {
	if v == nil {
		return "unknown"
	}
	return fmt.Sprint(v)
}
