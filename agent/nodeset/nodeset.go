// Package nodeset reads and writes sets of hosts in the short form that
// ClusterShell and pdsh have: web[01-32],db1. It asks nobody and knows no host.
//
//	web[01-32]          web01 to web32: what begins with 0 keeps its width
//	node[1-9/2]         every second one
//	node[1-3,7].rack[a,b]   each with each: 4 × 2
//	web[1-9]!web[3-4]   without web3 and web4
//	[fe80::1%eth0]:22   an address, not a range
//
// Terms are joined by commas or white space, and read from left to right.
package nodeset

import (
	"fmt"
	"strconv"
)

// Most is how many nodes a set may name, repeated and excluded ones counted.
const Most = 100_000

// longest is how long a name may be: that of a host (RFC 1035, section 2.3.4),
// a user and a port.
const longest = 320

// Error says what is wrong with a set, and where.
type Error struct {
	Line   int    // from 1; 0 where there are no lines
	Column int    // from 1, in bytes
	Text   string // the line
	Reason string // what is wrong, and how it is right
}

func (e *Error) Error() string {
	where := ""
	if e.Line > 0 {
		where = "line " + strconv.Itoa(e.Line) + ", "
	}
	text := e.Text
	if from := max(0, e.Column-1-30); len(text) > 60 {
		text = text[from:min(len(text), from+60)]
	}
	return fmt.Sprintf("%q: %scharacter %d: %s", text, where, e.Column, e.Reason)
}

// Set is nodes in the order in which they were named, each once. The zero value
// is empty and ready.
type Set struct {
	names []string // empty where a node was excluded
	at    map[string]int
	named int
}

// Names returns the nodes.
func (s *Set) Names() []string {
	names := make([]string, 0, len(s.at))
	for _, name := range s.names {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Add adds the nodes of a set, or takes away those behind an exclamation mark.
// The error is an [*Error], after which the Set is of no use.
func (s *Set) Add(text string) error {
	return s.read(text, 0)
}

// AddLines adds a set from each line. What follows # is a comment.
func (s *Set) AddLines(text string) error {
	for number := 1; text != ""; number++ {
		line, rest := cut(text, '\n')
		text = rest
		line, _ = cut(line, '#')
		if err := s.read(line, number); err != nil {
			return err
		}
	}
	return nil
}

// Parse returns the nodes of one set.
func Parse(text string) ([]string, error) {
	var s Set
	if err := s.Add(text); err != nil {
		return nil, err
	}
	return s.Names(), nil
}

func cut(text string, at byte) (before, after string) {
	for i := range len(text) {
		if text[i] == at {
			return text[:i], text[i+1:]
		}
	}
	return text, ""
}

func (s *Set) include(name string) {
	if _, there := s.at[name]; there {
		return
	}
	if s.at == nil {
		s.at = make(map[string]int)
	}
	s.at[name] = len(s.names)
	s.names = append(s.names, name)
}

func (s *Set) exclude(name string) {
	if i, there := s.at[name]; there {
		s.names[i] = ""
		delete(s.at, name)
	}
}
