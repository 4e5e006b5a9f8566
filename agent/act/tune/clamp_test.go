package tune

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/internal/need"
)

// serveStory makes of the test binary an ordinary server that knows nothing of
// Lifeline: net/http, with a connection that is taken over as for a WebSocket. It
// prints its address, then how long each connection's read waited and how it
// ended.
func serveStory() bool {
	addr := os.Getenv("LIFELINE_TEST_SERVER")
	if addr == "" {
		return false
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		fmt.Println(err)
		return true
	}
	fmt.Println(ln.Addr())
	go func() { // ends with the test
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		if r.URL.Path == "/off" {
			_ = c.(*net.TCPConn).SetKeepAlive(false)
		}
		_, _ = c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\n\r\n"))
		_, err = c.Read(make([]byte, 1))
		fmt.Println("ended:", err)
	}))
	return true
}

// server starts the ordinary server on h, in a cgroup, and returns lines of what
// it prints.
func server(t *testing.T, h *lab.Host, cgroup, addr string) (lines *bufio.Scanner, pid int) {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	join := fmt.Sprintf("echo $$ >%s/cgroup.procs && exec %s", cgroup, executable)
	cmd := h.Command("sh", "-c", join)
	cmd.Env = append(os.Environ(), "LIFELINE_TEST_SERVER="+addr)
	cmd.Stderr = os.Stderr
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
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines = bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != addr {
		t.Fatalf("the server says %q", lines.Text())
	}
	return lines, cmd.Process.Pid
}

