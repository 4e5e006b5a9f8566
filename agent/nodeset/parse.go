package nodeset

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// reader reads one line.
type reader struct {
	text string
	line int
	at   int
}

func (r *reader) wrong(at int, format string, args ...any) *Error {
	return &Error{Line: r.line, Column: at + 1, Text: r.text, Reason: fmt.Sprintf(format, args...)}
}

// read adds what a line says.
func (s *Set) read(text string, line int) error {
	r := &reader{text: text, line: line}
	exclude, expected := false, false
	for r.at < len(text) {
		switch c := text[r.at]; {
		case c == ',' || isSpace(c):
			if c == ',' && expected {
				return r.wrong(r.at, "a name is missing before this comma")
			}
			r.at++
		case c == '!':
			if expected {
				return r.wrong(r.at, "a name is missing before this exclamation mark")
			}
			exclude, expected = true, true
			r.at++
		default:
			if err := s.term(r, exclude); err != nil {
				return err
			}
			exclude, expected = false, false
		}
	}
	if expected {
		return r.wrong(len(text), "a name is missing after the exclamation mark")
	}
	return nil
}

// term reads one name with its brackets, and adds or takes away what it stands
// for.
func (s *Set) term(r *reader, exclude bool) error {
	began := r.at
	parts, count, err := r.parts()
	if err != nil {
		return err
	}
	if s.named += count; s.named > Most {
		return r.wrong(began, "the set has more than %d nodes", Most)
	}
	var failed error
	each(parts, func(name string) bool {
		if failed = check(r, began, name); failed != nil {
			return false
		}
		if exclude {
			s.exclude(name)
		} else {
			s.include(name)
		}
		return true
	})
	return failed
}

// check looks at a whole name.
func check(r *reader, at int, name string) error {
	switch {
	case len(name) > longest:
		return r.wrong(at, "a name of %d characters is too long, %d is the most", len(name), longest)
	case name[0] == '-' || strings.Contains(name, "@-"):
		return r.wrong(at, "no name of a host begins with -")
	case name[0] == '@':
		return r.wrong(at, "there are no groups: name the nodes, or a file of them by --hosts")
	}
	return nil
}

// each calls f with every combination, the last part changing first, until it
// returns false.
func each(parts [][]string, f func(name string) bool) {
	at := make([]int, len(parts))
	var b strings.Builder
	for {
		b.Reset()
		for i, p := range parts {
			b.WriteString(p[at[i]])
		}
		if !f(b.String()) {
			return
		}
		i := len(parts) - 1
		for ; i >= 0; i-- {
			if at[i]++; at[i] < len(parts[i]) {
				break
			}
			at[i] = 0
		}
		if i < 0 {
			return
		}
	}
}

// parts reads the literal text and the brackets of one term, as what each of
// them may be, and counts the combinations.
func (r *reader) parts() (parts [][]string, count int, err error) {
	count = 1
	if text, ok := r.address(); ok {
		parts = append(parts, []string{text})
	}
	for r.at < len(r.text) {
		switch c := r.text[r.at]; {
		case c == ',' || c == '!' || isSpace(c):
			return parts, count, nil
		case c == '[':
			values, err := r.bracket(Most / count)
			if err != nil {
				return nil, 0, err
			}
			parts = append(parts, values)
			count *= len(values)
		case c == ']':
			return nil, 0, r.wrong(r.at, "this ] has no [ before it")
		case !isName(c):
			return nil, 0, r.foreign(r.at)
		default:
			from := r.at
			for r.at < len(r.text) && isName(r.text[r.at]) {
				r.at++
			}
			parts = append(parts, []string{r.text[from:r.at]})
		}
	}
	return parts, count, nil
}

// foreign is the error for what no name has.
func (r *reader) foreign(at int) *Error {
	c, _ := utf8.DecodeRuneInString(r.text[at:])
	return r.wrong(at, "%q is in no name of a host", c)
}

