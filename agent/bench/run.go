package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/lab"
)

// What lifeline run aims at.
const (
	storyAim     = 300 * time.Millisecond
	untrappedAim = 1.02 // times as long as without
	trappedAim   = 10 * time.Microsecond
	startAim     = 15 * time.Millisecond
)

// runOptions are the flags of bench run.
type runOptions struct {
	lifeline string
	rounds   int
	calls    int
	pairs    int
	starts   int
	lookups  int
	quick    bool
}

// measureRun measures lifeline run on a machine whose only nameserver swallows
// all that it is sent, and whose names only the C library knows, as an ordinary
// user without any capability.
func measureRun(ctx context.Context, args []string) error {
	var o runOptions
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.StringVar(&o.lifeline, "lifeline", "bin/lifeline", "the command to measure")
	flags.IntVar(&o.rounds, "rounds", 7, "times that each trapped call is measured, in turn with and without; the fastest counts")
	flags.IntVar(&o.calls, "calls", 30_000, "trapped calls in a round")
	flags.IntVar(&o.pairs, "pairs", 10, "programs, with and without, that the calls which are not trapped are measured in")
	flags.IntVar(&o.starts, "starts", 100, "times that a program is started")
	flags.IntVar(&o.lookups, "lookups", 500, "lookups by each of 64 threads")
	flags.BoolVar(&o.quick, "quick", false, "do not wait for what fails without")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := lab.Missing(slices.Concat(lab.EtcPrograms, lab.ModulePrograms, []string{"iptables", "setpriv"})...); err != nil {
		return err
	}
	return lab.Run(func(l *lab.Lab) error {
		v, err := newVPN(l, o)
		if err != nil {
			return err
		}
		defer v.close()
		for _, measure := range []func(context.Context) error{v.story, v.untrapped, v.trapped, v.start, v.crowd} {
			if err := measure(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// The nameserver of resolv.conf.
const swallower = "10.77.53.53"

// vpn is the machine.
type vpn struct {
	runOptions
	host *lab.Host
	etc  *lab.Etc
	dir  string // with copies of the programs, for everybody
	api  *apiServer
}

func newVPN(l *lab.Lab, o runOptions) (*vpn, error) {
	v := &vpn{runOptions: o, host: l.Host("vpn")}
	v.host.Run("ip", "addr", "add", swallower+"/32", "dev", "lo")
	v.host.Run("iptables", "-A", "INPUT", "-d", swallower, "-j", "DROP")
	v.etc = v.host.Etc(map[string]string{"resolv.conf": "nameserver " + swallower + "\n", "nsswitch.conf": "hosts: files lab dns\n"})
	v.etc.Module("*.corp.example 127.0.0.1\n")
	var err error
	if v.dir, err = os.MkdirTemp("", "lifeline-bench-"); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err == nil {
		err = errors.Join(os.Chmod(v.dir, 0o755), copyProgram(self, v.file("bench")), copyProgram(o.lifeline, v.file("lifeline")))
	}
	if err == nil {
		v.api, err = serveAPI(v.host)
	}
	if err == nil {
		err = os.WriteFile(v.file("kubeconfig"), []byte(v.kubeconfig()), 0o644)
	}
	if err != nil {
		v.close()
	}
	return v, err
}

func (v *vpn) close() {
	if v.api != nil {
		v.api.close()
	}
	_ = os.RemoveAll(v.dir)
}

func (v *vpn) file(name string) string { return filepath.Join(v.dir, name) }

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("%w; make build makes it", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// command is a program on the machine, as nobody, with lifeline run or without.
func (v *vpn) command(with bool, line ...string) *exec.Cmd {
	// Killed, this process leaves nothing running: setpriv sets that anew after the
	// change of the user, which takes it back.
	user := []string{"--pdeathsig=KILL", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"}
	if with {
		user = append(user, v.file("lifeline"), "run", "--")
	}
	cmd := v.etc.Command("setpriv", append(user, line...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+v.file("kubeconfig"), "HOME="+v.dir)
	return cmd
}

// output runs a command to its end and returns what it printed, and for how long
// it ran.
func output(ctx context.Context, cmd *exec.Cmd) (text string, took time.Duration, err error) {
	runtime.LockOSThread() // it ends with the thread that starts it
	defer runtime.UnlockOSThread()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return "", 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	err = cmd.Wait()
	return strings.TrimSpace(out.String()), time.Since(began), err
}

// story is the failure that lifeline run is for: kubectl with a plugin for its
// credentials, both static; where there is no kubectl, a client like it.
func (v *vpn) story(ctx context.Context) error {
	type client struct {
		name string
		line []string
	}
	clients := []client{
		{"static Go client", []string{v.file("bench"), "program", "get", v.api.url("/healthz")}},
		{"static Go client with a static plugin", []string{v.file("bench"), "program", "get", "-plugin", v.file("bench"), v.api.url("/healthz")}},
	}
	if path, err := exec.LookPath("kubectl"); err == nil {
		clients = append(clients, client{"kubectl with a static plugin", []string{path, "get", "--raw", "/healthz"}})
	}
	t := newTable("a name that only the C library knows, UDP and TCP to the nameserver dropped, user nobody without capabilities")
	for _, c := range clients {
		if !v.quick {
			text, took, err := output(ctx, v.command(false, c.line...))
			if err == nil {
				return fmt.Errorf("%s works without lifeline run: %s", c.name, text)
			}
			t.row(c.name+": fails after", short(took), "-", 0)
		}
		var best time.Duration
		for range 3 { // the first reads the programs from disk
			text, took, err := output(ctx, v.command(true, c.line...))
			if err != nil || text != "ok" {
				return fmt.Errorf("%s fails with lifeline run: %w: %s", c.name, err, text)
			}
			if best == 0 || took < best {
				best = took
			}
		}
		t.took("  lifeline run: works after", best, storyAim)
	}
	return t.print()
}

// start measures how much later a program begins, and has ended.
func (v *vpn) start(ctx context.Context) error {
	const bare, with = 0, 1
	program := []string{"/bin/date", "+%s%N"}
	lines := [2][]string{bare: program, with: append([]string{v.file("lifeline"), "run", "--"}, program...)}
	var begins, ends [2][]time.Duration
	for range v.starts {
		for i, line := range lines {
			text, _, err := output(ctx, v.command(false, append([]string{v.file("bench"), "program", "starts"}, line...)...))
			if err != nil {
				return fmt.Errorf("%w: %s", err, text)
			}
			begun, ended, _ := strings.Cut(text, " ")
			begin, err1 := time.ParseDuration(begun)
			end, err2 := time.ParseDuration(ended)
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			begins[i], ends[i] = append(begins[i], begin), append(ends[i], end)
		}
	}
	t := newTable("date(1), %d times, medians", v.starts)
	median := func(what string, all [2][]time.Duration) (later time.Duration) {
		for i, name := range []string{bare: "without", with: "with"} {
			slices.Sort(all[i])
			t.row(what+", "+name, short(all[i][len(all[i])/2]), "-", 0)
		}
		return all[with][v.starts/2] - all[bare][v.starts/2]
	}
	t.row("  it begins later by", short(median("until it begins", begins)), "-", 0)
	t.took("  it has ended later by", median("until it has ended", ends), startAim)
	return t.print()
}

// crowd looks very many names up, also while the process that keeps the program
// is killed.
func (v *vpn) crowd(ctx context.Context) error {
	t := newTable("lookups under lifeline run, each for A and AAAA")
	for _, c := range []struct {
		name    string
		threads int
		times   int
		names   int
		signals bool
		kill    bool
	}{
		{"64 threads, one name", 64, v.lookups, 1, false, false},
		{"16 threads, 50 names", 16, 2 * v.lookups, 50, false, false},
		{"the same, a signal each 3 ms", 16, 2 * v.lookups, 50, true, false},
		{"the same, the keeper killed by SIGKILL", 16, 2 * v.lookups, 50, false, true},
	} {
		cmd := v.command(true, v.file("bench"), "program", "lookups", fmt.Sprintf("-signals=%v", c.signals),
			fmt.Sprint(c.threads), fmt.Sprint(c.times), fmt.Sprint(c.names))
		if c.kill {
			time.AfterFunc(300*time.Millisecond, func() { killKeeper(cmd.Process) })
		}
		text, took, err := output(ctx, cmd)
		if err != nil {
			return fmt.Errorf("%s: %w: %s", c.name, err, text)
		}
		total := c.threads * c.times
		t.row(fmt.Sprintf("%s, %d lookups: errors", c.name, total), text, "0", 0)
		t.row("  each takes", fmt.Sprint((took * time.Duration(c.threads) / time.Duration(total)).Round(time.Microsecond)), "-", 0)
	}
	return t.print()
}

// killKeeper kills the child of lifeline run: by the commands before it, which
// became it one after the other, its number is known.
func killKeeper(front *os.Process) {
	children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", front.Pid))
	for _, list := range children {
		text, _ := os.ReadFile(list)
		var pid int
		if n, _ := fmt.Sscan(string(text), &pid); n == 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}
