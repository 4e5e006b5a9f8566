package sshconf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/lifeline-go/lifeline/internal/knownhosts"
)

// question is what Match asks: who connects to what.
type question struct {
	original string // the name as it was given
	host     string // after HostName
	user     string // to be logged in as
	local    string // who runs this
	tag      string
	final    bool // the second reading
}

// An answer is what a block of lines is: for this host, for others, or not known
// because a criterion of it is not supported.
type answer struct {
	applies    bool
	asksFinal  bool
	notFollow  string // the criterion that is not supported
	complained error  // what is wrong with the line
}

// matchLine answers a Match line.
func matchLine(list []string, q question) (a answer) {
	a.applies = true
	if len(list) == 0 {
		return answer{complained: errors.New("needs a criterion")}
	}
	for i := 0; i < len(list); i++ {
		word, value, attached := strings.Cut(list[i], "=")
		name, negated := strings.CutPrefix(strings.ToLower(word), "!")
		var fits bool
		switch name {
		case "all":
			if i != len(list)-1 || i > 1 || i == 1 && !isPass(list[0]) || negated {
				return answer{complained: errors.New("all goes with no other criterion but canonical and final")}
			}
			continue
		case "canonical", "final":
			a.asksFinal = a.asksFinal || name == "final"
			if (name == "final" && q.final) == negated {
				a.applies = false
			}
			continue
		}
		if !attached {
			if i++; i == len(list) {
				return answer{complained: fmt.Errorf("%s needs a value", name)}
			}
			value = list[i]
		}
		patterns := strings.Split(value, ",")
		switch name {
		case "host":
			fits = knownhosts.MatchesAny(lower(patterns), strings.ToLower(q.host))
		case "originalhost":
			fits = knownhosts.MatchesAny(lower(patterns), strings.ToLower(q.original))
		case "user":
			fits = knownhosts.MatchesAny(patterns, q.user)
		case "localuser":
			fits = knownhosts.MatchesAny(patterns, q.local)
		case "tagged":
			fits = knownhosts.MatchesAny(patterns, q.tag)
		case "exec", "localnetwork", "sessiontype", "command", "version":
			a.notFollow = name
			continue
		default:
			return answer{complained: fmt.Errorf("there is no criterion %q", name)}
		}
		a.applies = a.applies && fits != negated
	}
	if a.notFollow != "" {
		a.applies = false
	}
	return a
}

func isPass(word string) bool {
	word = strings.TrimPrefix(strings.ToLower(word), "!")
	return word == "canonical" || word == "final"
}

func lower(list []string) []string {
	lowered := make([]string, len(list))
	for i, s := range list {
		lowered[i] = strings.ToLower(s)
	}
	return lowered
}
