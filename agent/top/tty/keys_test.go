package tty

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// decodeAll decodes what came in pieces, and then nothing.
func decodeAll(pieces ...string) string {
	var typed []byte
	var names []string
	take := func(all bool) {
		for len(typed) > 0 {
			k, n := decode(typed, all)
			if n == 0 {
				return
			}
			typed = typed[n:]
			switch {
			case k.paste:
				names = append(names, fmt.Sprintf("paste(%s)", k.text))
			case k.name != "" && k.text != "":
				names = append(names, fmt.Sprintf("%s=%s", k.name, k.text))
			case k.name != "":
				names = append(names, k.name)
			}
		}
	}
	for _, piece := range pieces {
		typed = append(typed, piece...)
		take(false)
	}
	take(true)
	return strings.Join(names, " ")
}

func TestDecode(t *testing.T) {
	for typed, want := range map[string]string{
		"aG?é":                                  "a=a G=G ?=? é=é",
		" \r\t\x7f\b\x03\x1a":                   "space=  enter tab backspace backspace ctrl+c ctrl+z",
		"\x1b":                                  "esc",
		"\x1b\x1b":                              "esc esc",
		"\x1b\x1b[A":                            "esc up",
		"\x1b[A\x1b[B\x1bOA\x1bOB\x1b[Z":        "up down up down shift+tab",
		"\x1b[1;5A\x1b[1;2H":                    "up home",
		"\x1b[H\x1b[F\x1b[1~\x1b[4~\x1bOH":      "home end home end home",
		"\x1b[5~\x1b[6~\x1b[6;5~\x1bOP":         "pgup pgdown pgdown f1",
		"\x1b[200~10.0.\n0.1\x1b[31m\x1b[201~q": "paste(10.0.0.1[31m) q=q",
		"\x1b[200~never ends":                   "paste(never ends)",
		"\x1bq":                                 "esc q=q",
		"\x1b[?2026;2$yq":                       "q=q",
		"\x1bP1+r524742\x1b\\q":                 "q=q",
		"\x1b]11;rgb:0/0/0\x07q":                "q=q",
		"\x1b[99;9;9uq\x1b[99~":                 "q=q",
		"\xff\xc3a\x00\x1f":                     "a=a",
		"\x1b[":                                 "",
		"\x1b[200~" + strings.Repeat("x", 5000) + "q": "paste(" + strings.Repeat("x", mostPaste-6) + ")",
	} {
		if got := decodeAll(strings.Split(typed, "")...); got != want && !strings.HasPrefix(want, "paste(xx") {
			t.Errorf("%.60q byte by byte is %.80q, not %q", typed, got, want)
		} else if strings.HasPrefix(want, "paste(xx") && !strings.HasPrefix(got, want) {
			t.Errorf("a long text is %.80q", got)
		}
		if len(typed) < 100 && decodeAll(typed) != want {
			t.Errorf("%q at once is %q, not %q", typed, decodeAll(typed), want)
		}
	}
}

// FuzzDecode holds that all is taken, and that nothing but text is text.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("a\x1b[A\x1b[200~x\x1b[201~\x1bP\x1b\\"))
	f.Fuzz(func(t *testing.T, typed []byte) {
		for len(typed) > 0 {
			k, n := decode(typed, true)
			if n <= 0 || n > len(typed) {
				t.Fatalf("%d of %q", n, typed)
			}
			for _, r := range k.text {
				if !unicode.IsPrint(r) || !utf8.ValidString(k.text) {
					t.Fatalf("%q types %q", typed, k.text)
				}
			}
			typed = typed[n:]
		}
	})
}
