package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/profile"
	"github.com/lifeline-go/lifeline/agent/source/capability"
	"github.com/lifeline-go/lifeline/agent/source/tcpevent"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/internal/need"
)

// opens is a program of somebody else: it opens connections to itself, five a
// second for minutes, and prints its port. It ends with its standard input.
func opens() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	go func() {
		var held []net.Conn
		for len(held) < 4000 {
			if c, err := l.Accept(); err == nil {
				held = append(held, c)
			}
			if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
				held = append(held, c)
			}
			time.Sleep(200 * time.Millisecond)
		}
		select {}
	}()
	first, err := net.Dial("tcp", l.Addr().String())
	if err == nil {
		defer first.Close()
	}
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// hears asks for the events of TCP, and says whether it may.
func hears() {
	events, err := tcpevent.Open()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	events.Close()
}

// troupe is what rights are tried on: the same program of another user here and
// in a network namespace that has no name. Only its user and root may read it.
type troupe struct {
	here, there string // their ports
	pids        [2]int
	programs    string // a folder with lifeline and hears, for everybody
}

func newTroupe(t *testing.T) *troupe {
	need.Root(t)
	for _, program := range []string{"setpriv", "unshare", "nsenter", "ip"} {
		need.Program(t, program)
	}
	tr := &troupe{programs: t.TempDir()}
	hidden := t.TempDir()
	for _, dir := range []string{tr.programs, hidden} {
		for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	opens := filepath.Join(hidden, "opens")
	copyFile(t, quick(t), filepath.Join(tr.programs, "lifeline"))
	for _, program := range []string{filepath.Join(tr.programs, "hears"), opens} {
		copyFile(t, os.Args[0], program)
	}
	if err := os.Chmod(opens, 0o711); err != nil { // runs for all, and only root may read it
		t.Fatal(err)
	}
	user := []string{"setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", opens}
	start := func(cmd *exec.Cmd) (port string, pid int) {
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
		port, err = bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(port), cmd.Process.Pid
	}
	tr.here, tr.pids[0] = start(exec.Command(user[0], user[1:]...))
	tr.there, tr.pids[1] = start(exec.Command("unshare", append([]string{"-n", "sh", "-c", `ip link set lo up && exec "$@"`, "sh"}, user...)...))
	return tr
}

// with returns a command line that runs one of the programs as nobody with these
// rights, and no way to more.
func (tr *troupe) with(rights []profile.Capability, program string, args ...string) []string {
	set := "-all"
	for _, c := range rights {
		set += ",+" + strings.ToLower(strings.TrimPrefix(c.String(), "CAP_"))
	}
	return append([]string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs",
		"--inh-caps=" + set, "--bounding-set=" + set, "--ambient-caps=" + set, filepath.Join(tr.programs, program)}, args...)
}

