package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/agent/source/nameways"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// namesFlags are the flags of lifeline names as typed.
type namesFlags struct {
	binaries, all, noProbe bool
	pid                    int32
	look                   time.Duration
}

func newNames() *cobra.Command {
	var f namesFlags
	cmd := &cobra.Command{
		Use:   "names NAME… | --binaries [PATH…] | --pid N",
		Short: "Says in which ways a name resolves, and who resolves the names of a program",
		Long: "Looks a name up in every way there is, all at once and within 3 s: /etc/hosts, what the operating system\n" +
			"answers (getaddrinfo; for both families of addresses and for each alone), Go's own resolver with this\n" +
			"machine's configuration, each nameserver over UDP with and without EDNS, over TCP and over TLS, and\n" +
			"systemd-resolved and nscd where there are any. Then it says what the differences mean and what to do.\n" +
			"The name goes to the nameservers of resolv.conf, and to whom the operating system asks.\n\n" +
			"With --binaries: which programs ask the operating system, which Go's own resolver, told from their files\n" +
			"alone, and which of them cannot resolve names on this machine now. It asks each nameserver one question.\n\n" +
			"With --pid: the sockets of a process to nameservers, and since when they wait for an answer.",
		Example: "  lifeline names api.corp.example       every way to resolve it, side by side, and what that means\n" +
			"  lifeline names --binaries             who resolves the names of each program on PATH, and which fail now\n" +
			"  lifeline names --binaries ./agent     of one program, or of those of a directory\n" +
			"  lifeline names --pid 812              what a running process asks, of whom, and since when",
		RunE: func(cmd *cobra.Command, args []string) error { return runNames(cmd, &f, args) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.binaries, "binaries", false, "say who resolves the names of each program of PATH, or of the files and directories given")
	flags.BoolVar(&f.all, "all", false, "with --binaries: list programs that ask the operating system too")
	flags.BoolVar(&f.noProbe, "no-probe", false, "with --binaries: do not ask the nameservers: which programs fail is then not known")
	flags.Int32Var(&f.pid, "pid", 0, "say what this process asks, of whom, and since when")
	flags.DurationVar(&f.look, "for", 2*time.Second, "with --pid: how long to look")
	return cmd
}

func runNames(cmd *cobra.Command, f *namesFlags, args []string) error {
	pid := cmd.Flags().Changed("pid")
	switch {
	case f.binaries && pid:
		return usageError{errors.New("--binaries and --pid are two questions: ask one at a time")}
	case f.all && !f.binaries, f.noProbe && !f.binaries:
		flag := "--no-probe"
		if f.all {
			flag = "--all"
		}
		return usageError{fmt.Errorf("%s goes with --binaries; see %s -h", flag, cmd.CommandPath())}
	case f.binaries:
		return runBinaries(cmd, f, args)
	case pid && f.pid <= 0:
		return usageError{fmt.Errorf("--pid %d is not a process: take a number from 1", f.pid)}
	case pid && len(args) > 0:
		return usageError{errors.New("--pid takes no names: it says what the process asks")}
	case pid && !node.Alive(f.pid):
		return usageError{fmt.Errorf("no process has PID %d", f.pid)}
	case !pid && len(args) == 0:
		return usageError{fmt.Errorf("it needs one or several names, such as api.corp.example, or --binaries or --pid; see %s -h", cmd.CommandPath())}
	case pid:
		return runAsking(cmd, f)
	}
	return runLookups(cmd, args)
}

func runAsking(cmd *cobra.Command, f *namesFlags) error {
	if f.look < 100*time.Millisecond || f.look > longestLook {
		return usageError{fmt.Errorf("--for %v is out of range: take a time from 100ms to 1h", f.look)}
	}
	n := node.New()
	defer n.Close()
	m, err := n.Asking(cmd.Context(), f.pid, f.look)
	if err != nil {
		return blindError{err}
	}
	asking := verdict.AskingOf(m, f.pid)
	if asJSON(cmd) {
		return show.AskingJSON(cmd.OutOrStdout(), m, &asking)
	}
	style, _ := terminal(cmd.OutOrStdout())
	show.Asking(cmd.OutOrStdout(), m, &asking, style)
	show.Blindness(cmd.ErrOrStderr(), m.Blind, style)
	return nil
}

// mostNames is how many names are looked up at a time: each takes some 30
// questions.
const mostNames = 16

// lookUp adds names that are to be looked up.
func lookUp(w *node.Naming, names []string) error {
	if len(names) > mostNames {
		return usageError{fmt.Errorf("%d names are too many: take up to %d at a time", len(names), mostNames)}
	}
	for _, name := range names {
		if _, err := nameways.ASCII(name); err != nil {
			return usageError{fmt.Errorf("%q is %w", name, err)}
		}
	}
	w.Lookup = names
	return nil
}

func runLookups(cmd *cobra.Command, args []string) error {
	w := naming(false)
	if err := lookUp(&w, args); err != nil {
		return err
	}
	n := node.New()
	defer n.Close()
	m, err := n.Names(cmd.Context(), w)
	if err != nil {
		return blindError{err}
	}
	meaning := ofNames(m)
	slices.SortStableFunc(meaning, func(a, b verdict.Finding) int { // what is said of the name itself first
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), aboutName(a)-aboutName(b))
	})
	if asJSON(cmd) {
		err = show.LookupsJSON(cmd.OutOrStdout(), m, meaning)
	} else {
		style, _ := terminal(cmd.OutOrStdout())
		show.Lookups(cmd.OutOrStdout(), m, meaning, style)
		show.Blindness(cmd.ErrOrStderr(), m.Blind, style)
	}
	return cmp.Or(err, failing(meaning))
}

