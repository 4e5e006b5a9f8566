package main

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/internal/need"
)

// Every command has a manual page with an example and each of its flags, and
// mandoc finds nothing wrong with it.
func TestManualPages(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	dir := filepath.Join(t.TempDir(), "man")
	if _, stderr, code := lifeline(t, "man", dir); code != exitWell {
		t.Fatal(code, stderr)
	}
	mandoc := need.Program(t, "mandoc")
	pages := 0
	_ = eachCommand(newRoot(commandsFor(nil)...), func(c *cobra.Command) error { // it says what is wrong itself
		pages++
		text := unzip(t, filepath.Join(dir, pageName(c)+".1.gz"))
		if c.Example == "" || !strings.HasPrefix(c.Example, "  lifeline ") {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for _, want := range []string{"2023-11-14", ".SH EXAMPLES\n.nf\n  lifeline ", ".SH EXIT STATUS\n", ".SH SEE ALSO\n.BR "} {
			if !strings.Contains(text, want) {
				t.Errorf("the page of %s has no %q", c.CommandPath(), want)
			}
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if described := strings.Contains(text, `\fB\-\-`+roff(f.Name)+`\fR`); described == f.Hidden || f.Usage == "" {
				t.Errorf("%s --%s: described %t, hidden %t: %q", c.CommandPath(), f.Name, described, f.Hidden, f.Usage)
			}
		})
		lint := exec.Command(mandoc, "-T", "lint", "-W", "warning")
		lint.Stdin = strings.NewReader(text)
		if out, err := lint.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("the page of %s: %v\n%s", c.CommandPath(), err, out)
		}
		return nil
	})
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != pages || pages < 15 {
		t.Errorf("%d pages of %d commands, %v", len(files), pages, err)
	}
	if stdout, _, _ := lifeline(t, "-h"); strings.Contains(stdout, "manual pages") {
		t.Error("the help tells of what is for who makes packages")
	}
}

func unzip(t *testing.T, path string) string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestRoff(t *testing.T) {
	if got := roff("a-b \\x\n.SH c\n'd"); got != "a\\-b \\ex\n\\&.SH c\n\\&'d" {
		t.Errorf("%q", got)
	}
}

// halfTyped are lines that somebody completes, and completed the first word that each
// shell offers for it, a line each.
var (
	halfTyped = []string{"lifeline cen", "lifeline census --pe", "lifeline check --fail-on w", "lifeline census --by peer,proc", "lifeline lab sil"}
	completed = "census\n--peer\nwarn\npeer,process\nsilence\n"
)

// completes has a shell run a script that completes what is typed.
func completes(t *testing.T, script string, shell ...string) {
	t.Helper()
	out, err := exec.Command(shell[0], append(shell[1:], script)...).CombinedOutput()
	if err != nil || string(out) != completed {
		t.Errorf("%q are completed to\n%s, not\n%s: %v", halfTyped, out, completed, err)
	}
}

// A real bash completes commands, flags and their values.
func TestCompletion(t *testing.T) {
	t.Parallel()
	bash := need.Program(t, "bash")
	const more = "/usr/share/bash-completion/bash_completion"
	_, err := os.Stat(more)
	need.Feature(t, "bash-completion", err)
	var script strings.Builder
	fmt.Fprintf(&script, ". %s; . <(lifeline completion bash); compopt() { :; }; COMP_TYPE=9; COMP_KEY=9\n", more)
	for _, line := range halfTyped {
		fmt.Fprintf(&script, "COMP_LINE=%q; COMP_POINT=${#COMP_LINE}; COMP_WORDS=(%s); COMP_CWORD=%d; __start_lifeline; echo ${COMPREPLY[0]//\\\\/}\n", line, line, strings.Count(line, " "))
	}
	completes(t, script.String(), bash, "--norc", "-c")
}

// So does a real zsh: the first that it would offer of what fits is printed in place
// of being shown.
func TestCompletionOfZsh(t *testing.T) {
	t.Parallel()
	zsh := need.Program(t, "zsh")
	script := "autoload -Uz compinit; compinit -u -D; . <(lifeline completion zsh); _describe() { print -r -- ${${(M)completions:#$words[-1]*}[1]%%:*} }\n"
	for _, line := range halfTyped {
		script += fmt.Sprintf("words=(%s); CURRENT=$#words; _lifeline\n", line)
	}
	completes(t, script, zsh, "-f", "-c")
}

// And a real fish, which can be asked.
func TestCompletionOfFish(t *testing.T) {
	t.Parallel()
	fish := need.Program(t, "fish")
	script := "lifeline completion fish | source\n"
	for _, line := range halfTyped {
		script += fmt.Sprintf("complete -C %q | head -n 1 | cut -f 1\n", line)
	}
	completes(t, script, fish, "--no-config", "-c")
}

// What is seen is offered, the most first, and nothing that a shell would take for
// more than a word.
func TestOffered(t *testing.T) {
	t.Parallel()
	m := &fact.Machine{Processes: []fact.Process{{PID: 7, Name: "app"}, {PID: 70, Name: "bad\tname\x1b"}}}
	for i, remote := range []string{"10.0.0.7:443", "10.0.0.7:444", "10.0.0.8:443", "0.0.0.0:0", "[fd00::1]:22"} {
		m.Sockets = append(m.Sockets, fact.Socket{Remote: netip.MustParseAddrPort(remote), Owners: []fact.Owner{{PID: 7 + 63*int32(i%2)}}})
	}
	for _, c := range []struct {
		typed string
		seen  func(*fact.Machine, *fact.Socket, func(value, about string))
		want  string
	}{
		{"", peersSeen, `["10.0.0.7\t2 sockets" "10.0.0.8\t1 socket" "fd00::1\t1 socket"]`},
		{"10.0.0.8", peersSeen, `["10.0.0.8\t1 socket"]`},
		{"7", pidsSeen, `["7\tapp, 3 sockets" "70\tbad\\tname\\x1b, 2 sockets"]`},
		{"", namesSeen, `["app\t3 sockets" "bad\\tname\\x1b\t2 sockets"]`},
	} {
		if got := fmt.Sprintf("%q", ranked(m, c.typed, c.seen)); got != c.want {
			t.Errorf("%q: %s, not %s", c.typed, got, c.want)
		}
	}
	if ranked(nil, "", peersSeen) != nil {
		t.Error("nothing seen is offered")
	}
}
