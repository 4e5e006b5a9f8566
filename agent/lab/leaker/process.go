package leaker

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// systemSocket is where a Docker daemon listens that runs already.
const systemSocket = "/var/run/docker.sock"

// daemonTime bounds the wait for a daemon to answer.
const daemonTime = 60 * time.Second

// process is a program that ends with this one, however that ends.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	out   bytes.Buffer // of its standard error
	lines atomic.Int64 // of its standard output
}

// Write counts lines.
func (p *process) Write(b []byte) (int, error) {
	p.lines.Add(int64(bytes.Count(b, []byte("\n"))))
	return len(b), nil
}

// said is how many lines it has printed.
func (p *process) said() int { return int(p.lines.Load()) }

// begin starts a program that gets a signal when this process dies. The kernel
// sends it when the thread ends that started it, so that one waits.
func begin(cmd *exec.Cmd, last syscall.Signal) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = p, &p.out, time.Second
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = last
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	return p, <-started
}

// end ends the program, the hard way when it does not within ten seconds.
func (p *process) end() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// running fails when the program has ended, with what it said.
func (p *process) running() error {
	select {
	case <-p.ended:
		said := strings.TrimSpace(p.out.String())
		return fmt.Errorf("%s ended: %v: %s", filepath.Base(p.cmd.Path), p.cmd.ProcessState, said[max(len(said)-400, 0):])
	default:
		return nil
	}
}

// answers reports a Docker daemon that speaks the version of the old client.
func answers(ctx context.Context, socket string) bool {
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/v1.41/version", nil)
	if err != nil {
		return false
	}
	r, err := t.RoundTrip(ask)
	if err != nil {
		return false
	}
	r.Body.Close()
	return r.StatusCode == http.StatusOK
}

// docker returns the socket of a Docker daemon: that of this machine, or of one
// that it starts, which the caller must end. That one has its own place for
// everything, its own view of mounts, and does not touch the network.
func docker(ctx context.Context, dir string) (socket string, daemon *process, err error) {
	if answers(ctx, systemSocket) {
		return systemSocket, nil, nil
	}
	socket = filepath.Join(dir, "docker.sock")
	cmd := exec.Command("dockerd", "--host", "unix://"+socket, "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "--bridge", "none", "--iptables=false", "--ip6tables=false")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if daemon, err = begin(cmd, syscall.SIGTERM); err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			daemon.end()
		}
	}()
	for begun := time.Now(); !answers(ctx, socket); {
		if err := daemon.running(); err != nil {
			return "", nil, err
		}
		if time.Since(begun) > daemonTime {
			return "", nil, fmt.Errorf("dockerd does not answer on %s after %v", socket, daemonTime)
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return "", nil, err
		}
	}
	return socket, daemon, nil
}

// agent starts one of the agents of the story.
func agent(path, socket string, operations int, every time.Duration) (*process, error) {
	cmd := exec.Command(path, fmt.Sprint(operations), every.String())
	cmd.Env = append(cmd.Environ(), "DOCKER_HOST=unix://"+socket)
	return begin(cmd, syscall.SIGKILL)
}

func sleep(ctx context.Context, d time.Duration) error {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-wait.C:
		return nil
	}
}

// sockets is how many sockets a process holds.
func sockets(pid int) (n int) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}
