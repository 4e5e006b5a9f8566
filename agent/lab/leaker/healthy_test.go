package leaker

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/internal/need"
)

// soak makes TestHealthyServers look for so long.
var soak = flag.Duration("soak", 0, "how long TestHealthyServers looks, with the recommended times; 0: some seconds, with short ones")

// quiet looks at processes and fails when one of them is called a leak. A
// suspicion is not held against it: that is what a suspicion is for.
func quiet(t *testing.T, w *verdict.LeakWatch, d, tick time.Duration, pids ...int32) {
	t.Helper()
	n := node.New()
	defer n.Close()
	o, err := n.Openers(node.OpenersWant{Uses: true, Only: func(pid int32, _ string) bool { return slices.Contains(pids, pid) }})
	need.Feature(t, "BPF in cgroups", err)
	defer o.Close()
	suspected, most := make(map[string]bool), 0
	for begin := time.Now(); time.Since(begin) < d; time.Sleep(tick) {
		all, err := o.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.Look(all)
		most = max(most, len(all.Open))
		for _, s := range w.Sites() {
			if s.Verdict == verdict.Leaking {
				t.Fatalf("after %v: %+v", time.Since(begin), s)
			}
			if s.Verdict == verdict.Suspected {
				suspected[s.Key()] = true
			}
		}
	}
	opened := 0
	for _, s := range w.Sites() {
		opened += s.Opened
	}
	t.Logf("in %v: up to %d connections open, %d opened by those still here, no leak, %d suspected at times", d, most, opened, len(suspected))
}

// The loads of TestLeakSimulation in package verdict on real sockets, and a clock
// that is 240 times as fast: 300 s are 1.25 s.
func TestHealthyLoads(t *testing.T) {
	need.Root(t)
	t.Parallel()
	pid, _ := start(t, false, nil, build(t, Build{}, Healthy), "simulated", "15s")
	quiet(t, &verdict.LeakWatch{Idle: 1250 * time.Millisecond, Suspect: 125 * time.Millisecond}, 20*time.Second, 40*time.Millisecond, pid)
}

// A Docker daemon and its clients, a busy proxy, and PostgreSQL with clients that
// have pools: nobody of them is called a leak.
func TestHealthyServers(t *testing.T) {
	need.Root(t)
	t.Parallel()
	path := build(t, Build{}, Healthy)
	_, backend := start(t, true, nil, path, "backend")
	proxy, address := start(t, true, nil, path, "proxy", backend)
	clients, _ := start(t, false, nil, path, "clients", address)
	postgres, url := postgreSQL(t)
	pool, _ := start(t, false, nil, path, "pool", url)
	need.Program(t, "dockerd")
	socket, daemon, err := docker(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pids := []int32{proxy, clients, postgres, pool}
	if daemon != nil {
		defer daemon.end()
		pids = append(pids, int32(daemon.cmd.Process.Pid))
	}
	healing, _ := start(t, false, []string{"DOCKER_HOST=unix://" + socket}, build(t, Build{}, DockerHeals), "1000000", "4s")
	pids = append(pids, healing)
	w, d, tick := &verdict.LeakWatch{}, *soak, 250*time.Millisecond
	if d == 0 { // more than any of them leaves a connection unused
		w, d = &verdict.LeakWatch{Idle: 5 * time.Second}, 12*time.Second
	}
	quiet(t, w, d, tick, pids...)
}

// postgreSQL starts a server with a database of its own, as an ordinary user.
func postgreSQL(t *testing.T) (pid int32, url string) {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(found) == 0 {
		need.Program(t, "initdb")
	}
	bin := found[len(found)-1]
	dir, err := os.MkdirTemp("", "postgres")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	const nobody = 65534
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	command := func(ctx context.Context, name string, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, filepath.Join(bin, name), args...)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		return cmd
	}
	if out, err := command(t.Context(), "initdb", "--pgdata="+dir+"/data", "--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v: %s", err, out)
	}
	cmd := command(context.Background(), "postgres", "-D", dir+"/data", "-k", dir, "-h", "", "-c", "fsync=off", "-c", "max_connections=50")
	server, err := begin(cmd, syscall.SIGQUIT)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.end)
	socket := filepath.Join(dir, ".s.PGSQL.5432")
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if err := server.running(); err != nil || time.Since(begun) > time.Minute {
			t.Fatalf("postgres does not listen: %v", err)
		}
	}
	return int32(cmd.Process.Pid), "postgres:///postgres?user=postgres&host=" + dir
}
