package pty

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// A shell on it draws, reads and learns of its size.
func TestShell(t *testing.T) {
	term, err := Open(40, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer term.Close()
	cmd := exec.Command("sh", "-c", `stty size; printf '\033[?1049h\033[2;3Hhello\033[1D\033[Kp!'; read line; printf '\033[?1049l'; echo "got $line"; stty size`)
	if err := term.Start(cmd); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	until := func(text string) {
		t.Helper()
		if err := term.Until(ctx.Done(), func(s string) bool { return strings.Contains(s, text) }); err != nil {
			t.Fatal(err)
		}
	}
	until("\n  hellp!\n")
	if term.Plain() {
		t.Error("it is on the other screen, and says that it is not")
	}
	if err := term.Resize(50, 12); err != nil {
		t.Fatal(err)
	}
	if err := term.Type("word\n"); err != nil {
		t.Fatal(err)
	}
	until("10 40\n")
	until("got word\n12 50")
	if err := cmd.Wait(); err != nil || !term.Plain() || len(term.Unknown()) > 0 {
		t.Errorf("%v; plain %t; unknown: %v", err, term.Plain(), term.Unknown())
	}
}

func TestGlass(t *testing.T) {
	for drawn, want := range map[string]string{
		"abc\r\ndef":                        "abc\ndef",
		"abcdefgh":                          "abcdef\ngh",
		"1\r\n2\r\n3\r\n4":                  "2\n3\n4",
		"abcdef\x1b[1;3H\x1b[2P":            "abef",
		"abcdef\x1b[1;3H\x1b[2@":            "ab  cd",
		"abcdef\x1b[1;2H\x1b[3X":            "a   ef",
		"bc\x1b[1;1H\x1b[4ha\x1b[4l":        "abc",
		"a\x1b[4b":                          "aaaaa",
		"1\r\n2\r\n3\x1b[1;1H\x1b[L":        "\n1\n2",
		"1\r\n2\r\n3\x1b[2;1H\x1b[M":        "1\n3",
		"1\r\n2\r\n3\x1b[H\x1b[J":           "",
		"1\r\n2\r\n3\x1b[2;1H\x1b[1J":       "\n\n3",
		"\x1b]0;title\x07a\x1bP+q\x1b\\b":   "ab",
		"\x1b[31;1mred\x1b[0m":              "red",
		"\x1b[2;3r1\r\n\n2\r\n3\x1b[r":      "1\n2\n3",
		"世é":                                "世é",
		"\x1b[?25l\x1b[?2026$p\x1b[>4;2mok": "ok",
	} {
		var g glass
		g.resize(6, 3)
		for i := range len(drawn) { // byte by byte: nothing may depend on how it comes
			g.write([]byte{drawn[i]})
		}
		if got := strings.TrimRight(g.text(), "\n"); got != want || len(g.unknown) > 0 {
			t.Errorf("%q is shown as %q, not %q; unknown %v", drawn, got, want, g.unknown)
		}
	}
}
