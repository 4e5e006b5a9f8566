package sshconf

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lifeline-go/lifeline/internal/knownhosts"
)

// values are the words of the directives that apply to a host.
type values map[string][]string

func (v values) one(keyword string) string {
	if list := v[keyword]; len(list) > 0 {
		return list[0]
	}
	return ""
}

// evaluation goes through a configuration for one host, line by line.
type evaluation struct {
	account   Account
	given     destination
	final     bool // the second time
	asksFinal bool
	values    values
	warnings  []Warning
	err       error // of the first line that applies and makes no sense
}

// evaluate finds what applies to a destination. As ssh does, it goes through the
// files a second time if a Match asks for the end of the first.
func (c *Config) evaluate(d destination, set []statement) *evaluation {
	e := &evaluation{account: c.account, given: d, values: values{}}
	if d.port != "" {
		set = append(slices.Clone(set), newStatement(Position{File: "the port"}, "port", d.port))
	}
	e.run(set, true)
	if d.user != "" && e.values.one("user") == "" {
		e.values["user"] = []string{d.user}
	}
	for _, statements := range c.files {
		e.run(statements, true)
	}
	if e.asksFinal {
		e.final = true
		for _, statements := range c.files {
			e.run(statements, true)
		}
	}
	return e
}

func (e *evaluation) warn(at Position, format string, args ...any) {
	w := Warning{at, fmt.Sprintf(format, args...)}
	if !e.final || !slices.Contains(e.warnings, w) { // the second time says the same
		e.warnings = append(e.warnings, w)
	}
}

// wrong is for a line that makes no sense: an error where it applies.
func (e *evaluation) wrong(s statement, active bool, err error) {
	if active && e.err == nil {
		e.err = fmt.Errorf("%v: %s: %w", s.at, s.keyword, err)
	}
	if !active {
		e.warn(s.at, "%s: %v", s.keyword, err)
	}
}

// run goes through the lines of a file. In a file that is included where lines
// do not apply, none does.
func (e *evaluation) run(statements []statement, outer bool) {
	active := outer
	for _, s := range statements {
		switch s.keyword {
		case "host":
			active = e.host(s) && outer
		case "match":
			active = e.match(s) && outer
		case "include":
			for _, included := range s.included {
				e.run(included, active)
			}
		default:
			e.take(s, active)
		}
	}
}

// host answers a Host line. One that makes no sense applies to nobody.
func (e *evaluation) host(s statement) bool {
	if s.err != nil || len(s.list) == 0 {
		e.warn(s.at, "Host needs a pattern, so the lines below it are left out")
		return false
	}
	return knownhosts.MatchesAny(s.list, e.given.host)
}

func (e *evaluation) match(s statement) bool {
	if s.err != nil {
		e.warn(s.at, "Match: %v, so the lines below it are left out", s.err)
		return false
	}
	q := question{original: e.given.host, host: e.given.host, user: e.account.User, local: e.account.User, tag: e.values.one("tag"), final: e.final}
	if name := e.values.one("hostname"); name != "" {
		if expanded, err := (tokens{host: e.given.host}).expand(name, "h"); err == nil {
			q.host = expanded
		}
	}
	if user := e.values.one("user"); user != "" {
		q.user = user
	}
	a := matchLine(s.list, q)
	switch {
	case a.complained != nil:
		e.warn(s.at, "Match: %v, so the lines below it are left out", a.complained)
		return false
	case a.notFollow != "":
		e.warn(s.at, "Match %s is not supported, so the lines below it are left out", a.notFollow)
	}
	e.asksFinal = e.asksFinal || a.asksFinal
	return a.applies
}

// take takes a line of values.
func (e *evaluation) take(s statement, active bool) {
	name, d := s.name, s.directive
	if !s.known {
		if !knownhosts.MatchesAny(lower(strings.Split(e.values.one("ignoreunknown"), ",")), s.keyword) {
			e.warn(s.at, "unknown directive %q", s.keyword)
		}
		return
	}
	if d.shape == ignored {
		return
	}
	if d.shape == untaken {
		if active && s.err == nil && len(s.list) > 0 && !strings.EqualFold(s.list[0], "no") {
			e.warn(s.at, "%s is not supported", name)
		}
		return
	}
	if s.err != nil {
		e.wrong(s, active, s.err)
		return
	}
	if !active {
		return
	}
	_, taken := e.values[name]
	jumps := e.values.one("proxyjump") != "" && !strings.EqualFold(e.values.one("proxyjump"), "none")
	_, runs := e.values["proxycommand"]
	switch {
	case d.shape == more || d.shape == all:
		for _, v := range s.list {
			if unwanted, ok := strings.CutPrefix(v, "-"); ok && d.shape == all {
				e.values[name] = slices.DeleteFunc(e.values[name], func(have string) bool { return knownhosts.Matches(unwanted, have) })
				continue
			}
			if !slices.Contains(e.values[name], v) {
				e.values[name] = append(e.values[name], v)
			}
		}
	case taken, name == "proxycommand" && jumps, name == "proxyjump" && runs:
	default:
		e.values[name] = s.list
	}
}
