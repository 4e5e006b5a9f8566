// Package show turns facts, counts and findings into text for people and JSON
// for programs. It decides nothing.
package show

import (
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Schema names the form of every JSON document.
const Schema = "lifeline/v1"

// Head is how every JSON document begins.
type Head struct {
	Schema string    `json:"schema"`
	Host   string    `json:"host"`
	Time   time.Time `json:"time"`
	Blind  []blind   `json:"blind"`
}

// blind is fact.Blind in JSON.
type blind struct {
	Source string  `json:"source"`
	Error  string  `json:"error"`
	Needs  *string `json:"needs"` // null when nothing would help
}

func head(m *fact.Machine) Head {
	h := Head{Schema: Schema, Host: m.Host, Time: m.Time.Round(0), Blind: []blind{}}
	for _, b := range m.Blind {
		entry := blind{Source: b.Source, Error: b.Error}
		if b.Needs != "" {
			entry.Needs = &b.Needs
		}
		h.Blind = append(h.Blind, entry)
	}
	return h
}

// encode writes one document: indented, or on one line for a stream of them.
func encode(w io.Writer, document any, line bool) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if !line {
		e.SetIndent("", "  ")
	}
	return e.Encode(document)
}

// Blindness writes what could not be looked at, one paragraph each; nothing
// when there is nothing.
func Blindness(w io.Writer, list []fact.Blind, s Style) {
	if len(list) == 0 {
		return
	}
	p := &page{w: w, style: s}
	p.line("Could not see:")
	for _, b := range list {
		text := b.Source + ": " + b.Error
		if b.Needs != "" {
			text += "; needs " + b.Needs
		}
		p.hang("  ", "  ", text)
	}
}

// Style is how text is laid out.
type Style struct {
	Width int  // columns; 0 means 100
	Color bool // the terminal shows colours
}

// page writes wrapped lines.
type page struct {
	w     io.Writer
	style Style
}

func (p *page) line(text string) { _, _ = io.WriteString(p.w, text+"\n") }

// hang writes text with first before its first line and rest before the others.
func (p *page) hang(first, rest, text string) {
	width := p.style.Width
	if width == 0 {
		width = 100
	}
	line, prefix := first, rest
	empty := true
	for word := range strings.FieldsSeq(text) {
		if !empty && visible(line)+1+visible(word) > width {
			p.line(line)
			line, empty = prefix, true
		}
		if !empty {
			line += " "
		}
		line += word
		empty = false
	}
	p.line(line)
}

// visible is the number of columns that s takes, without escape sequences.
func visible(s string) int {
	n, escaped := 0, false
	for _, r := range s {
		switch {
		case r == '\x1b':
			escaped = true
		case escaped:
			escaped = r != 'm'
		default:
			n++
		}
	}
	return n
}

// paint puts s in the colour of an SGR code where the style has colours.
func (s Style) paint(code, text string) string {
	if !s.Color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// seconds is a duration in JSON.
func seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond)) / float64(time.Second)
}
