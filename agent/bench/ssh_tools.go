package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// fleetCommand is what hosts are asked to run. Where a file says so, the session
// freezes: its kernel goes on to acknowledge, and nothing is said any more.
func (s *servers) fleetCommand() string {
	return "set -- $SSH_CONNECTION; if test -e " + s.file("frozen") + "/$3; then kill -STOP $PPID; sleep 60; fi; echo ok"
}

// tool is a program that runs a command on many hosts.
type tool struct {
	name string
	line []string
	done *regexp.Regexp // a line of its output: this host has answered
	runs []tour
}

// tour is one run of a tool over all hosts.
type tour struct {
	cost
	answered map[string]time.Duration // since the start, when the line came
	named    map[string]bool          // what was said of in any way
}

// last is when the last host of those had answered that should, and how many of
// them had not.
func (t tour) last(addrs []string, but map[string]bool) (last time.Duration, missing int) {
	for _, addr := range addrs {
		if but[addr] {
			continue
		}
		at, ok := t.answered[addr]
		if !ok {
			missing++
		}
		last = max(last, at)
	}
	return last, missing
}

// tools are those that there are on this machine, Lifeline first. All read the
// same ssh_config.
func (s *servers) tools(o sshOptions) []*tool {
	config, window, limit, connect := s.file("config"), strconv.Itoa(o.window), strconv.Itoa(commandTimeout), strconv.Itoa(connectTimeout)
	set := fmt.Sprintf("10.78.0.[1-%d]", o.hosts)
	colon := regexp.MustCompile(`^(\S+): ok\s*$`)
	all := []*tool{
		{"lifeline ssh", []string{o.lifeline, "ssh", "-F", config, "-j", window, "--connect-timeout", connect + "s", "--timeout", limit + "s", set, "--"}, colon, nil},
		{"clush", []string{"clush", "-f", window, "-t", connect, "-u", limit, "-O", "ssh_options=-F " + config, "-w", set}, colon, nil},
		{"pssh", []string{"parallel-ssh", "-h", s.file("hosts"), "-p", window, "-t", limit, "-i", "-x", "-F " + config}, regexp.MustCompile(`\[SUCCESS\] (\S+)`), nil},
		{"ansible -m raw", []string{"ansible", "all", "-i", s.file("hosts"), "-f", window, "-T", connect, "-m", "raw", "-a"}, regexp.MustCompile(`^(\S+) \| (?:CHANGED|SUCCESS)`), nil},
	}
	var there []*tool
	for _, t := range all {
		if _, err := exec.LookPath(t.line[0]); err != nil {
			fmt.Printf("%s is not installed: left out (scripts/setup bench installs it)\n", t.line[0])
			continue
		}
		there = append(there, t)
	}
	return there
}

// environment is the same for all: no configuration of a user, and output as soon
// as there is any. Ansible's shared connections are turned off, because they
// outlive the run: it would be spared the first half of the next.
func (s *servers) environment() []string {
	return []string{
		"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + s.dir, "LC_ALL=C.UTF-8", "PYTHONUNBUFFERED=1",
		"ANSIBLE_CONFIG=" + s.file("ansible.cfg"), "ANSIBLE_SSH_ARGS=-F " + s.file("config"), "ANSIBLE_HOST_KEY_CHECKING=True", "ANSIBLE_NOCOLOR=1",
		"ANSIBLE_TASK_TIMEOUT=" + strconv.Itoa(commandTimeout),
	}
}

// tourLimit is the longest that a tool may take before it is ended.
const tourLimit = 4 * time.Minute

// over runs the tool over all hosts. That a host failed is no error.
func (s *servers) over(ctx context.Context, t *tool) (tour, error) {
	ctx, cancel := context.WithTimeout(ctx, tourLimit)
	defer cancel()
	inside := s.near.Command(t.line[0], append(t.line[1:len(t.line):len(t.line)], s.fleetCommand())...)
	cmd := exec.CommandContext(ctx, inside.Path, inside.Args[1:]...)
	cmd.Env, cmd.Dir, cmd.WaitDelay = s.environment(), s.dir, time.Second
	out := &hearing{done: t.done, when: make(map[string]time.Duration), began: time.Now()}
	cmd.Stdout, cmd.Stderr = out, out // one goroutine writes
	err := cmd.Run()
	wall := time.Since(out.began)
	if cmd.ProcessState == nil || ctx.Err() != nil {
		return tour{}, fmt.Errorf("%s after %s: %w", t.name, short(wall), err)
	}
	r := tour{cost: cost{wall: wall, cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, answered: out.when, named: named(out.all.String())}
	if len(r.answered) == 0 {
		said := strings.TrimSpace(out.all.String())
		return tour{}, fmt.Errorf("%s reached no host: %v: %.2000s", t.name, err, said)
	}
	return r, nil
}

// hearing notes when lines come that say that a host has answered.
type hearing struct {
	mu    sync.Mutex
	done  *regexp.Regexp
	began time.Time
	rest  []byte
	all   bytes.Buffer
	when  map[string]time.Duration
}

func (h *hearing) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all.Write(p)
	h.rest = append(h.rest, p...)
	for {
		line, rest, whole := bytes.Cut(h.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		h.rest = rest
		if m := h.done.FindSubmatch(line); m != nil && h.when[string(m[1])] == 0 {
			h.when[string(m[1])] = time.Since(h.began)
		}
	}
}

var (
	address = regexp.MustCompile(`10\.78\.0\.(?:\d+|\[[0-9,/-]+\])`)
	span    = regexp.MustCompile(`(\d+)(?:-(\d+)(?:/(\d+))?)?`)
)

// named returns the addresses in a text, also those in short, as 10.78.0.[1-3,7]
// and 10.78.0.[10-200/10].
func named(text string) map[string]bool {
	all := make(map[string]bool)
	for _, found := range address.FindAllString(text, -1) {
		for _, m := range span.FindAllStringSubmatch(strings.TrimPrefix(found, "10.78.0."), -1) {
			from, _ := strconv.Atoi(m[1])
			to, err := strconv.Atoi(m[2])
			if err != nil {
				to = from
			}
			step, _ := strconv.Atoi(m[3])
			for ; from <= to; from += max(1, step) {
				all[fmt.Sprintf("10.78.0.%d", from)] = true
			}
		}
	}
	return all
}
