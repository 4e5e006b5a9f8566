package leaker

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// pace of the victims: the clock is hundreds of times that of the story. An operation
// must be over for idle when the next one begins, also on a busy machine: each that is
// not makes it one more before the leak is found.
const (
	pause = 600 * time.Millisecond
	idle  = 300 * time.Millisecond
	soon  = 100 * time.Millisecond
)

func build(t *testing.T, b Build, name string) string {
	t.Helper()
	need.Program(t, "go")
	path, err := b.Make(t.Context(), name, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// start starts a program that runs until the test ends. first is the first line
// that it prints, where it is asked for.
func start(t *testing.T, wantFirst bool, env []string, path string, args ...string) (pid int32, first string) {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if wantFirst {
		if first, err = bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	return int32(cmd.Process.Pid), strings.TrimSpace(first)
}

// found is what of a process leaks.
type found struct {
	verdict.LeakSite
	late time.Duration // from the last look that did not show it to the end of the one that did
}

// watch looks at a process until something of it leaks, or is suspected where
// that is asked for, and returns what.
func watch(t *testing.T, o *node.Openers, pid int32, least verdict.LeakVerdict) (found, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	w := verdict.LeakWatch{Idle: idle, Suspect: soon}
	for before := time.Now(); ctx.Err() == nil; time.Sleep(30 * time.Millisecond) {
		began := time.Now()
		all, err := o.Look(ctx)
		if err != nil {
			t.Fatal(err)
		}
		w.Look(all)
		late := time.Since(before)
		before = began
		for _, s := range w.Sites() {
			if s.Verdict >= least && s.PID == pid {
				if err := o.Ends(ctx, all); err != nil {
					t.Fatal(err)
				}
				for _, s := range w.Sites() {
					if s.Verdict >= least {
						return found{s, late}, true
					}
				}
			}
		}
	}
	return found{}, false
}

func openers(t *testing.T, pid int32, trace bool) *node.Openers {
	t.Helper()
	need.Root(t)
	n := node.New()
	o, err := n.Openers(node.OpenersWant{Uses: true, Trace: trace, Only: func(p int32, _ string) bool { return p == pid }})
	need.Feature(t, "BPF in cgroups", err)
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		n.Close()
	})
	return o
}

const ancestors = "GODEBUG=tracebackancestors=10"

// Every leak is named by the line of the program that asked, in programs without
// symbols, of old and new Go, by what the runtime keeps and by uprobes; after
// eight operations at most.
func TestLeaksAreNamed(t *testing.T) {
	need.Root(t)
	std := build(t, Build{}, Standard)
	pie := build(t, Build{Flags: []string{"-buildmode=pie"}}, Standard)
	old, err := Build{Toolchain: "go1.21.13"}.Make(t.Context(), Standard, t.TempDir())
	if err != nil {
		t.Logf("not tested with Go 1.21, which cannot be had here: %v", err)
	}
	for _, c := range []struct {
		path, leak, network string
		trace               bool
		asked, why          string
	}{
		{std, "client", "unix", false, "main.request", "an HTTP client with a Transport of its own is built per call of main.request"},
		{std, "client", "tcp", true, "main.request", "an HTTP client with a Transport of its own is built each time ("},
		{std, "body", "tcp", true, "main.unread", "the bodies of responses are not closed"},
		{std, "body", "unix", false, "main.unread", "the bodies of responses are not closed"},
		{std, "sql", "tcp", true, "main.query", "a sql.DB is built per call of main.query"},
		{std, "plain", "unix", true, "main.probe", "close each when it has served its purpose"},
		{pie, "client", "unix", false, "main.request", "an HTTP client"},
		{pie, "client", "tcp", true, "main.request", "an HTTP client"},
		{old, "client", "unix", true, "main.request", "an HTTP client"},
		{old, "client", "tcp", false, "main.request", "an HTTP client"},
	} {
		if c.path == "" {
			continue
		}
		name := strings.Join([]string{map[string]string{std: "std", pie: "pie", old: "go1.21"}[c.path], c.leak, c.network, fmt.Sprint("uprobes ", c.trace)}, ",")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := "127.0.0.1:0"
			if c.network == "unix" {
				address = filepath.Join(t.TempDir(), "s")
			}
			server, address := start(t, true, nil, std, "serve", c.network, address)
			var env []string
			if !c.trace {
				env = []string{ancestors}
			}
			pid, _ := start(t, false, env, c.path, c.leak, c.network, address, "30", pause.String())
			o := openers(t, pid, c.trace)
			site, ok := watch(t, o, pid, verdict.Leaking)
			check(t, site, ok, c.asked, c.why, address, server)
		})
	}
	t.Run("grpc", func(t *testing.T) {
		t.Parallel()
		path := build(t, Build{}, GRPC)
		server, address := start(t, true, nil, path, "serve", "tcp", "127.0.0.1:0")
		pid, _ := start(t, false, nil, path, "call", "tcp", address, "30", pause.String())
		site, ok := watch(t, openers(t, pid, true), pid, verdict.Leaking)
		check(t, site, ok, "main.call", "a gRPC connection is built per call of main.call", address, server)
	})
}

