package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/profile"
	"github.com/lifeline-go/lifeline/agent/show"
	"github.com/lifeline-go/lifeline/agent/source/capability"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// longestLook keeps a mistyped --for from looking like a hang.
const longestLook = time.Hour

// checkFlags are the flags of lifeline check as typed.
type checkFlags struct {
	look       time.Duration
	noProbe    bool
	failOn     string
	only, skip string
}

func newCheck() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check [NAME…]",
		Short: "Says what is wrong, why, how long it would go unnoticed, and what to do",
		Long: "Looks at this machine for about a second and says which of the four promises are broken: by what\n" +
			"was seen, why, for how long it would go unnoticed, and what to do. At the end it says what it could\n" +
			"not see. It sends one question to each nameserver, and to one that does not answer well three more, and\n" +
			"nothing else. Of the names it is given it says why they do not resolve; lifeline names NAME shows how.",
		Example: "  lifeline check                     look for a second\n" +
			"  lifeline check --for 10s           look longer: rates are surer\n" +
			"  lifeline check --only silence      one promise; or a rule, such as S002\n" +
			"  lifeline check api.corp.example    and whether this name resolves in every way\n" +
			"  lifeline check --json --no-probe   for programs, without any traffic",
		RunE: func(cmd *cobra.Command, args []string) error { return runCheck(cmd, &f, args) },
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.look, "for", time.Second, "how long to look")
	flags.BoolVar(&f.noProbe, "no-probe", false, "do not ask the nameservers: send nothing at all")
	flags.StringVar(&f.failOn, "fail-on", "fail", "exit with 1 from this `severity` on: fail, warn or info")
	flags.StringVar(&f.only, "only", "", "only these promises or rules, such as names,S001")
	flags.StringVar(&f.skip, "skip", "", "all but these promises or rules")
	return cmd
}

func runCheck(cmd *cobra.Command, f *checkFlags, names []string) error {
	threshold, err := verdict.ParseSeverity(f.failOn)
	if err != nil {
		return usageError{fmt.Errorf("--fail-on %q is no severity: take fail, warn or info", f.failOn)}
	}
	if f.look < 100*time.Millisecond || f.look > longestLook {
		return usageError{fmt.Errorf("--for %v is out of range: take a time from 100ms to 1h", f.look)}
	}
	keep, err := chosen(f.only, f.skip)
	if err != nil {
		return usageError{err}
	}
	if f.noProbe && len(names) > 0 {
		return usageError{errors.New("--no-probe sends nothing, so that no name can be looked up: leave out one of them")}
	}
	asked := naming(!f.noProbe)
	if err := lookUp(&asked, names); err != nil {
		return err
	}
	n := node.New()
	defer n.Close()
	m, err := n.Watch(cmd.Context(), f.look, node.Want{Full: true, Naming: asked, Goroutines: goroutinesOf(keep)})
	if err != nil {
		return blindError{err}
	}
	findings := slices.DeleteFunc(verdict.Judge(m), func(f verdict.Finding) bool { return !keep(f.Code, f.Promise) })
	if asJSON(cmd) {
		err = show.CheckJSON(cmd.OutOrStdout(), m, findings, rights(), false)
	} else {
		style, _ := terminal(cmd.OutOrStdout())
		judged := func(p verdict.Promise) bool {
			return slices.ContainsFunc(verdict.Rules, func(r verdict.Rule) bool { return r.Promise == p && keep(r.Code, p) })
		}
		show.Check(cmd.OutOrStdout(), m, findings, judged, rights(), style)
	}
	if err == nil && slices.ContainsFunc(findings, func(f verdict.Finding) bool { return f.Severity >= threshold }) {
		err = errFindings
	}
	return err
}

// rights is what this process may see and do.
func rights() profile.Standing {
	return profile.Of(func(c profile.Capability) bool { return capability.Held(uint(c)) })
}

// goroutinesOf chooses all processes where some rule asks about their
// goroutines.
func goroutinesOf(keep func(string, verdict.Promise) bool) func(*fact.Process) bool {
	for _, r := range verdict.Rules {
		if slices.Contains(r.Sees, "goroutines") && keep(r.Code, r.Promise) {
			return func(*fact.Process) bool { return true }
		}
	}
	return nil
}

// chosen returns whether --only and --skip leave a rule.
func chosen(only, skip string) (func(code string, p verdict.Promise) bool, error) {
	onlyWords, err := ruleWords("--only", only)
	if err != nil {
		return nil, err
	}
	skipWords, err := ruleWords("--skip", skip)
	if err != nil {
		return nil, err
	}
	return func(code string, p verdict.Promise) bool {
		named := func(words []string) bool {
			return slices.Contains(words, strings.ToLower(code)) || slices.Contains(words, p.String())
		}
		return (only == "" || named(onlyWords)) && !named(skipWords)
	}, nil
}

// ruleWords reads a list of promises and rules.
func ruleWords(flag, list string) (words []string, err error) {
	for word := range strings.FieldsFuncSeq(strings.ToLower(list), isComma) {
		at := slices.IndexFunc(verdict.Rules, func(r verdict.Rule) bool {
			return word == strings.ToLower(r.Code) || word == r.Promise.String()
		})
		if at >= 0 && flag == "--only" && verdict.Rules[at].Watch && word != verdict.Rules[at].Promise.String() {
			return nil, fmt.Errorf("%s %q takes minutes of watching, and check only looks: take lifeline leaks or lifeline agent", flag, word)
		}
		if at < 0 {
			return nil, fmt.Errorf("%s %q is neither a promise (names, calls, silence, leaks) nor a rule such as %s", flag, word, verdict.Rules[0].Code)
		}
		words = append(words, word)
	}
	return words, nil
}