func aboutName(f verdict.Finding) int {
	if _, is := f.Subject.Get("name"); is {
		return 0
	}
	return 1
}

// naming is what is looked at of how names are resolved.
func naming(probe bool) node.Naming {
	return node.Naming{Probe: probe, Places: searchPath(), Environment: environment()}
}

// searchPath is where programs are looked for: the directories of PATH, and those
// that the PATH of an ordinary user often lacks.
func searchPath() []string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return slices.DeleteFunc(dirs, func(dir string) bool { return !filepath.IsAbs(dir) }) // not to run, or read, what lies about
}

// environment is what this environment says to resolvers.
func environment() (e fact.Environment) {
	for setting := range strings.SplitSeq(os.Getenv("GODEBUG"), ",") {
		value, ok := strings.CutPrefix(setting, "netdns=")
		if !ok {
			continue
		}
		for word := range strings.SplitSeq(value, "+") { // a level of debugging may stand beside it
			if word == "go" || word == "cgo" {
				e.NetDNS = word
			}
		}
	}
	_, domain := os.LookupEnv("LOCALDOMAIN")
	for name, set := range map[string]bool{"LOCALDOMAIN": domain, "RES_OPTIONS": os.Getenv("RES_OPTIONS") != "", "HOSTALIASES": os.Getenv("HOSTALIASES") != ""} {
		if set && (e.Libc == "" || name < e.Libc) {
			e.Libc = name
		}
	}
	return e
}

func runBinaries(cmd *cobra.Command, f *namesFlags, args []string) error {
	w := naming(!f.noProbe)
	w.Always = true
	for _, path := range args {
		if _, err := os.Stat(path); err != nil {
			return usageError{fmt.Errorf("%s: %w: take files and directories of programs", path, pathless(err))}
		}
	}
	if len(args) > 0 {
		w.Places = args
	}
	n := node.New()
	defer n.Close()
	m, err := n.Names(cmd.Context(), w)
	if err != nil {
		return blindError{err}
	}
	programs, meaning := verdict.Programs(m), ofNames(m)
	if asJSON(cmd) {
		err = show.ProgramsJSON(cmd.OutOrStdout(), m, programs, meaning)
	} else {
		style, _ := terminal(cmd.OutOrStdout())
		show.Programs(cmd.OutOrStdout(), m, programs, f.all || len(args) > 0, style)
		show.Meaning(cmd.OutOrStdout(), meaning, style)
		show.Blindness(cmd.ErrOrStderr(), m.Blind, style)
	}
	return cmp.Or(err, failing(meaning))
}

// ofNames are the findings about names.
func ofNames(m *fact.Machine) []verdict.Finding {
	return slices.DeleteFunc(verdict.Judge(m), func(f verdict.Finding) bool { return f.Promise != verdict.Names })
}

// failing asks for exit code 1 where something is wrong now.
func failing(findings []verdict.Finding) error {
	if slices.ContainsFunc(findings, func(f verdict.Finding) bool { return f.Severity == verdict.Fail }) {
		return errFindings
	}
	return nil
}

// pathless is an error without the path that is said before it.
func pathless(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}
