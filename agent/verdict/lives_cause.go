package verdict

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// things are the subject keys that say which thing a finding is about. The
// others count, or name examples, and change from look to look.
var things = []string{
	"pid", "process", "container", "unit", "peer", "peer_pid", "peer_process", "port", "direction", "netns", "namespace",
	"nameserver", "nameservers", "interface", "name", "sources", "path",
}

// details are keys of things that are only an example in findings of some rules:
// these are about a process, whose peer is named when it has one alone.
var details = map[string][]string{
	"S003": {"peer"},
	"S004": {"peer"},
	"L003": {"peer"},
}

// places are keys of evidence that tell findings of one rule and one thing
// apart: where in a program goroutines wait, and for whom; where it opens sockets.
var places = map[string][]string{
	"C002": {"waits_in", "asked_in", "file", "line"},
	"L004": {"opened_in", "file", "line"},
}

// Identity is what a finding is about, in words: its code and the things that
// its subject names. Two looks that see the same thing give the same identity,
// however many connections it has in each.
func Identity(f *Finding) string {
	id := []byte(f.Code)
	_, clients := f.Subject.Get("port") // a client is an example of those of a port
	for _, v := range f.Subject {
		_, list := v.V.([]string)
		switch {
		case !slices.Contains(things, v.Key) || slices.Contains(details[f.Code], v.Key) || clients && v.Key == "peer":
		case v.Key == "nameservers" && !list: // how many there are
		default:
			id = appendThing(id, v)
		}
	}
	for _, key := range places[f.Code] {
		if value, ok := f.Evidence.Get(key); ok {
			id = appendThing(id, Value{key, value})
		}
	}
	return string(id)
}

func appendThing(id []byte, v Value) []byte {
	id = append(append(id, ' '), v.Key...)
	return append(append(id, '='), word(v.V)...)
}

// word writes a value so that it cannot be taken for two.
func word(v any) string {
	switch v := v.(type) {
	case nil:
		return "?"
	case string:
		if v == "" || v == "?" || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r == '"' || r == '=' || r == ',' || r >= 0x7f }) {
			return strconv.QuoteToASCII(v)
		}
		return v
	case []string:
		words := make([]string, len(v))
		for i := range v {
			words[i] = word(v[i])
		}
		return strings.Join(words, ",")
	}
	return fmt.Sprint(v)
}

// counted is the number in the subject that the title speaks of.
func (f *Finding) counted() int {
	v, _ := f.Subject.Get("count")
	n, _ := v.(int)
	return n
}

// consequence says that findings of one rule explain those of others.
type consequence struct {
	root string   // code of the rule whose findings explain
	of   []string // codes of what they explain

	// things are what the root is the end of, thing what the other depends on: one
	// explains the other where they are equal, and also allows it. A nil thing
	// depends on all alike.
	things func(root *Finding) []string
	thing  func(f *Finding) string
	also   func(root, f *Finding) bool
}

// consequences are all that is known of causes. That a cause is never less
// severe than what it explains, and that no finding explains one of
// its own rule, holds beside them: a failure is not hidden behind a warning.
var consequences = []consequence{
	{ // whatever connections with a peer lack, the peer is gone now
		root: "S001", of: []string{"S002", "S003", "S004", "C001"},
		things: func(root *Finding) []string {
			if _, clients := root.Subject.Get("port"); clients || root.Severity < Fail {
				return nil // not sure, or about a few clients that vanished
			}
			return one(peerOf(root))
		},
		thing: peerOf,
		also:  sameSilence,
	},
	{ // each question to a nameserver is a new flow, which the kernel refuses to send
		root: "S005", of: []string{"N001"},
		things: failing,
		also:   func(_, f *Finding) bool { return refusedHere(f) },
	},
	{ // what else a server does wrong, it does because it does not answer
		root: "N001", of: []string{"N003", "N004", "N007", "N011"},
		things: func(root *Finding) []string {
			all, _ := root.Subject.Get("nameservers") // of one, it is how many there are
			if names, ok := all.([]string); ok {
				return names
			}
			return one(textOf(root.Subject, "nameserver"))
		},
		thing: func(f *Finding) string { return textOf(f.Subject, "nameserver") },
	},
	{root: "N001", of: []string{"N005", "N006", "N010"}, things: failing, also: nobodyAnswered},
	{root: "N003", of: []string{"N005", "N006"}, things: failing},
}

func one(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func textOf(v Values, key string) string {
	value, _ := v.Get(key)
	text, _ := value.(string)
	return text
}

// peerOf is the address of the one peer that a finding is about, "" when it is
// about none or several.
func peerOf(f *Finding) string {
	peer := textOf(f.Subject, "peer")
	if at, err := netip.ParseAddrPort(peer); err == nil {
		return at.Addr().String()
	}
	return peer
}

// sameSilence says whether the silence of its peer explains a finding: in the
// same namespace, where both name one, and of a call only when the peer has not
// acknowledged it, or would not have been called late when the silence began.
func sameSilence(root, f *Finding) bool {
	for _, key := range []string{"netns", "interface"} {
		here, known := root.Subject.Get(key)
		if there, named := f.Subject.Get(key); known && named && word(here) != word(there) {
			return false
		}
	}
	if acknowledged, _ := f.Evidence.Get("acknowledged"); acknowledged != true {
		return true
	}
	quiet, waited := numberOf(root.Evidence, "last_ack_seconds"), numberOf(f.Evidence, "longest_wait_seconds")
	return waited-quiet < longWait.Seconds()
}

func numberOf(v Values, key string) float64 {
	value, _ := v.Get(key)
	switch n := value.(type) {
	case float64:
		return n
	case int:
		return float64(n)
	}
	return 0
}

// failing is a root for whatever rests on it anywhere on the machine: a table
// that is full, nameservers of which none is of use.
func failing(root *Finding) []string {
	if root.Severity < Fail {
		return nil
	}
	return []string{""}
}

// refusedHere says that this machine's own kernel did not send the questions:
// what netfilter drops on the way out, sendto reports as EPERM.
func refusedHere(f *Finding) bool {
	errors, _ := f.Evidence.Get("errors")
	list, _ := errors.([]string)
	return len(list) > 0 && !slices.ContainsFunc(list, func(s string) bool { return !strings.Contains(s, "not permitted") })
}

// nobodyAnswered says that no way to ask for the name of a finding got an answer.
func nobodyAnswered(_, f *Finding) bool {
	for _, key := range []string{"no_such_name", "no_address", "refused", "failed"} {
		if numberOf(f.Evidence, key) > 0 {
			return false
		}
	}
	return true
}

// roots says of each finding which one explains it in the end, -1 for none. Of
// several that could, it is the first.
func roots(findings []*Finding) []int {
	causes := make([]int, len(findings))
	for i := range causes {
		causes[i] = -1
	}
	for _, c := range consequences {
		by := make(map[string][]int)
		for i, f := range findings {
			if f.Code == c.root {
				for _, thing := range c.things(f) {
					by[thing] = append(by[thing], i)
				}
			}
		}
		if len(by) == 0 {
			continue
		}
		for i, f := range findings {
			if causes[i] < 0 && slices.Contains(c.of, f.Code) {
				causes[i] = c.causeOf(findings, by, i)
			}
		}
	}
	for i := range causes {
		for causes[i] >= 0 && causes[causes[i]] >= 0 {
			causes[i] = causes[causes[i]]
		}
	}
	return causes
}

func (c *consequence) causeOf(findings []*Finding, by map[string][]int, i int) int {
	f, thing := findings[i], ""
	if c.thing != nil {
		if thing = c.thing(f); thing == "" {
			return -1
		}
	}
	for _, at := range by[thing] {
		root := findings[at]
		if root.Severity >= f.Severity && root.Code != f.Code && (c.also == nil || c.also(root, f)) {
			return at
		}
	}
	return -1
}
