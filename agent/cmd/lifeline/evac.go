package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/act/evac"
)

// Bounds of --within: below the first there is nothing to spread, beyond the
// second it is a mistake.
const (
	shortestEvac = 100 * time.Millisecond
	longestEvac  = time.Hour
)

// progressEvery keeps a line for each batch from being too many.
const progressEvery = time.Second

// evacFlags are the flags of lifeline evac as typed.
type evacFlags struct {
	within time.Duration
	only   []string
	yes    bool
}

func newEvac() *cobra.Command {
	var f evacFlags
	cmd := &cobra.Command{
		Use:   "evac",
		Short: "Resets the flows that this node only forwards, both ends, before it goes",
		Long: "On a node that is about to go: tells both ends of every TCP connection that it only forwards, by a reset,\n" +
			"so that they need not find out by silence. What this machine itself has open is left alone. Prints what it\n" +
			"would do; --yes does it. What was reset cannot be taken back. Needs CAP_NET_ADMIN and CAP_NET_RAW.",
		Example: "  lifeline evac                             what would be reset\n" +
			"  lifeline evac --within 25s --yes          reset all, spread over 25 seconds\n" +
			"  lifeline evac --only 10.48.0.0/14 --yes   only flows from or to this network, at once",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runEvac(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.within, "within", 0, fmt.Sprintf("spread the resets evenly over this time (default at once: %d a second)", evac.Rate))
	flags.StringArrayVar(&f.only, "only", nil, "only flows with an end in this `network`; may be given several times")
	flags.BoolVar(&f.yes, "yes", false, "do it")
	return cmd
}

// options checks the flags; every error says how to say it right.
func (f *evacFlags) options() (o evac.Options, err error) {
	if f.within != 0 && (f.within < shortestEvac || f.within > longestEvac) {
		return o, fmt.Errorf("--within %v is out of range: take a time from 100ms to 1h, or none for at once", f.within)
	}
	o.Within = f.within
	for _, text := range f.only {
		prefix, err := netip.ParsePrefix(text)
		if addr, notAddr := netip.ParseAddr(text); notAddr == nil {
			addr = addr.Unmap().WithZone("")
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return o, fmt.Errorf("--only %q is neither an address nor a network: take 10.48.0.0/14, 10.0.0.7 or fd00::/8", text)
		}
		o.Only = append(o.Only, prefix.Masked())
	}
	return o, nil
}

func runEvac(cmd *cobra.Command, f *evacFlags) error {
	o, err := f.options()
	if err != nil {
		return usageError{err}
	}
	host, err := os.Hostname()
	if err != nil {
		return blindError{err}
	}
	if !f.yes {
		p, err := evac.Look(o)
		if err != nil {
			return cannotEvac(err)
		}
		return printPlannedEvac(cmd, host, p, f.within)
	}
	if !asJSON(cmd) {
		o.Progress = progressTo(cmd.ErrOrStderr())
	}
	r, err := evac.Run(cmd.Context(), o)
	if err == nil || len(r.Flows) > 0 {
		if err := printEvac(cmd, host, r); err != nil {
			return err
		}
	}
	if err != nil {
		return cannotEvac(err) // or an interruption, which run tells apart
	}
	if r.Unanswered > 0 || r.Begun < len(r.Flows) {
		return errFindings
	}
	return nil
}

// cannotEvac says what else there is where the kernel cannot do it.
func cannotEvac(err error) error {
	if errors.Is(err, errors.ErrUnsupported) {
		err = fmt.Errorf("%w; without it, run lifeline cut --peer with the address of this node on the machines at both ends", err)
	}
	return blindError{err}
}

// progressTo writes a line for the first batch, for the last that is known of,
// and for those between that are progressEvery apart.
func progressTo(w io.Writer) func(evac.Progress) {
	next := time.Duration(0)
	return func(p evac.Progress) {
		switch {
		case p.Begun == 0:
			if p.Stale {
				fmt.Fprintf(w, "removed the rules that an earlier evac left behind (table inet %s)\n", evac.TableName)
			}
		case p.Elapsed >= next || p.Begun == p.Flows:
			next = p.Elapsed + progressEvery
			fmt.Fprintf(w, "%7.2f s  %d of %d flows\n", p.Elapsed.Seconds(), p.Begun, p.Flows)
		}
	}
}
