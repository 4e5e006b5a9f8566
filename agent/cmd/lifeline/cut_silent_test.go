package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
)

// sentry is a lifeline cut --silent in a process of its own.
type sentry struct {
	cmd   *exec.Cmd
	lines chan string // of its standard output
	log   chan string // of its standard error
}

// stand starts one and waits until it watches.
func stand(t *testing.T, args ...string) *sentry {
	t.Helper()
	program := filepath.Join(t.TempDir(), "lifeline")
	if err := os.Symlink("/proc/self/exe", program); err != nil {
		t.Fatal(err)
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g := &sentry{cmd: exec.Command(executable, append([]string{"cut", "--silent"}, args...)...), lines: make(chan string, 1024), log: make(chan string, 1024)}
	g.cmd.Args[0] = program
	stdout, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := g.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	for r, to := range map[*bufio.Scanner]chan string{bufio.NewScanner(stdout): g.lines, bufio.NewScanner(stderr): g.log} {
		reading.Go(func() {
			defer close(to)
			for r.Scan() {
				to <- r.Text()
			}
		})
	}
	t.Cleanup(func() {
		_ = g.cmd.Process.Signal(os.Interrupt)
		reading.Wait()
		_ = g.cmd.Wait()
	})
	return g
}

// line waits for a line that has some text in it.
func line(t *testing.T, from <-chan string, text string, within time.Duration) string {
	t.Helper()
	var before []string
	for late := time.After(within); ; {
		select {
		case l, ok := <-from:
			if ok && strings.Contains(l, text) {
				return l
			}
			before = append(before, l)
			if !ok {
				t.Fatalf("no line with %q, it ended: %q", text, before)
			}
		case <-late:
			t.Fatalf("no line with %q within %v: %q", text, within, before)
		}
	}
}

// beat writes on connections, spread evenly, until the test ends.
func beat(t *testing.T, conns []net.Conn, every time.Duration) {
	t.Helper()
	const together = 16
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every * together / time.Duration(len(conns)))
		defer tick.Stop()
		for i := 0; ; {
			select {
			case <-stop:
				return
			case <-tick.C:
				for range together {
					_, _ = conns[i%len(conns)].Write([]byte{1})
					i++
				}
			}
		}
	})
	t.Cleanup(func() { close(stop); wg.Wait() })
}

// halves returns the near ends and the far ends.
func halves(ends []net.Conn) (near, far []net.Conn) {
	for i := 0; i < len(ends); i += 2 {
		near, far = append(near, ends[i]), append(far, ends[i+1])
	}
	return near, far
}

// died waits until all reads returned, and counts those that say why. Where a
// write was first it was told, and the read gets io.EOF.
func died(conns []net.Conn, within time.Duration) (all, told int) {
	deadline := time.Now().Add(within)
	for _, c := range conns {
		err := readError(c, time.Until(deadline))
		if err != nil {
			all++
		}
		if errors.Is(err, syscall.ECONNABORTED) {
			told++
		}
	}
	return all, told
}

// The story with a guard: a node with 4,224 connections dies, and every read
// returns soon after.
func TestCutSilentOfTheStory(t *testing.T) {
	const connections = 4224
	near, far, ends := wired(t, connections)
	ours, _ := halves(ends)
	beat(t, ours, 30*time.Second)
	g := stand(t, "--watch", "--yes", "--rate", "max", "--netns", near.Path(), "--json")
	line(t, g.lines, `"done":[]`, 2*time.Minute)
	time.Sleep(3 * time.Second)
	killed := time.Now()
	far.Unplug()
	all, told := died(ours, time.Minute)
	t.Logf("all reads returned %v after the death", time.Since(killed).Round(time.Millisecond))
	if all != connections || told < connections*9/10 {
		t.Errorf("%d reads returned, %d of them said why", all, told)
	}
	var d struct {
		Time    time.Time
		Done    []struct{ Count int }
		Left    int
		Seconds float64
		Quiet   int `json:"quiet_ms"`
		Stopped *string
	}
	if err := json.Unmarshal([]byte(line(t, g.lines, `"cut"`, 10*time.Second)), &d); err != nil {
		t.Fatal(err)
	}
	t.Logf("verdict %v after the death, cut in %.3f s", d.Time.Sub(killed).Round(time.Millisecond), d.Seconds)
	if len(d.Done) != 1 || d.Done[0].Count != connections || d.Left != 0 || d.Stopped != nil {
		t.Errorf("got %+v", d)
	}
}

// The path comes back during a paced cut: it stops, and the rest live.
func TestCutSilentStopsAtASignOfLife(t *testing.T) {
	const connections = 200
	near, far, ends := wired(t, connections)
	ours, theirs := halves(ends)
	beat(t, ours, time.Second)
	g := stand(t, "--watch", "--yes", "--rate", "40/s", "--netns", near.Path())
	line(t, g.log, "watching", 2*time.Minute)
	far.Unplug()
	line(t, g.lines, "is silent", 2*time.Minute)
	line(t, g.log, " cut ", 2*time.Minute)
	far.Plug()
	for _, c := range theirs {
		_, _ = c.Write([]byte{1})
	}
	stopped := line(t, g.lines, "Stopped", 2*time.Minute)
	t.Log(stopped)
	alive := 0
	for _, c := range ours {
		err := readError(c, time.Millisecond)
		if err == nil { // a byte that came before the connection was cut is read before the error
			err = readError(c, time.Millisecond)
		}
		if err == nil {
			alive++
		}
	}
	if alive == 0 || alive == connections || !strings.Contains(stopped, fmt.Sprintf("%d left alone: there is a sign of life", alive)) {
		t.Errorf("%d of %d live: %s", alive, connections, stopped)
	}
}

