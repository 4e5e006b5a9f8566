package dnsconf

import (
	"bytes"
	"errors"
	"strings"
)

// Why a hosts line of nsswitch.conf is malformed.
var (
	ErrUnclosed = errors.New("hosts: a [ without its ]")
	ErrNoSource = errors.New("hosts: a reaction without a source before it")
)

// Source is one word of the hosts line with the reactions that follow it.
type Source struct {
	Name   string // files, dns, resolve, mdns4_minimal …
	Action string // as written in brackets: NOTFOUND=return; several with a blank between them; "" = none
}

// ParseSwitch reads the hosts line of nsswitch.conf(5). When there are several
// the last counts, as in glibc (process_line in nss/nss_database.c). Sources
// before what is malformed are returned with the error. The result is never
// nil.
func ParseSwitch(text []byte) ([]Source, error) {
	sources, err := []Source{}, error(nil)
	for line := range bytes.Lines(text) {
		line, _, _ = bytes.Cut(line, []byte("#"))
		database, rest, ok := strings.Cut(string(line), ":")
		if name := fields(database); ok && len(name) == 1 && name[0] == "hosts" {
			sources, err = parseSources(rest)
		}
	}
	return sources, err
}

// parseSources reads sources, each with the reactions in brackets that follow
// it: files [NOTFOUND=return] dns [!UNAVAIL=return TRYAGAIN=continue].
func parseSources(text string) ([]Source, error) {
	sources := []Source{}
	for {
		text = strings.TrimLeft(text, blanks)
		if text == "" {
			return sources, nil
		}
		if !strings.HasPrefix(text, "[") {
			end := strings.IndexAny(text, blanks+"[")
			if end < 0 {
				end = len(text)
			}
			sources = append(sources, Source{Name: text[:end]})
			text = text[end:]
			continue
		}
		inside, rest, closed := strings.Cut(text[1:], "]")
		if !closed {
			return sources, ErrUnclosed
		}
		if len(sources) == 0 {
			return sources, ErrNoSource
		}
		last := &sources[len(sources)-1]
		last.Action = strings.Join(append(fields(last.Action), fields(inside)...), " ")
		text = rest
	}
}

// Returns reports whether the search ends at the source when what became of it
// is status: NOTFOUND, UNAVAIL or TRYAGAIN. Where nothing is said it goes on,
// nsswitch.conf(5); case does not matter.
func (s Source) Returns(status string) bool {
	returns := false
	for _, reaction := range fields(s.Action) {
		when, action, _ := strings.Cut(reaction, "=")
		when, not := strings.CutPrefix(when, "!")
		if strings.EqualFold(when, status) != not {
			returns = strings.EqualFold(action, "return")
		}
	}
	return returns
}
