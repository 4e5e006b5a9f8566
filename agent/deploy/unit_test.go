package deploy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/deploy"
	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/profile"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/internal/need"
)

// mostExposed is what systemd-analyze security may say of the unit, in tenths:
// most of it are the two capabilities that looking at others takes, and that all
// processes are seen.
const mostExposed = 30

// capabilities returns what a line of a unit sets.
func capabilities(t *testing.T, text, key string) []string {
	t.Helper()
	line := regexp.MustCompile(`(?m)^` + key + `=(.*)$`).FindStringSubmatch(text)
	if line == nil {
		t.Fatalf("no %s=", key)
	}
	return strings.Fields(line[1])
}

// The unit has the capabilities of the profile observe, what turns it into the
// profile act adds those that are missing; no others are to be had.
func TestUnitCapabilities(t *testing.T) {
	for _, key := range []string{"CapabilityBoundingSet", "AmbientCapabilities"} {
		unit := capabilities(t, deploy.Unit, key)
		for name, has := range map[profile.Name][]string{profile.Observe: unit, profile.Act: slices.Concat(unit, capabilities(t, deploy.Act, key))} {
			var want []string
			for _, c := range profile.Needs(name) {
				want = append(want, c.String())
			}
			slices.Sort(has)
			slices.Sort(want)
			if !slices.Equal(has, want) {
				t.Errorf("%s of %s are %v, want %v", key, name, has, want)
			}
		}
	}
}

// The policy that is installed changes nothing; what it says in comments is right.
func TestInstalledPolicy(t *testing.T) {
	p, err := policy.Parse(deploy.Policy)
	if err != nil || len(p.Acts()) > 0 || p.Webhook != "" || len(p.Names) > 0 {
		t.Errorf("%+v, %v", p, err)
	}
	_, keys, _ := strings.Cut(string(deploy.Policy), "\n#\n")
	if p, err = policy.Parse([]byte(regexp.MustCompile(`(?m)^# ?`).ReplaceAllString(keys, ""))); err != nil || p.Webhook == "" || len(p.Names) == 0 {
		t.Errorf("%+v, %v:\n%s", p, err, keys)
	}
}

// built returns lifeline as it is built for packages.
func built(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "lifeline")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", program, "./cmd/lifeline")
	cmd.Dir, cmd.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// systemd itself finds nothing wrong with the unit, nor more exposed than is said.
func TestUnitIsSound(t *testing.T) {
	analyze := need.Program(t, "systemd-analyze")
	dir := t.TempDir()
	unit := filepath.Join(dir, "lifeline.service")
	for _, part := range [][2]string{ // what comes later is added
		{unit, strings.ReplaceAll(deploy.Unit, "/usr/bin/lifeline", os.Args[0])},
		{filepath.Join(dir, "lifeline.service.d/act.conf"), deploy.Act},
	} {
		file, text := part[0], part[1]
		for _, args := range [][]string{{"verify", "--man=no", unit}, {"security", "--no-pager", "--offline=yes", unit}} {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(analyze, args...).CombinedOutput()
			if err != nil || args[0] == "verify" && len(out) > 0 {
				t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
			}
			if level := regexp.MustCompile(`exposure level for .*: ([0-9.]+)`).FindSubmatch(out); level != nil {
				if exposed, err := strconv.ParseFloat(string(level[1]), 64); err != nil || file == unit && exposed*10 > mostExposed {
					t.Errorf("%s, want %d tenths at the most", level[0], mostExposed)
				}
				t.Logf("%s: %s", filepath.Base(file), level[0])
			}
		}
	}
}

// path is where programs are that everybody may run, as the packages of the
// operating system have them.
const path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"

// machine is a systemd that runs the unit, apart from this machine.
type machine struct {
	t   *testing.T
	pid int // of systemd
}

func boot(t *testing.T) *machine {
	need.Root(t)
	for _, program := range []string{"unshare", "nsenter", "ip", "setpriv", "python3"} {
		need.Program(t, program)
	}
	_, err := os.Stat("/lib/systemd/systemd")
	need.Feature(t, "systemd", err)
	dir := t.TempDir()
	cmd := exec.Command("testdata/boot.sh", dir, built(t))
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t}
	t.Cleanup(func() {
		if m.pid != 0 {
			_ = syscall.Kill(m.pid, syscall.SIGKILL) // with the first process go all others
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		log.Close()
		groups, _ := os.ReadFile(filepath.Join(dir, "groups"))
		for group := range strings.Lines(string(groups)) {
			for try := 0; try < 100 && exec.Command("find", strings.TrimSpace(group), "-depth", "-type", "d", "-delete").Run() != nil; try++ {
				time.Sleep(50 * time.Millisecond) // the last of them are ending
			}
		}
	})
	for deadline := time.Now().Add(time.Minute); m.pid == 0 || m.run("systemctl", "is-active", "lifeline") != "active"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			said, _ := os.ReadFile(log.Name())
			t.Fatalf("it did not come up: %s\n%s", said, m.run("journalctl", "-n", "50", "--no-pager"))
		}
		child, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		if pid, err := strconv.Atoi(strings.TrimSpace(string(child))); err == nil {
			name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			if strings.TrimSpace(string(name)) == "systemd" {
				m.pid = pid
			}
		}
	}
	return m
}