// address reads an address of IPv6 in brackets, with the user before it.
func (r *reader) address() (string, bool) {
	rest := r.text[r.at:]
	open := strings.IndexByte(rest, '[')
	if open < 0 || strings.ContainsAny(rest[:open], ",! \t") || open > 0 && rest[open-1] != '@' {
		return "", false
	}
	for i := range open {
		if !isName(rest[i]) {
			return "", false
		}
	}
	shut := strings.IndexByte(rest[open:], ']')
	if shut < 0 {
		return "", false
	}
	inside := rest[open+1 : open+shut]
	if a, err := netip.ParseAddr(inside); err != nil || !a.Is6() || strings.ContainsFunc(inside, func(c rune) bool { return c > '~' || !isName(byte(c)) }) {
		return "", false
	}
	r.at += open + shut + 1
	return rest[:open+shut+1], true
}

// bracket reads [1-3,7,a], which may stand for so many.
func (r *reader) bracket(most int) (values []string, err error) {
	open := r.at
	shut := strings.IndexAny(r.text[open+1:], "[]")
	if shut < 0 || r.text[open+1+shut] == '[' {
		return nil, r.wrong(open, "this [ has no ] behind it")
	}
	inside := r.text[open+1 : open+1+shut]
	r.at = open + 1
	for item := range strings.SplitSeq(inside, ",") {
		more, err := r.item(item, most-len(values))
		if err != nil {
			return nil, err
		}
		if len(values)+len(more) > most {
			return nil, r.wrong(open, "the set has more than %d nodes", Most)
		}
		values = append(values, more...)
		r.at += len(item) + 1
	}
	return values, nil
}

// item reads what is between two commas: a word, a number or a range.
func (r *reader) item(item string, most int) ([]string, error) {
	if item == "" {
		return nil, r.wrong(r.at, "a number or a word is missing here")
	}
	for i := range len(item) {
		if c := item[i]; !isName(c) && c != '/' {
			return nil, r.foreign(r.at + i)
		}
	}
	from, to, isRange := strings.Cut(item, "-")
	if !isRange {
		if strings.Contains(item, "/") {
			return nil, r.wrong(r.at, "a step needs a range: take 1-9/2")
		}
		return []string{item}, nil
	}
	to, step, stepped := strings.Cut(to, "/")
	if !isNumber(from) || !isNumber(to) {
		return nil, r.wrong(r.at, "%q is no range of numbers: take 1-9, or words with commas", item)
	}
	by := 1
	if stepped {
		var err error
		if by, err = strconv.Atoi(step); err != nil || by < 1 || !isNumber(step) {
			return nil, r.wrong(r.at, "the step %q is no number from 1", step)
		}
	}
	return r.numbers(from, to, by, most)
}

// numbers counts.
func (r *reader) numbers(from, to string, by, most int) ([]string, error) {
	width := widthOf(from)
	if padded := widthOf(to); padded != 0 && padded != len(from) {
		return nil, r.wrong(r.at, "%s and %s have zeros for different widths", from, to)
	}
	first, _ := strconv.Atoi(from)
	last, _ := strconv.Atoi(to)
	if last < first {
		return nil, r.wrong(r.at, "the range from %s to %s is empty: write the smaller number first", from, to)
	}
	if (last-first)/by+1 > most {
		return nil, r.wrong(r.at, "the set has more than %d nodes", Most)
	}
	values := make([]string, 0, (last-first)/by+1)
	for n := 0; n <= (last-first)/by; n++ {
		values = append(values, pad(first+n*by, width))
	}
	return values, nil
}

// widthOf returns the width that zeros in front give a number; 0 is none.
func widthOf(digits string) int {
	if len(digits) > 1 && digits[0] == '0' {
		return len(digits)
	}
	return 0
}

func pad(n, width int) string {
	digits := strconv.Itoa(n)
	if len(digits) < width {
		return strings.Repeat("0", width-len(digits)) + digits
	}
	return digits
}

// isNumber says whether text is digits, and so few that an int has room.
func isNumber(text string) bool {
	if text == "" || len(text) > 9 {
		return false
	}
	for i := range len(text) {
		if !isDigit(text[i]) {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' }

// isName says whether a name may have this in it: names, addresses, ports, users,
// and nothing that a shell would act on.
func isName(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || strings.IndexByte("-._:@%", c) >= 0
}