// group makes a cgroup that goes with the test.
func group(t *testing.T) *Cgroup {
	t.Helper()
	need.Root(t)
	mount, err := unified()
	need.Feature(t, "cgroup v2", err)
	path := filepath.Join(mount, fmt.Sprintf("lifeline-test-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-")))
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) { // its last process may be dying
			err := os.Remove(path)
			if err == nil || errors.Is(err, os.ErrNotExist) {
				return
			}
			if time.Now().After(deadline) {
				t.Error(err)
				return
			}
		}
	})
	c, err := FindCgroup(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// pins mounts a file system for BPF for the test.
func pins(t *testing.T) HoldOptions {
	t.Helper()
	need.Root(t)
	dir := t.TempDir()
	need.Feature(t, "a file system for BPF", unix.Mount("bpf", dir, "bpf", 0, ""))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return HoldOptions{Pins: filepath.Join(dir, "lifeline"), Dir: place(t)}
}

// upgrade opens a connection that the server takes over; at the path /off it
// switches keepalive off.
func upgrade(t *testing.T, near *lab.Host, addr, path string) {
	t.Helper()
	c := near.Dial("tcp", addr)
	if _, err := c.Write([]byte("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.Contains(line, "101") {
		t.Fatalf("%v: %q", err, line)
	}
}

// connection returns the one connection that pid has on h, with its options.
func connection(t *testing.T, h *lab.Host, pid int) *fact.Socket {
	t.Helper()
	m := look(t, true, h)
	var found *fact.Socket
	for _, s := range established(m) {
		if len(s.Owners) == 1 && int(s.Owners[0].PID) == pid {
			found = s
		}
	}
	if found == nil {
		t.Fatal("the server has no connection")
	}
	return found
}

// New connections of an ordinary Go server in a held cgroup learn within the
// bound, although the server asks for Go's own 15 s; after the release they are as
// Go has them.
func TestHold(t *testing.T) {
	t.Parallel()
	const within = 4 * time.Second
	c, where := group(t), pins(t)
	near, far := hosts(t)
	o := Options{Within: within}
	h, err := Hold(t.Context(), c, Options{Within: time.Minute}, where)
	if err != nil || !h.Pinned || h.Renewed {
		t.Fatalf("%v: %+v", err, h)
	}
	h, err = Hold(t.Context(), c, o, where)
	if err != nil || !h.Pinned || !h.Renewed {
		t.Fatalf("%v: %+v", err, h)
	}
	all, err := Holds(where)
	if err != nil || len(all) != 1 || all[0].Cgroup != c.Path || all[0].ID != c.ID || all[0].Limits != h.Limits {
		t.Errorf("%v: %+v", err, all)
	}

	for i, network := range []string{"10.77.1.2:80", "[fd77::2]:80"} {
		path := []string{"/", "/off"}[i]
		lines, pid := server(t, far, c.Path, network)
		upgrade(t, near, network, path)
		s := connection(t, far, pid)
		if s.Options.Value != h.Limits {
			t.Errorf("%s: a new connection has %+v, want %+v", network, s.Options.Value, h.Limits)
		}
		if c, err := FindCgroup(c.Path); err != nil || !c.Has(s) {
			t.Errorf("%s: %v: the connection is not of the cgroup", network, err)
		}
		if i > 0 {
			continue
		}
		near.Unplug()
		start := time.Now()
		if !lines.Scan() || !strings.Contains(lines.Text(), syscall.ETIMEDOUT.Error()) || time.Since(start) > 3*within {
			t.Errorf("after %v the server says %q", time.Since(start), lines.Text())
		}
		t.Logf("learned after %v, of %v", time.Since(start), within)
		near.Plug()
	}

	if err := Release(t.Context(), c.ID, where); err != nil {
		t.Fatal(err)
	}
	if all, err := Holds(where); err != nil || len(all) != 0 {
		t.Errorf("after the release: %v: %+v", err, all)
	}
	_, pid := server(t, far, c.Path, "10.77.1.2:82")
	upgrade(t, near, "10.77.1.2:82", "/")
	if got := connection(t, far, pid).Options.Value; valuesOf(got) != (values{1, 15, 15, 9, 0}) {
		t.Errorf("after the release a new connection has %+v", got)
	}
}

// Where nothing can be pinned the hold ends with who holds it; what others have
// attached stays.
func TestHoldWithoutPins(t *testing.T) {
	t.Parallel()
	c := group(t)
	where := HoldOptions{Pins: filepath.Join(t.TempDir(), "lifeline"), Dir: place(t)}
	first, err := Hold(t.Context(), c, Options{}, where)
	if err != nil || first.Pinned || where.Pinnable() {
		t.Fatalf("%v: %+v", err, first)
	}
	second, err := Hold(t.Context(), c, Options{Within: 4 * time.Second, UserTimeout: 9 * time.Second}, where)
	if err != nil {
		t.Fatal(err)
	}
	_, far := hosts(t)
	near := far
	_, pid := server(t, far, c.Path, "10.77.1.2:80")
	upgrade(t, near, "10.77.1.2:80", "/")
	if got := connection(t, far, pid).Options.Value; got != second.Limits {
		t.Errorf("got %+v, want the tighter of both, %+v", got, second.Limits)
	}
	if err := errors.Join(second.Close(), first.Close(), first.Close()); err != nil {
		t.Error(err)
	}
	_, pid = server(t, far, c.Path, "10.77.1.2:81")
	upgrade(t, near, "10.77.1.2:81", "/")
	if got := connection(t, far, pid).Options.Value; valuesOf(got) != (values{1, 15, 15, 9, 0}) {
		t.Errorf("after the end a new connection has %+v", got)
	}
}

// What a killed run left, and what is left of a cgroup that is gone, is found
// and removed.
func TestHoldLeftovers(t *testing.T) {
	t.Parallel()
	c, where := group(t), pins(t)
	if _, err := Hold(t.Context(), c, Options{}, where); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(where.Pins, strconv.FormatUint(c.ID, 10), pinEstablished)
	if err := os.Remove(half); err != nil {
		t.Fatal(err)
	}
	if h, err := Hold(t.Context(), c, Options{}, where); err != nil || h.Renewed {
		t.Errorf("half a hold counts as one: %v: %+v", err, h)
	}
	if _, err := os.Stat(half); err != nil {
		t.Error(err)
	}
	if err := os.Remove(c.Path); err != nil {
		t.Fatal(err)
	}
	all, err := Holds(where)
	if err != nil || len(all) != 1 || all[0].Cgroup != "" || all[0].ID != c.ID {
		t.Errorf("%v: %+v", err, all)
	}
	if err := errors.Join(Release(t.Context(), c.ID, where), Release(t.Context(), c.ID, where)); err != nil {
		t.Error(err)
	}
}

func TestFindCgroup(t *testing.T) {
	c := group(t)
	if got, err := FindCgroup("/" + filepath.Base(c.Path)); err != nil || got.ID != c.ID || got.Path != c.Path {
		t.Errorf("%v: %+v", err, got)
	}
	for _, text := range []string{"", "/etc", "/nowhere", "no such.service"} {
		if got, err := FindCgroup(text); text != "" && err == nil || got == nil && !strings.Contains(err.Error(), "cgroup v2") {
			t.Errorf("%q: %v, %+v", text, err, got)
		}
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if err := os.WriteFile(filepath.Join(c.Path, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	c, err := FindCgroup(c.Path)
	if err != nil || !c.Has(&fact.Socket{Owners: []fact.Owner{{PID: int32(cmd.Process.Pid)}}}) || c.Has(&fact.Socket{Owners: []fact.Owner{{PID: 1}}}) {
		t.Errorf("%v: %+v", err, c)
	}
}
