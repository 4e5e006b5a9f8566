//go:build linux

package dnsconf

import (
	"bytes"
	"errors"
	"strings"

	"github.com/lifeline-go/lifeline/agent/fact"
)

var (
	errUnclosed = errors.New("hosts: a [ without its ]")
	errNoSource = errors.New("hosts: a reaction without a source before it")
)

// parseSwitch reads the hosts line of nsswitch.conf(5). When there are several
// the last counts, as in glibc (process_line in nss/nss_database.c). Sources
// before what is malformed are returned with the error. The result is never
// nil.
func parseSwitch(text []byte) ([]fact.Source, error) {
	sources, err := []fact.Source{}, error(nil)
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
func parseSources(text string) ([]fact.Source, error) {
	sources := []fact.Source{}
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
			sources = append(sources, fact.Source{Name: fact.Printable(text[:end])})
			text = text[end:]
			continue
		}
		inside, rest, closed := strings.Cut(text[1:], "]")
		if !closed {
			return sources, errUnclosed
		}
		if len(sources) == 0 {
			return sources, errNoSource
		}
		last := &sources[len(sources)-1]
		last.Action = strings.Join(append(fields(last.Action), printable(fields(inside))...), " ")
		text = rest
	}
}

const blanks = " \t\r\n"
