package sshconf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	deepestInclude = 16      // READCONF_MAX_DEPTH in readconf.c
	largestFile    = 4 << 20 // of one configuration file, in bytes
	mostFiles      = 1024    // that one configuration may include
)

// Position is a line in a file. Line 0 is the file itself, or an option of the
// caller's.
type Position struct {
	File string
	Line int
}

func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Warning is something in a configuration that is not followed.
type Warning struct {
	At   Position
	Text string
}

func (w Warning) String() string { return w.At.String() + ": " + w.Text }

// A statement is one line of a configuration.
type statement struct {
	at       Position
	keyword  string // in lower case
	rest     string // what follows, as it is written
	included [][]statement

	// What it means, for whichever host.
	name      string // the keyword, or what it is called now
	directive directive
	known     bool
	list      []string // of words; of a directive that takes the line as it is, that
	err       error    // why it makes no sense
}

func newStatement(at Position, keyword, rest string) statement {
	s := statement{at: at, keyword: keyword, rest: rest}
	switch keyword {
	case "host", "match", "include":
		s.list, s.err = words(rest)
	default:
		s.name, s.directive, s.known = directiveOf(keyword)
		if s.known {
			s.list, s.err = s.directive.value(rest)
		}
	}
	return s
}

// reader reads a configuration with all it includes.
type reader struct {
	home     string // of the user, for ~
	system   bool   // the file is the system's: relative names are below its folder
	folder   string // of relative names
	careful  bool   // files that others may write are refused
	files    int
	warnings []Warning
}

func (r *reader) warn(at Position, format string, args ...any) {
	r.warnings = append(r.warnings, Warning{at, fmt.Sprintf(format, args...)})
}

// file reads one file.
func (r *reader) file(name string, depth int) ([]statement, error) {
	if r.files++; r.files > mostFiles {
		return nil, fmt.Errorf("%s: more than %d files are included", name, mostFiles)
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() && info.Mode().Type() != os.ModeCharDevice {
		return nil, fmt.Errorf("%s is not a file", name)
	}
	if r.careful && writableByOthers(info) {
		return nil, fmt.Errorf("%s can be written by others: chmod go-w, or chown it to yourself", name)
	}
	if info.Size() > largestFile {
		return nil, fmt.Errorf("%s is larger than %d MiB", name, largestFile>>20)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return r.text(name, string(text), depth), nil
}

// text reads what is in a file.
func (r *reader) text(name, text string, depth int) (statements []statement) {
	number := 0
	for line := range strings.Lines(text) {
		number++
		keyword, rest := keywordOf(line)
		if keyword == "" {
			continue
		}
		s := newStatement(Position{name, number}, keyword, rest)
		if keyword == "include" {
			s.included = r.include(s, depth)
		}
		statements = append(statements, s)
	}
	return statements
}

// include reads the files of an Include. Those that are not there are left out,
// as by OpenSSH; those that cannot be read are warned of.
func (r *reader) include(s statement, depth int) (included [][]statement) {
	if s.err != nil {
		r.warn(s.at, "Include: %v", s.err)
		return nil
	}
	if depth >= deepestInclude {
		r.warn(s.at, "Include: more than %d files deep, perhaps a file that includes itself", deepestInclude)
		return nil
	}
	for _, pattern := range s.list {
		switch {
		case !r.system && strings.HasPrefix(pattern, "~/"):
			pattern = filepath.Join(r.home, pattern[2:])
		case !filepath.IsAbs(pattern):
			pattern = filepath.Join(r.folder, pattern)
		}
		names, err := filepath.Glob(pattern)
		if err != nil {
			r.warn(s.at, "Include %s: %v", pattern, err)
		}
		for _, name := range names {
			statements, err := r.file(name, depth+1)
			if err != nil {
				if !errors.Is(err, os.ErrNotExist) {
					r.warn(s.at, "Include: %v", err)
				}
				continue
			}
			included = append(included, statements)
		}
	}
	return included
}

const blank = " \t\r\n\f"

// keywordOf splits a line into the keyword, in lower case, and the rest; one
// equals sign may be between them. The keyword of a comment is empty.
func keywordOf(line string) (keyword, rest string) {
	line = strings.Trim(line, blank)
	if line == "" || line[0] == '#' {
		return "", ""
	}
	if line[0] == '"' {
		keyword, rest, _ = strings.Cut(line[1:], `"`)
	} else if end := strings.IndexAny(line, " \t="); end >= 0 {
		keyword, rest = line[:end], line[end:]
	} else {
		keyword = line
	}
	rest = strings.TrimLeft(rest, blank)
	rest = strings.TrimLeft(strings.TrimPrefix(rest, "="), blank)
	return strings.ToLower(keyword), rest
}

var errQuotes = errors.New("a quotation mark is not closed")

// words splits the rest of a line as argv_split in OpenSSH's misc.c: a word may
// be in quotation marks of either sort, which a backslash takes the meaning of,
// and a word that begins with # begins a comment.
func words(text string) (list []string, err error) {
	for i := 0; i < len(text); {
		switch text[i] {
		case ' ', '\t':
			i++
			continue
		case '#':
			return list, nil
		}
		word, length, err := firstWord(text[i:])
		if err != nil {
			return nil, err
		}
		list = append(list, word)
		i += length
	}
	return list, nil
}

// firstWord returns the word with which text begins, and its length there.
func firstWord(text string) (word string, length int, err error) {
	var b strings.Builder
	var quote byte
	i := 0
	for ; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && i+1 < len(text) && (strings.IndexByte(`'"\`, text[i+1]) >= 0 || quote == 0 && text[i+1] == ' '):
			i++
			b.WriteByte(text[i])
		case quote == 0 && (c == ' ' || c == '\t'):
			return b.String(), i, nil
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote != 0 && c == quote:
			quote = 0
		default:
			b.WriteByte(c)
		}
	}
	if quote != 0 {
		return "", 0, errQuotes
	}
	return b.String(), i, nil
}