// run runs a program there, and returns all that it says.
func (m *machine) run(program string, args ...string) string {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-a", "--root", "--wd", "-t", strconv.Itoa(m.pid), program}, args...)...)
	cmd.Env = []string{path}
	out, _ := cmd.CombinedOutput()
	return strings.TrimSpace(string(out))
}

// state waits until the agent's state fits.
func (m *machine) state(what string, fits func(*state.State) bool) *state.State {
	m.t.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		var s state.State
		said := m.run("lifeline", "agent", "status", "--json", "--wait", "5s")
		if json.Unmarshal([]byte(said), &s) == nil && fits(&s) {
			return &s
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%s was not seen: %+v, %d leaks, links %+v, blind %+v, sources %+v\n%s", what, s.Totals, len(s.Leaks), s.Links[:min(3, len(s.Links))], s.Blind, s.Sources, m.run("journalctl", "-u", "lifeline", "-n", "30", "--no-pager"))
		}
	}
}

// opens has somebody without any right open sockets, of which 400 stay.
const opens = `
import socket, time
l = socket.create_server(("127.0.0.1", 0)); held = []
while True:
    held += [socket.create_connection(l.getsockname()), l.accept()[0]]; time.sleep(.05)
    for old in held[:-400]: old.close()
    held = held[-400:]
`

// TestUnitRuns: a real systemd starts the unit with all its walls, and the agent
// sees what the profile observe promises, writes its history, takes a new policy,
// and ends well; with act.conf it has the profile act and the same history.
func TestUnitRuns(t *testing.T) {
	t.Parallel()
	m := boot(t)
	for i, private := range []string{"no", "yes"} {
		said := m.run("systemd-run", "--quiet", fmt.Sprint("--unit=opens-", i), "--uid=daemon", "--property=PrivateNetwork="+private, "/usr/bin/python3", "-c", opens)
		if said != "" {
			t.Fatal(said)
		}
	}
	seen := func(s *state.State) bool {
		sites := slices.IndexFunc(s.Leaks, func(l state.Site) bool { return strings.HasPrefix(l.Process, "python3") })
		return s.Totals.Namespaces == 2 && sites >= 0 && s.Agent.NotStored == "" && slices.ContainsFunc(s.Links, func(l state.Link) bool { return strings.HasPrefix(l.From.Name, "python3") })
	}
	s := m.state("what is opened in both namespaces", seen)
	if s.Agent.Profile != string(profile.Observe) {
		t.Errorf("the profile is %s without %+v", s.Agent.Profile, s.Agent.Missing)
	}
	for _, b := range s.Blind {
		if b.Source != "pokes" && b.Source != "conntrack" { // which act has
			t.Errorf("behind its walls it cannot see %+v", b)
		}
	}
	for _, source := range s.Sources {
		if source.Error != "" {
			t.Errorf("%s: %s", source.Name, source.Error)
		}
	}
	if said := m.run("journalctl", "-u", "lifeline", "--no-pager", "-o", "cat", "--grep", "level=WARN"); strings.Contains(strings.ReplaceAll(said, `msg="cannot be seen"`, ""), "level=WARN msg") {
		t.Errorf("it warns:\n%s", said)
	}
	if said := m.run("systemctl", "show", "-P", "StatusText", "lifeline"); said == "" {
		t.Error("systemctl status says nothing of how things stand")
	}
	m.run("sh", "-c", "echo 'ignore: {code: 1}' >/etc/lifeline/policy.yaml")
	m.run("systemctl", "reload", "lifeline")
	m.state("the policy with an error", func(s *state.State) bool { return strings.Contains(s.Agent.Policy.Error, "line 1") })
	m.run("sh", "-c", "echo 'ignore: {codes: [S003]}' >/etc/lifeline/policy.yaml")

	m.run("install", "-D", "-m", "644", "/usr/share/lifeline/act.conf", "/etc/systemd/system/lifeline.service.d/act.conf")
	m.run("systemctl", "daemon-reload")
	if result := m.run("systemctl", "stop", "lifeline") + m.run("systemctl", "show", "-P", "Result", "lifeline"); result != "success" {
		t.Errorf("it stopped with %s", result)
	}
	before := m.run("sh", "-c", `lifeline census --at "$(date '+%F %T')" --json`)
	m.run("systemctl", "start", "lifeline")
	s = m.state("the profile act", func(s *state.State) bool { return s.Totals.Namespaces == 2 && s.Agent.NotStored == "" })
	if s.Agent.Profile != string(profile.Act) || len(s.Blind) > 0 || s.Agent.Policy.Error != "" {
		t.Errorf("as act: profile %s, policy %+v, blind %+v", s.Agent.Profile, s.Agent.Policy, s.Blind)
	}
	if !json.Valid([]byte(before)) || !strings.Contains(before, "groups") {
		t.Errorf("the history of the profile observe: %s", before)
	}
}