// When all peers fall silent at once it is this machine that was cut off, even where
// one was talked to half a second after the other.
func TestCutSilentSparesThePeersOfADeadLink(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	near, far := l.Host("near"), l.Host("far")
	l.Wire(near, "10.77.1.1/24", far, "10.77.1.2/24")
	near.Sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms", "600000")
	far.Run("ip", "addr", "add", "10.77.1.3/24", "dev", "eth0")
	var ours []net.Conn
	for _, address := range []string{"10.77.1.2:80", "10.77.1.3:80"} {
		for _, c := range connect(t, near, far, address, 30) {
			t.Cleanup(func() { c.Close() })
			if conn, ok := c.(net.Conn); ok && conn.RemoteAddr().String() == address {
				ours = append(ours, conn)
			}
		}
	}
	g := stand(t, "--yes", "--rate", "max", "--netns", near.Path(), "--for", "2m")
	line(t, g.log, "watching", 2*time.Minute)
	for i, c := range ours {
		if i == len(ours)/2 {
			time.Sleep(500 * time.Millisecond)
		}
		if _, err := c.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(50 * time.Millisecond) // for the acknowledgements
	near.Unplug()
	beat(t, ours, time.Second)
	t.Log(line(t, g.lines, "30 left alone: no other peer", 2*time.Minute))
	_ = g.cmd.Wait()
	if code := g.cmd.ProcessState.ExitCode(); code != exitFindings {
		t.Errorf("exit code %d", code)
	}
	near.Plug()
	var fresh []net.Conn // the others back off, for the longer the slower the machine is
	for _, c := range connect(t, near, far, "10.77.1.3:81", 30) {
		t.Cleanup(func() { c.Close() })
		if conn, ok := c.(net.Conn); ok && conn.RemoteAddr().String() == "10.77.1.3:81" {
			fresh = append(fresh, conn)
		}
	}
	beat(t, fresh, time.Second)
	g = stand(t, "--even-all", "--yes", "--rate", "max", "--netns", near.Path(), "--for", "2m", "--peer", "10.77.1.3")
	line(t, g.log, "watching", 2*time.Minute)
	near.Unplug()
	t.Log(line(t, g.lines, "0 connections to 10.77.1.3 in ", 2*time.Minute)) // 60, or 30 where the old ones still back off
	_ = g.cmd.Wait()
	if code := g.cmd.ProcessState.ExitCode(); code != exitWell {
		t.Errorf("exit code %d", code)
	}
}

// Without --yes it says whom, and nobody is whom when all is well.
func TestCutSilentIsDryUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	near, far, ends := wired(t, 3)
	stdout, stderr, code := other(t, "cut", "--silent", "--netns", near.Path(), "--for", "2s", "--ask", "1s", "--yes")
	if code != exitWell || stdout != "Nobody fell silent in 2 s.\n" {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	far.Unplug()
	stdout, stderr, code = other(t, "cut", "--silent", "--netns", near.Path(), "--for", "2m", "--ask", "1s")
	if code != exitWell || !strings.Contains(stdout, "10.77.1.2 is silent") || !strings.Contains(stdout, "Would cut 3 connections. Nothing is done without --yes.") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	for _, c := range ends {
		if err := readError(c, time.Millisecond); err != nil {
			t.Errorf("the dry run ended a connection: %v", err)
		}
	}
}

// Whoever did not run cannot say that others did not.
func TestCutSilentKnowsItsLateness(t *testing.T) {
	t.Parallel()
	near, _, ends := wired(t, 3)
	ours, _ := halves(ends)
	beat(t, ours, 200*time.Millisecond)
	g := stand(t, "--watch", "--yes", "--ask", "1s", "--rate", "max", "--netns", near.Path())
	line(t, g.log, "watching", 2*time.Minute)
	for range 3 {
		if err := g.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		if err := g.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		select {
		case l := <-g.lines:
			t.Errorf("after it was stopped it says %q", l)
		case <-time.After(time.Second):
		}
	}
	for _, c := range ours {
		if err := readError(c, time.Millisecond); err != nil {
			t.Errorf("it was cut: %v", err)
		}
	}
}

func TestCutSilentUsage(t *testing.T) {
	for want, args := range map[string][]string{
		"--watch needs --silent":              {"--peer", "10.0.0.1", "--watch"},
		"--ask needs --silent":                {"--peer", "10.0.0.1", "--ask", "1s"},
		"leave --for out":                     {"--silent", "--watch", "--for", "3s"},
		"leave --while-silent out":            {"--silent", "--while-silent"},
		"--ask 10ms is out of range":          {"--silent", "--ask", "10ms"},
		"--for 1ms is out of range":           {"--silent", "--for", "1ms"},
		`--rate "0/s" is not a rate`:          {"--silent", "--rate", "0/s"},
		"it touches nothing that is not name": {"--yes"},
	} {
		stdout, stderr, code := lifeline(t, append([]string{"cut"}, args...)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%v: exit code %d, %q, want %q", args, code, stderr, want)
		}
	}
}
