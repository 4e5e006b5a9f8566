package fact

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Printable returns s such that a terminal shows it and does nothing else:
// control characters, what is not UTF-8, and invisible or direction-changing
// runes become escapes as in Go source (\n, \x1b, \u202e). Sources pass through
// it every text that a process on the machine may have chosen freely.
func Printable(s string) string {
	plain := 0
	for plain < len(s) && ' ' <= s[plain] && s[plain] <= '~' {
		plain++
	}
	if plain == len(s) {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:plain])
	for rest := s[plain:]; rest != ""; {
		r, size := utf8.DecodeRuneInString(rest)
		switch {
		case r == utf8.RuneError && size == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(rest[0]), 16)) // never below 0x80: two digits
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		rest = rest[size:]
	}
	return b.String()
}
