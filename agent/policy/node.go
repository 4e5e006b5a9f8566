package policy

import (
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// keys are the keys that a mapping may have, and what reads their values.
type keys map[string]func(*yaml.Node)

// keys reads a mapping: each key at most once, none that is not known. A key
// with nothing behind it says nothing, as when all below it is a comment.
func (r *reader) keys(n *yaml.Node, what string, known keys) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.wrong(n, "%s is %s: it has keys: %s", what, shape(n), listed(known))
		return
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		read := known[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode:
			r.wrong(key, "a key of %s is %s: it is a word", what, shape(key))
		case read == nil:
			r.wrong(key, "%s has no key %q%s", what, key.Value, meant(key.Value, slices.Sorted(maps.Keys(known))))
		case seen[key.Value]:
			r.wrong(key, "%s has the key %q twice", what, key.Value)
		case value.Kind == yaml.ScalarNode && value.Tag == "!!null":
		default:
			read(value)
		}
		seen[key.Value] = true
	}
}

// list returns the entries of a list.
func (r *reader) list(n *yaml.Node, what string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		r.wrong(n, "%s are a list, such as [a, b], and this is %s", what, shape(n))
		return nil
	}
	return n.Content
}

func (r *reader) words(n *yaml.Node, what string) (all []string) {
	for _, n := range r.list(n, what) {
		all = append(all, r.word(n))
	}
	return all
}

// word returns one value as it is written. An alias is refused with all else
// that is no word: a policy is short enough to be written out.
func (r *reader) word(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.Value == "" {
		r.wrong(n, "here is %s, and one value is wanted", shape(n))
		return ""
	}
	return n.Value
}

func shape(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias (write it out)"
	}
	if n.Value == "" {
		return "nothing"
	}
	return "one value"
}

func listed(known keys) string { return strings.Join(slices.Sorted(maps.Keys(known)), ", ") }

// meant says which of the known words is nearest, or what they are.
func meant(word string, known []string) string {
	best, least := "", 3 // more than two slips is another word
	for _, k := range known {
		if d := slips(strings.ToLower(word), strings.ToLower(k)); d < least && d < len(k) {
			best, least = k, d
		}
	}
	if best != "" {
		return ": did you mean " + best + "?"
	}
	return ": there are " + strings.Join(known, ", ")
}

// slips is how many letters must be put in, taken out or replaced, or
// neighbours swapped, to make one word of the other. More than 32 letters are
// no slip.
func slips(a, b string) int {
	if len(a) > 32 || len(b) > 32 {
		return 32
	}
	var before, last, next [33]int
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := range len(a) {
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(last[j+1]+1, next[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, last = last, next
	}
	return last[len(b)]
}
