package sshconf

import (
	"errors"
	"fmt"
	"strings"
)

// matches reports whether all of text fits a pattern, in which * stands for any
// characters and ? for one. It takes no more than the product of their lengths.
func matches(pattern, text string) bool {
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(text) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, mark = i, j
			i++
		case i < len(pattern) && (pattern[i] == '?' || pattern[i] == text[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[i:], "*") == ""
}

// matchesAny reports whether text fits one of the patterns and none of those that
// begin with an exclamation mark.
func matchesAny(patterns []string, text string) bool {
	found := false
	for _, pattern := range patterns {
		wanted, negated := strings.CutPrefix(pattern, "!")
		if !matches(wanted, text) {
			continue
		}
		if negated {
			return false
		}
		found = true
	}
	return found
}

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
			fits = matchesAny(lower(patterns), strings.ToLower(q.host))
		case "originalhost":
			fits = matchesAny(lower(patterns), strings.ToLower(q.original))
		case "user":
			fits = matchesAny(patterns, q.user)
		case "localuser":
			fits = matchesAny(patterns, q.local)
		case "tagged":
			fits = matchesAny(patterns, q.tag)
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
