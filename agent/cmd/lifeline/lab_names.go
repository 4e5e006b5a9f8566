package main

import (
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/lab/vpn"
	"github.com/lifeline-go/lifeline/agent/show"
)

// labNamesFlags are the flags of lifeline lab names as typed.
type labNamesFlags struct {
	wait    time.Duration
	kubectl string
}

func newLabNames() *cobra.Command {
	var f labNamesFlags
	cmd := &cobra.Command{
		Use:   "names",
		Short: "A VPN swallows what static programs ask their nameserver",
		Long: "Builds a laptop and an office of network namespaces. The laptop's nameserver is behind a VPN that swallows\n" +
			"what is sent to port 53, over UDP and TCP, and its operating system knows the office's names by a source\n" +
			"of its own in nsswitch.conf. In the office are a Kubernetes API server and a Keystone, as far as\n" +
			"`kubectl get nodes` with a credential plugin goes. Then kubectl, where it is installed, and a static Go\n" +
			"client go there, each with a static plugin, as an ordinary user without capabilities: with nothing but\n" +
			"Go, under lifeline run, and built with the library. It prints how long each took and what it said.\n\n" +
			"The machine's own network and files are not touched, and all is taken down in the end; what a killed run\n" +
			"leaves behind, the next one removes. It needs root and the programs ip, nsenter, gcc, getent, nft and\n" +
			"setpriv. The exit code is 1 when a client that Lifeline helped did not get through.",
		Example: "  lifeline lab names                        about half a minute, most of it the wait of Go alone\n" +
			"  lifeline lab names --kubectl ./kubectl --json",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runLabNames(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.wait, "wait", 60*time.Second, "end a client that has not ended after this time")
	flags.StringVar(&f.kubectl, "kubectl", "", "the `program` kubectl, when it is not the one of PATH")
	return cmd
}

func runLabNames(cmd *cobra.Command, f *labNamesFlags) error {
	if f.wait < time.Second || f.wait > time.Hour {
		return usageError{fmt.Errorf("--wait %v is out of range: take a time from 1s to 1h", f.wait)}
	}
	kubectl, err := exec.LookPath(f.kubectl)
	if f.kubectl == "" {
		kubectl, _ = exec.LookPath("kubectl") // without, the static client plays it
	} else if err != nil {
		return usageError{fmt.Errorf("--kubectl %s: %w", f.kubectl, err)}
	}
	if err := lab.Missing(vpn.Needs...); err != nil {
		return blindError{err}
	}
	host, err := os.Hostname()
	if err != nil {
		return blindError{err}
	}
	program, err := os.Executable()
	if err != nil {
		return blindError{err}
	}
	m := &fact.Machine{Host: host, Time: time.Now()}
	log := cmd.ErrOrStderr()
	r := vpn.Replay{
		Kubectl: kubectl, Wait: f.wait, Program: program, ClientArgs: labClientArgs, PluginArgs: labPluginArgs,
		Event: func(r vpn.Result) {
			fmt.Fprintf(log, "%7.2f s  %s, %s: %s\n", r.Took.Seconds(), r.Client, r.With, fact.Printable(r.Said))
		},
	}
	fmt.Fprintf(log, "A laptop whose nameserver %s is behind a VPN that swallows port 53, and an office.\nThis takes about half a minute; Ctrl-C takes everything down.\n\n", vpn.Nameserver)
	results, err := r.Run(cmd.Context())
	if err != nil {
		return blindError{err}
	}
	var rows []show.LabName
	for _, r := range results {
		rows = append(rows, show.LabName{Story: "names", Client: r.Client, With: string(r.With), Took: r.Took, OK: r.OK, Said: fact.Printable(r.Said)})
	}
	if asJSON(cmd) {
		err = show.LabNamesJSON(cmd.OutOrStdout(), m, rows)
	} else {
		show.LabNames(cmd.OutOrStdout(), rows)
	}
	if err == nil && !vpn.Helped(results) {
		err = errFindings
	}
	return err
}

func labClientArgs(dir string, install bool) []string {
	return []string{"lab", "names-client", "--dir", dir, fmt.Sprintf("--install=%v", install)}
}

func labPluginArgs(dir string, install bool) []string {
	return []string{"lab", "names-plugin", "--dir", dir, fmt.Sprintf("--install=%v", install)}
}

// newLabNamesClient and newLabNamesPlugin are what a replay of the lab starts,
// not people.
func newLabNamesClient() *cobra.Command {
	var dir string
	var install bool
	cmd := &cobra.Command{
		Use:     "names-client",
		Short:   "The static client of the story",
		Example: "  lifeline lab names-client --dir /run/lifeline-17-1",
		Hidden:  true,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			program, err := os.Executable()
			if err == nil {
				err = vpn.Client(cmd.Context(), dir, install, append([]string{program}, labPluginArgs(dir, install)...), cmd.OutOrStdout())
			}
			if err != nil {
				return blindError{err}
			}
			return nil
		},
	}
	labNamesProgram(cmd, &dir, &install)
	return cmd
}

func newLabNamesPlugin() *cobra.Command {
	var dir string
	var install bool
	cmd := &cobra.Command{
		Use:     "names-plugin",
		Short:   "The credential plugin of the story",
		Example: "  lifeline lab names-plugin --dir /run/lifeline-17-1",
		Hidden:  true,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := vpn.Plugin(cmd.Context(), dir, install, cmd.OutOrStdout()); err != nil {
				return blindError{err}
			}
			return nil
		},
	}
	labNamesProgram(cmd, &dir, &install)
	return cmd
}

func labNamesProgram(cmd *cobra.Command, dir *string, install *bool) {
	cmd.Flags().StringVar(dir, "dir", ".", "where the office's certificate is")
	cmd.Flags().BoolVar(install, "install", false, "resolve names by package names")
}
