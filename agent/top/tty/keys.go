package tty

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// key is one that was pressed, or text that was pasted.
type key struct {
	name  string // "" where it is only text, or nothing that matters
	text  string // what it types
	paste bool
}

// mostPaste is how much pasted text is waited for, and mostSequence how long a
// sequence may be: what is longer is not one.
const (
	mostPaste    = 4096
	mostSequence = 256
)

var pasteEnd = []byte("\x1b[201~")

// finals are the last letters of sequences, params those that end with ~ by their
// number.
var (
	finals = map[byte]string{'A': "up", 'B': "down", 'C': "right", 'D': "left", 'H': "home", 'F': "end", 'Z': "shift+tab", 'P': "f1"}
	params = map[string]string{"1": "home", "7": "home", "4": "end", "8": "end", "5": "pgup", "6": "pgdown", "11": "f1"}
)

// decode takes the first key from what was typed, and says how many bytes it had;
// 0 when it is not all there. With all there is nothing more to come: an escape is
// the key then.
func decode(typed []byte, all bool) (k key, n int) {
	switch c := typed[0]; {
	case c == 0x1b:
		return decodeEscape(typed, all)
	case c == '\r' || c == '\n':
		return key{name: "enter"}, 1
	case c == '\t':
		return key{name: "tab"}, 1
	case c == 0x7f || c == '\b':
		return key{name: "backspace"}, 1
	case c == ' ':
		return key{name: "space", text: " "}, 1
	case c > 0 && c < ' ' && c <= 26:
		return key{name: "ctrl+" + string(rune('a'+c-1))}, 1
	case c < ' ':
		return key{}, 1
	case !utf8.FullRune(typed) && !all:
		return key{}, 0
	}
	r, n := utf8.DecodeRune(typed)
	if r == utf8.RuneError || !unicode.IsPrint(r) {
		return key{}, n
	}
	return key{name: string(r), text: string(r)}, n
}

func decodeEscape(typed []byte, all bool) (key, int) {
	if len(typed) == 1 || typed[1] == 0x1b {
		if len(typed) == 1 && !all {
			return key{}, 0
		}
		return key{name: "esc"}, 1
	}
	switch typed[1] {
	case '[':
		return decodeCSI(typed, all)
	case 'O':
		if len(typed) > 2 {
			return key{name: finals[typed[2]]}, 3
		}
	case ']', 'P', '_', '^': // an answer of the terminal
		if at := bytes.IndexAny(typed[2:], "\x07\x1b"); at >= 0 && typed[2+at] == 7 {
			return key{}, at + 3
		} else if at >= 0 && at+3 < len(typed) {
			return key{}, at + 4
		}
	default: // the key itself, and another one
		return key{name: "esc"}, 1
	}
	if !all && len(typed) < mostSequence {
		return key{}, 0
	}
	return key{name: "esc"}, 1
}

func decodeCSI(typed []byte, all bool) (key, int) {
	end := slices.IndexFunc(typed[2:], func(c byte) bool { return c >= '@' && c <= '~' })
	if end < 0 {
		if all || len(typed) >= mostSequence {
			return key{}, len(typed) // a piece of something, and no key
		}
		return key{}, 0
	}
	args, final, n := string(typed[2:2+end]), typed[2+end], end+3
	number, _, _ := strings.Cut(args, ";")
	switch {
	case final == '~' && args == "200":
		return decodePaste(typed, n, all)
	case final == '~':
		return key{name: params[number]}, n
	case args == "" || strings.HasPrefix(args, "1;"): // with shift, alt or control it is the same
		return key{name: finals[final]}, n
	}
	return key{}, n
}

func decodePaste(typed []byte, from int, all bool) (key, int) {
	end := bytes.Index(typed[from:], pasteEnd)
	n := from + end + len(pasteEnd)
	if end < 0 {
		if !all && len(typed) < mostPaste {
			return key{}, 0
		}
		end, n = len(typed)-from, len(typed)
	}
	text := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(typed[from:from+end]), ""))
	return key{text: text, paste: true}, n
}
