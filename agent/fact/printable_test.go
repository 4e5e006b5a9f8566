package fact

import (
	"testing"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestPrintable(t *testing.T) {
	for s, want := range map[string]string{
		"":                   "",
		"sshd: user@pts/0":   "sshd: user@pts/0",
		"日本語 é":              "日本語 é",
		"a\nb\tc\r":          `a\nb\tc\r`,
		"\x1b]0;title\a":     `\x1b]0;title\a`,
		"\x00\x7f":           `\x00\x7f`,
		"\u009b2J":           `\u009b2J`, // control sequence introducer in one rune
		"bad\xff\x80utf":     `bad\xff\x80utf`,
		"left\u202eright":    `left\u202eright`,
		"zero\u200bwidth":    `zero\u200bwidth`,
		"\ufeff\u2028":       `\ufeff\u2028`,
		`luks\x2dhome "q" '`: `luks\x2dhome "q" '`,
		"replacement \ufffd": "replacement \ufffd",
	} {
		if got := Printable(s); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}