// sees runs an agent with these rights, and returns which features of the profile
// observe work, and what it says of its rights.
func (tr *troupe) sees(t *testing.T, rights []profile.Capability) (works map[string]bool, agent state.Agent) {
	line := tr.with(rights, "lifeline", "agent", "--listen", "127.0.0.1:0", "--passive", "--json", "--history", "none")
	cmd := exec.Command(line[0], line[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	late := time.AfterFunc(5*time.Minute, func() { _ = cmd.Process.Kill() }) // then what follows fails
	defer late.Stop()
	var e event
	for lines := json.NewDecoder(out); e.Msg != "watching"; {
		if err := lines.Decode(&e); err != nil {
			t.Fatalf("it ended before it watched: %v", err)
		}
	}
	works = make(map[string]bool)
	calls := tr.with(rights, "lifeline", "calls", "--pid", strconv.Itoa(tr.pids[0]), "--for", "100ms", "--json")
	said, _ := exec.Command(calls[0], calls[1:]...).Output()
	works["programs"] = json.Valid(said) && !strings.Contains(string(said), `"source": "goroutines"`)
	if !works["programs"] && strings.Contains(string(said), capability.Policy) && !strings.Contains(string(said), `"needs": "CAP_`) {
		t.Errorf("it does not say which capability would help: %s", said)
	}
	var s state.State
	for s.Totals.Looked.IsZero() {
		if err := json.Unmarshal([]byte(fetch(t, e.Page+"api/v1/state")), &s); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	// Not asked of the agent, whose looks may be minutes apart where much runs.
	leaks := tr.with(rights, "lifeline", "leaks", "--pid", strconv.Itoa(tr.pids[0]), "--all", "--for", "3s", "--json")
	for tries := 0; tries < 10 && !works["leaks"]; tries++ {
		said, err := exec.Command(leaks[0], leaks[1:]...).Output()
		var found struct{ Sites []struct{ Open int } }
		if err != nil || json.Unmarshal(said, &found) != nil {
			break
		}
		works["leaks"] = len(found.Sites) > 0
	}
	owner := func(port string) (known, process bool) {
		var c state.Connections
		if err := json.Unmarshal([]byte(fetch(t, e.Page+"api/v1/connections?most=1000&peer=127.0.0.1")), &c); err != nil {
			t.Fatal(err)
		}
		for _, one := range c.List {
			if strings.HasSuffix(one.Remote, ":"+port) {
				known, process = true, process || one.Process.Name == "opens"
			}
		}
		return known, process
	}
	_, works["owners"] = owner(tr.here)
	works["namespaces"], _ = owner(tr.there)
	hears := tr.with(rights, "hears")
	works["events"] = exec.Command(hears[0], hears[1:]...).Run() == nil
	return works, s.Agent
}

// With the rights of a profile all works that it has, and with one less exactly
// that is lost which the table says; the agent says so itself.
func TestObserveNeedsWhatItSays(t *testing.T) {
	t.Parallel()
	tr := newTroupe(t)
	all := profile.Needs(profile.Observe)
	sets := [][]profile.Capability{all, {profile.BPF, profile.Perfmon, profile.NetAdmin, profile.SysPtrace, profile.DacReadSearch}}
	for _, without := range all {
		sets = append(sets, less(all, without))
	}
	for _, set := range sets {
		t.Run(fmt.Sprint(set), func(t *testing.T) {
			t.Parallel()
			works, agent := tr.sees(t, set)
			want := profile.Of(func(c profile.Capability) bool { return slices.Contains(set, c) })
			if agent.Profile != string(want.Name) || !slices.Equal(agent.Missing, want.Missing) {
				t.Errorf("it says its profile is %s without %+v, want %s", agent.Profile, agent.Missing, want)
			}
			for _, f := range profile.Features {
				lacks := slices.ContainsFunc(want.Missing, func(l profile.Lack) bool { return l.Feature == f.Name })
				if f.Profile == profile.Observe && works[f.Name] == lacks {
					t.Errorf("%s works: %v; by the table %v lacks it: %v", f.Name, works[f.Name], set, lacks)
				}
			}
		})
	}
}

// The same for what only the profile act has: each command as a user types it.
func TestActNeedsWhatItSays(t *testing.T) {
	t.Parallel()
	tr := newTroupe(t)
	keep := t.TempDir()
	if err := os.Chown(keep, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	commands := []struct {
		feature string
		args    []string // what it does here is seen by its exit code
	}{
		{"pokes", []string{"poke", "127.0.0.1", "--netns", "self"}},
		{"tune", []string{"tune", "--peer", "127.0.0.1", "--netns", "self", "--yes", "--keep", keep}},
		{"evac", []string{"evac", "--yes"}},
		{"transit", []string{"evac"}},
		{"cut", []string{"cut", "--peer", "127.0.0.1", "--netns", "self", "--yes"}},
	}
	all := profile.Needs(profile.Act)
	sets := [][]profile.Capability{all}
	for _, without := range all {
		sets = append(sets, less(all, without))
	}
	for i, set := range sets {
		lost := profile.Of(func(c profile.Capability) bool { return slices.Contains(set, c) }).Missing
		for _, c := range commands {
			lacks := slices.ContainsFunc(lost, func(l profile.Lack) bool { return l.Feature == c.feature })
			if i > 0 && !lacks { // that it works was seen with all
				continue
			}
			eventually(t, "a connection to act on: who may cut has cut all", func() bool { return connections(t, tr.pids[1]) > 0 })
			line := append([]string{"-n", "-t", strconv.Itoa(tr.pids[1])}, tr.with(set, "lifeline", c.args...)...)
			out, err := exec.Command("nsenter", line...).CombinedOutput()
			if (err != nil) != lacks {
				t.Errorf("%v: %s lacks by the table: %v; lifeline %v: %v\n%s", set, c.feature, lacks, c.args, err, out)
			}
		}
	}
	// Nothing to cut is no sign that it could be.
	for _, c := range []struct {
		set  []profile.Capability
		says string
	}{{all, ""}, {nil, "needs CAP_NET_ADMIN"}} {
		line := tr.with(c.set, "lifeline", "cut", "--peer", "203.0.113.1", "--netns", "self", "--yes")
		out, err := exec.Command(line[0], line[1:]...).CombinedOutput()
		if (err == nil) != (c.says == "") || !strings.Contains(string(out), c.says) || !strings.Contains(string(out), "No connection is like that.\n") {
			t.Errorf("%v: %v\n%s", c.set, err, out)
		}
	}
}

// connections counts those in the network namespace of a process.
func connections(t *testing.T, pid int) (n int) {
	t.Helper()
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		t.Fatal(err)
	}
	const established, state = "01", 3
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > state && fields[state] == established {
			n++
		}
	}
	return n
}

func less(set []profile.Capability, one profile.Capability) []profile.Capability {
	return slices.DeleteFunc(slices.Clone(set), func(c profile.Capability) bool { return c == one })
}