// check holds a finding against what is expected. The watch may have begun after
// the first operations, which are not in its count.
func check(t *testing.T, s found, ok bool, asked, why, peer string, server int32) {
	t.Helper()
	t.Logf("after %d operations: %s", s.Opened, s.Diagnosis)
	if !ok || s.AskedBy.Func != asked || s.AskedBy.Line == 0 || !strings.Contains(s.Diagnosis, why) {
		t.Fatalf("got %+v, want %s: %s", s, asked, why)
	}
	if s.Peer != peer || s.PeerPID != server || s.PeerProcess == "" || s.PerOperation() != 1 || !s.Left.OK || s.OpenedAt.Func == "" {
		t.Errorf("got %+v, want the peer %s of %d", s, peer, server)
	}
	// One more may be under way when it is looked, and more go by where a busy machine
	// looks late.
	if s.Opened > 9+int(s.late/pause) {
		t.Errorf("found after %d operations by a look %v after the one before, want 8", s.Opened, s.late)
	}
}

// Without watching what is sent and received, the kernel's own times do, for TCP.
func TestLightly(t *testing.T) {
	need.Root(t)
	t.Parallel()
	path := build(t, Build{}, Standard)
	server, address := start(t, true, nil, path, "serve", "tcp", "127.0.0.1:0")
	pid, _ := start(t, false, []string{ancestors}, path, "client", "tcp", address, "30", pause.String())
	n := node.New()
	defer n.Close()
	o, err := n.Openers(node.OpenersWant{Only: func(p int32, _ string) bool { return p == pid }})
	need.Feature(t, "BPF in cgroups", err)
	defer o.Close()
	site, ok := watch(t, o, pid, verdict.Leaking)
	check(t, site, ok, "main.request", "an HTTP client", address, server)
}

// As in a container: in namespaces and a cgroup of its own.
func TestInAContainer(t *testing.T) {
	need.Root(t)
	t.Parallel()
	path := build(t, Build{}, Standard)
	server, address := start(t, true, nil, path, "serve", "tcp", "127.0.0.1:0")
	cmd := exec.Command(path, "client", "tcp", address, "30", pause.String())
	cmd.Env = append(os.Environ(), ancestors)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS}
	if dir := ownCgroup(t); dir != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	pid := int32(cmd.Process.Pid)
	site, ok := watch(t, openers(t, pid, false), pid, verdict.Leaking)
	check(t, site, ok, "main.request", "an HTTP client", address, server)
}

// ownCgroup makes a cgroup v2, nil where none is mounted.
func ownCgroup(t *testing.T) *os.File {
	t.Helper()
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err != nil {
			continue
		}
		dir, err := os.MkdirTemp(mount, "lifeline-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Rmdir(dir) })
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	return nil
}

// Connections that a handler hijacks and nobody closes have the handler's name.
func TestHijackedConnections(t *testing.T) {
	need.Root(t)
	t.Parallel()
	pid, address := start(t, true, nil, build(t, Build{}, Standard), "serve", "tcp", "127.0.0.1:0")
	o := openers(t, pid, false)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { // clients that ask to subscribe, and stay
		defer close(ended)
		for ctx.Err() == nil {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			fmt.Fprintf(c, "GET /subscribe HTTP/1.1\r\nHost: x\r\n\r\n")
			if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(idle / 2)
		}
	}()
	site, ok := watch(t, o, pid, verdict.Suspected)
	stop()
	<-ended
	if !ok || !site.Accepted || site.UsedAt.Func != "main.(*hub).subscribe" || site.Peer != "clients of "+address ||
		!strings.Contains(site.Diagnosis, "main.(*hub).subscribe (main.go:") {
		t.Errorf("got %+v", site)
	}
	t.Log(site.Diagnosis)
}

// A program that reuses its client is left alone.
func TestReuseIsHealthy(t *testing.T) {
	need.Root(t)
	t.Parallel()
	path := build(t, Build{}, Standard)
	_, address := start(t, true, nil, path, "serve", "tcp", "127.0.0.1:0")
	pid, _ := start(t, false, nil, path, "healthy", "tcp", address, "1000", "20ms")
	o := openers(t, pid, true)
	w := verdict.LeakWatch{Idle: idle, Suspect: soon}
	for begin := time.Now(); time.Since(begin) < 3*time.Second; time.Sleep(50 * time.Millisecond) {
		all, err := o.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.Look(all)
		for _, s := range w.Sites() {
			if s.Verdict != verdict.Healthy {
				t.Fatalf("got %+v", s)
			}
		}
	}
}

// A program that becomes another, and one whose file is replaced and that ends
// while it is looked at, get a clear word.
func TestProgramsThatChange(t *testing.T) {
	need.Root(t)
	t.Parallel()
	path := build(t, Build{}, Standard)
	_, address := start(t, true, nil, path, "serve", "tcp", "127.0.0.1:0")
	pid, _ := start(t, false, nil, path, "plain", "tcp", address, "100", "50ms")
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("garbage"), 0o755); err != nil {
		t.Fatal(err)
	}
	o := openers(t, pid, false)
	var last []fact.Opening
	for begin := time.Now(); len(last) < 3 && time.Since(begin) < 30*time.Second; time.Sleep(20 * time.Millisecond) {
		all, err := o.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		last = all.Open
	}
	if len(last) < 3 || len(last[0].At.Calls) == 0 || last[0].At.Unknown != "" {
		t.Fatalf("of a file that was replaced: %+v", last)
	}
	p, err := os.FindProcess(int(pid))
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		all, err := o.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(all.Open) == 0 {
			break
		}
		if time.Since(begin) > 30*time.Second {
			text, _ := json.Marshal(all.Open[0])
			t.Fatalf("of a process that is gone: %s", text)
		}
	}
}
