package gobin

import (
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// inspect says what program an image is.
func inspect(m *image) (fact.Program, error) {
	var p fact.Program
	if err := m.check(); err != nil {
		return p, err
	}
	f, err := elf.NewFile(m)
	if err != nil {
		return p, m.notProgram(err.Error())
	}
	p, _, err = identify(m, f)
	return p, err
}

// errNoInfo is the error of what only Go's linker leaves, without what else it
// leaves.
var errNoInfo = errors.New("a Go program without build information: older than Go 1.13, or taken out")

// identify says what program an ELF file is, and how its builder was set.
func identify(m *image, f *elf.File) (p fact.Program, info *debug.BuildInfo, err error) {
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return p, nil, m.notProgram("an ELF file of type " + f.Type.String())
	}
	p.Static = !slices.ContainsFunc(f.Progs, func(s *elf.Prog) bool { return s.Type == elf.PT_INTERP })

	// Without the names of its sections build information can only be searched
	// for, so that a file is then no Go program if none is found.
	named := f.Section(".shstrtab") != nil
	if named && f.Section(".go.buildinfo") == nil {
		if f.Section(".gopclntab") != nil || f.Section(".note.go.buildid") != nil {
			return p, nil, errNoInfo
		}
		return p, nil, nil
	}
	info, err = buildinfo.Read(m)
	switch {
	case err == nil:
		describe(&p, info)
		return p, info, nil
	case m.failed != nil:
		return p, nil, m.failed
	case named:
		return p, nil, fmt.Errorf("a Go program with damaged build information: %w", err)
	default:
		return p, nil, nil
	}
}

func describe(p *fact.Program, info *debug.BuildInfo) {
	p.Go = text(info.GoVersion)
	p.Module = text(info.Main.Path)
	p.Version = text(info.Main.Version)
	for _, s := range info.Settings { // none from Bazel and other builders than the go command
		switch s.Key {
		case "CGO_ENABLED":
			p.CGO = fact.Known[bool]{Value: s.Value == "1", OK: s.Value == "0" || s.Value == "1"}
		case "-tags":
			p.Tags = tags(s.Value)
		}
	}
}

// tags splits the value of -tags, which the go command writes with commas.
func tags(value string) []string {
	const most = 100
	list := strings.FieldsFunc(text(value), func(r rune) bool { return r == ',' || r == ' ' })
	return list[:min(len(list), most)]
}

// text makes a text from a foreign file fit to keep and to print.
func text(s string) string {
	const most = 1000
	return fact.Printable(s[:min(len(s), most)])
}
