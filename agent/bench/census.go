package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
)

// countSockets measures the census beside what a user would run instead.
func countSockets(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("census", flag.ContinueOnError)
	command := flags.String("lifeline", "bin/lifeline", "the command to measure")
	tcp := flags.Int("tcp", 15000, "TCP sockets to make")
	unixes := flags.Int("unix", 15000, "unix sockets to make")
	rounds := flags.Int("rounds", 7, "times that each is run")
	if err := flags.Parse(args); err != nil {
		return err
	}
	path, err := filepath.Abs(*command)
	if err != nil {
		return err
	}
	holders, err := startHolders(ctx, *tcp, *unixes)
	defer holders.stop()
	if err != nil {
		return err
	}
	n := node.New()
	defer n.Close()
	contenders := ways(n, path)
	fmt.Printf("census of %d TCP and %d unix sockets in %d processes, %d rounds, each contender in turn\n\n", *tcp, *unixes, len(holders), *rounds)
	if err := compete(ctx, contenders, *rounds); err != nil {
		return err
	}
	return report(os.Stdout, contenders)
}

// contender is one way to get a census.
type contender struct {
	name      string
	inProcess bool
	run       func(context.Context) (cost, error)
	all       []cost
	memory    int64 // peak resident bytes; 0 = not measured
}

// cost is what one run took.
type cost struct {
	wall, cpu time.Duration
	memory    int64
}

// ways are the ways there are on this machine.
func ways(n *node.Node, lifeline string) []*contender {
	contenders := []*contender{
		{name: "bare kernel dump", inProcess: true, run: inProcess(func(context.Context) error {
			_, _, err := sockdiag.Drain(sockdiag.Want{})
			return err
		})},
		{name: "census in process", inProcess: true, run: inProcess(func(ctx context.Context) error {
			m, err := n.Look(ctx, node.Want{})
			if err == nil {
				census.Count(m, census.Options{})
				n.Recycle(m)
			}
			return err
		})},
		{name: "lifeline census", run: program(lifeline, "census")},
	}
	for _, line := range []string{"ss -tanxp", "netstat -anp", "lsof -nP -i -U"} {
		words := strings.Fields(line)
		if _, err := exec.LookPath(words[0]); err != nil {
			fmt.Printf("%s is not installed: left out\n", words[0])
			continue
		}
		contenders = append(contenders, &contender{name: line, run: program(words[0], words[1:]...)})
	}
	return contenders
}

func compete(ctx context.Context, contenders []*contender, rounds int) error {
	for _, c := range contenders {
		// Memory is that of the first run, while this process is small: the
		// peak that the kernel reports of a child begins with its parent's.
		if c.inProcess {
			continue
		}
		one, err := c.run(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		c.memory = one.memory
	}
	for range rounds {
		for _, c := range contenders {
			one, err := c.run(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.all = append(c.all, one)
		}
	}
	return nil
}

// inProcess measures f by the process's own clock of CPU time.
func inProcess(f func(context.Context) error) func(context.Context) (cost, error) {
	return func(ctx context.Context) (cost, error) {
		start, before := time.Now(), usage()
		err := f(ctx)
		return cost{wall: time.Since(start), cpu: usage() - before}, err
	}
}

func usage() time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// program measures a command as its parent sees it. An exit code of 1 is fine:
// lsof uses it when it could not read everything.
func program(name string, args ...string) func(context.Context) (cost, error) {
	return func(ctx context.Context) (cost, error) {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Stdout = io.Discard
		start := time.Now()
		err := cmd.Run()
		wall := time.Since(start)
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() > 1 {
			return cost{}, err
		}
		c := cost{wall: wall, cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
		if r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			c.memory = r.Maxrss * 1024
		}
		return c, nil
	}
}

// report prints the least and the median of each, and ratios of the medians.
func report(w io.Writer, contenders []*contender) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\twall min\tmedian\tCPU min\tmedian\twall × dump\tCPU × dump\tss -tanxp ÷ wall\t÷ CPU\tpeak memory\t")
	floor, ss := contenders[0].median(), cost{}
	for _, c := range contenders {
		if c.name == "ss -tanxp" {
			ss = c.median()
		}
	}
	for _, c := range contenders {
		m := c.median()
		least := cost{wall: slices.MinFunc(c.all, byWall).wall, cpu: slices.MinFunc(c.all, byCPU).cpu}
		memory := "-"
		if c.memory > 0 {
			memory = fmt.Sprintf("%.1f MiB", float64(c.memory)/(1<<20))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%.2f\t%.2f\t%.1f\t%.1f\t%s\t\n", c.name, ms(least.wall), ms(m.wall), ms(least.cpu), ms(m.cpu),
			ratio(m.wall, floor.wall), ratio(m.cpu, floor.cpu), ratio(ss.wall, m.wall), ratio(ss.cpu, m.cpu), memory)
	}
	fmt.Fprintln(t)
	return t.Flush()
}

func (c *contender) median() cost {
	middle := len(c.all) / 2
	byWall := slices.SortedFunc(slices.Values(c.all), byWall)
	return cost{wall: byWall[middle].wall, cpu: slices.SortedFunc(slices.Values(c.all), byCPU)[middle].cpu}
}

func byWall(a, b cost) int { return cmp.Compare(a.wall, b.wall) }
func byCPU(a, b cost) int  { return cmp.Compare(a.cpu, b.cpu) }

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }

func ratio(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }
