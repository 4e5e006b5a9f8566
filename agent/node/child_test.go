package node

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/internal/need"
)

// child is this test binary as another program, see TestMain.
type child struct {
	cmd *exec.Cmd
	out *bufio.Scanner
}

// itself is how to start this test binary as another program.
func itself(t *testing.T, args ...string) (string, []string) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return program, args
}

// start starts a program that says when it is ready, and kills it when the test
// ends.
func start(t *testing.T, cmd *exec.Cmd) *child {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	c := &child{cmd, bufio.NewScanner(out)}
	if !c.out.Scan() || c.out.Text() != "ready" {
		t.Fatalf("%v says %q, %v", cmd.Args, c.out.Text(), c.out.Err())
	}
	return c
}

func (c *child) signal(t *testing.T, s unix.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		t.Error(err)
	}
}

// must is for programs of this file: they have no test to fail.
func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// dialUntilKilled holds so many connections, and reads from them.
func dialUntilKilled(address, count string) {
	n, err := strconv.Atoi(count)
	must(err)
	for range n {
		conn, err := (&net.Dialer{KeepAlive: -1}).Dial("tcp", address)
		must(err)
		go func() { _, _ = io.Copy(io.Discard, conn) }()
	}
	fmt.Println("ready")
	select {}
}

// watchUntilKilled writes a line for each verdict on the peers of a namespace.
func watchUntilKilled(path string) {
	one, err := ParseNamespaces(path)
	must(err)
	n, began := New(), false
	must(n.WatchPeers(context.Background(), PeerWatch{Of: one}, func(_ *fact.Machine, changes []verdict.Change) error {
		if !began {
			began = true
			fmt.Println("ready")
		}
		for _, c := range changes {
			fmt.Println(c.Time.Format(time.RFC3339Nano), c.Verdict, c.Count)
		}
		return nil
	}))
}

// verdicts are what a child that watches says from now on.
func (c *child) verdicts(t *testing.T) <-chan verdict.Change {
	t.Helper()
	said := make(chan verdict.Change, 64)
	var wg sync.WaitGroup
	wg.Go(func() {
		for c.out.Scan() {
			fields := strings.Fields(c.out.Text())
			at, err := time.Parse(time.RFC3339Nano, fields[0])
			if err != nil {
				t.Error(err)
			}
			change := verdict.Change{Time: at}
			if fields[1] == verdict.Silent.String() {
				change.Verdict = verdict.Silent
			}
			said <- change
		}
	})
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // ends its output
		wg.Wait()
	})
	return said
}

// A watch that did not run for a while, again and again, or that hardly runs at
// all, knows it: what it finds then is no proof of anything. And what clocks
// show is of no matter to it, as long as they tick: one lives in a time
// namespace, eleven days later than all others. When all is well with them they
// find the dead, also when it died while they did not run.
func TestWatchThatHardlyRuns(t *testing.T) {
	t.Parallel()
	for _, conns := range []int{200, 3} {
		t.Run(fmt.Sprintf("%d connections", conns), func(t *testing.T) {
			t.Parallel()
			need.Program(t, "nft")
			need.Program(t, "unshare")
			_, err := os.Stat("/proc/self/timens_offsets")
			need.Feature(t, "time namespaces", err)
			hardlyRuns(t, conns)
		})
	}
}

func hardlyRuns(t *testing.T, conns int) {
	c := connected(t, conns, probing)
	c.chat(t)
	stopped, starved := watcher(t, c.pod), watcher(t, c.pod)
	elsewhen := watcher(t, c.pod, "unshare", "--time", "--monotonic", "1000000", "--boottime", "1000000", "--fork", "--kill-child", "--")
	watches := map[string]<-chan verdict.Change{
		"the watch that is stopped": stopped.verdicts(t), "the watch that starves": starved.verdicts(t), "the watch of another time": elsewhen.verdicts(t),
	}
	time.Sleep(2 * time.Second)
	c.lose(20)
	var wg sync.WaitGroup
	began := time.Now()
	for _, w := range []struct {
		*child
		runs, stops, most time.Duration
	}{{stopped, 3 * time.Second, 5 * time.Second, 5 * time.Second}, {starved, 10 * time.Millisecond, 50 * time.Millisecond, 600 * time.Millisecond}} {
		wg.Go(func() {
			for time.Since(began) < losing {
				w.signal(t, unix.SIGSTOP)
				time.Sleep(w.stops + rand.N(w.most-w.stops+1))
				w.signal(t, unix.SIGCONT)
				time.Sleep(w.runs)
			}
		})
	}
	for time.Since(began) < losing {
		spared(t, watches, began)
		time.Sleep(100 * time.Millisecond)
	}
	wg.Wait()
	stopped.signal(t, unix.SIGSTOP)
	wg.Go(func() {
		time.Sleep(5 * time.Second)
		stopped.signal(t, unix.SIGCONT)
	})
	c.dies(t, watches, longest)
	wg.Wait()
}

// watcher watches a host in a process of its own, which may be started by
// another program.
func watcher(t *testing.T, h *lab.Host, by ...string) *child {
	t.Helper()
	program, args := itself(t, "watch", h.Path())
	command := append(append(by, program), args...)
	return start(t, exec.Command(command[0], command[1:]...))
}
