package main

import (
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manName is the command that writes the manual pages. It is for who makes
// packages.
const manName = "man"

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:     manName + " FOLDER",
		Short:   "Writes the manual pages",
		Long:    "Writes a manual page for each command into a folder, as packages have them: lifeline-census.1.gz and so on.",
		Example: "  lifeline man /usr/local/share/man/man1",
		Hidden:  true,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return blindError{err}
			}
			return eachCommand(cmd.Root(), func(c *cobra.Command) error { return writePage(args[0], c) })
		},
	}
}

// eachCommand calls f for all commands that a user may see.
func eachCommand(c *cobra.Command, f func(*cobra.Command) error) error {
	if err := f(c); err != nil {
		return err
	}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" {
			if err := eachCommand(sub, f); err != nil {
				return err
			}
		}
	}
	return nil
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// writePage writes one page. Nothing in it is of this moment, so that the same
// source gives the same bytes.
func writePage(folder string, c *cobra.Command) error {
	file, err := os.Create(filepath.Join(folder, pageName(c)+".1.gz"))
	if err != nil {
		return blindError{err}
	}
	defer file.Close() // what matters is said below
	z, err := gzip.NewWriterLevel(file, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err = io.WriteString(z, page(c)); err == nil {
		err = z.Close()
	}
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		return blindError{err}
	}
	return nil
}

// page is the manual page of a command, in the language of man(7).
func page(c *cobra.Command) string {
	var b strings.Builder
	w := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	w(`.TH %s 1 %q %q %q`, strings.ToUpper(roff(pageName(c))), pageDate(), "lifeline "+roff(versionText()), "Lifeline")
	w(".SH NAME\n%s \\- %s", roff(pageName(c)), roff(c.Short))
	w(".SH SYNOPSIS\n.B %s", roff(c.CommandPath()))
	if rest := strings.TrimPrefix(c.UseLine(), c.CommandPath()); rest != "" {
		w("%s", roff(strings.TrimSpace(rest)))
	}
	w(".SH EXAMPLES\n.nf\n%s\n.fi", roff(strings.TrimRight(c.Example, "\n")))
	w(".SH DESCRIPTION")
	for i, paragraph := range strings.Split(cmp.Or(c.Long, c.Short), "\n\n") {
		if i > 0 {
			w(".PP")
		}
		w("%s", roff(paragraph))
	}
	if c.HasAvailableSubCommands() {
		w(".SH COMMANDS")
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "help" {
				w(".TP\n.BR %s (1)\n%s", roff(pageName(sub)), roff(sub.Short))
			}
		}
	}
	w(".SH OPTIONS")
	c.InitDefaultHelpFlag()
	for _, set := range []*pflag.FlagSet{c.LocalFlags(), c.InheritedFlags()} {
		set.VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				w("%s", option(f))
			}
		})
	}
	w(".SH EXIT STATUS\n%s.", roff(exitText(c)))
	w(".SH SEE ALSO\n%s", strings.Join(related(c), " ,\n"))
	return b.String()
}

// pageDate is the date of the source, where who builds a package says it:
// reproducible-builds.org.
func pageDate() string {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return ""
	}
	return time.Unix(seconds, 0).UTC().Format(time.DateOnly)
}

// option describes a flag.
func option(f *pflag.Flag) string {
	name, usage := pflag.UnquoteUsage(f)
	text := ".TP\n"
	if f.Shorthand != "" {
		text += `\fB\-` + roff(f.Shorthand) + `\fR, `
	}
	text += `\fB\-\-` + roff(f.Name) + `\fR`
	if name != "" && f.NoOptDefVal == "" {
		text += ` \fI` + roff(name) + `\fR`
	} else if name != "" {
		text += `[=\fI` + roff(name) + `\fR]`
	}
	if value := f.DefValue; value != "" && value != "false" && value != "0" && value != "0s" && value != "[]" {
		usage += fmt.Sprintf(" (default %s)", value)
	}
	return text + "\n" + roff(usage)
}

// related are the pages of the commands above and beside it.
func related(c *cobra.Command) (pages []string) {
	add := func(o *cobra.Command) {
		if o != c && (o == c.Root() || o.IsAvailableCommand()) && o.Name() != "help" {
			pages = append(pages, ".BR "+roff(pageName(o))+" (1)")
		}
	}
	if p := c.Parent(); p != nil {
		add(p)
		for _, o := range p.Commands() {
			add(o)
		}
	} else {
		for _, o := range c.Commands() {
			add(o)
		}
	}
	return pages
}

// roff makes a text one that man shows as it is.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
