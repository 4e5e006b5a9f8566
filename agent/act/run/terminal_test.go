//go:build linux

package run_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/internal/need"
)

// shell is an interactive shell on a terminal of its own.
type shell struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd

	mu    sync.Mutex
	shown strings.Builder
	seen  int // of shown, by expect
}

func newShell(t *testing.T) *shell {
	t.Helper()
	bash := need.Program(t, "bash")
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	need.Feature(t, "a terminal", err)
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	master := os.NewFile(uintptr(fd), "terminal") // not blocking, so that Close ends a Read
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	need.Feature(t, "a terminal", err)
	defer slave.Close()
	s := &shell{t: t, master: master, cmd: exec.Command(bash, "--norc", "--noprofile", "--noediting", "-i")}
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "PS1=$ ", "F=/proc/"+fmt.Sprint(os.Getpid())+"/exe front", "LC_ALL=C", "HISTFILE=")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.mu.Lock()
			s.shown.Write(buf[:n])
			s.mu.Unlock()
			if err != nil { // EIO: the last process has closed the terminal
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		master.Close()
		<-read
		if t.Failed() {
			t.Logf("the terminal shows:\n%s", s.shown.String())
		}
	})
	s.types("stty -echo; echo quiet-$((1+1))\n")
	s.expect("quiet-2")
	return s
}

func (s *shell) types(text string) {
	s.t.Helper()
	if _, err := s.master.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// expect waits until the terminal shows what matches a pattern, after what was
// expected before.
func (s *shell) expect(pattern string) string {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(patience / 3); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		text := s.shown.String()[s.seen:]
		at := re.FindStringIndex(text)
		if at != nil {
			s.seen += at[1]
		}
		s.mu.Unlock()
		if at != nil {
			return text[at[0]:at[1]]
		}
	}
	s.t.Fatalf("the terminal does not show %q", pattern)
	return ""
}

// A terminal and its shell make no difference between a program and one below
// lifeline run.
func TestJobControl(t *testing.T) {
	t.Parallel()
	s := newShell(t)

	s.types("$F /bin/sh -c 'echo ready; read x; echo read-$x'\n")
	s.expect("ready")
	s.types("words\n")
	s.expect("read-words")

	s.types("$F /bin/sh -c 'echo ready; exec sleep 77'\n")
	s.expect("ready")
	s.types("\x1a") // Ctrl-Z
	s.expect(`\[1\]\+  Stopped`)
	s.types("fg\n")
	s.expect("ready; exec sleep 77'") // bash says what it goes on with
	time.Sleep(300 * time.Millisecond)
	s.types("\x03") // Ctrl-C
	s.expect(`\$ $`)
	s.types("echo code $?\n")
	s.expect("code 130")

	s.types("$F /bin/sh -c 'echo ready; kill -STOP $$; echo went-on'\n")
	s.expect("ready")
	s.expect(`\[1\]\+  Stopped`)
	s.types("bg; wait\n")
	s.expect("went-on")
	s.expect(`\[1\]\+  Done`)

	s.types("$F /bin/echo through | cat; $F /bin/sh -c 'exit 9'; echo code $?\n")
	s.expect("through")
	s.expect("code 9")

	s.types("$F /bin/sh -c 'echo ready; exec sleep 77'; echo code $?\n")
	s.expect("ready")
	s.types("\x1c") // Ctrl-\
	s.expect("code 131")
}

// Each signal reaches the program once, whether it was sent to its process, as
// the shell knows it, or to its group.
func TestSignalsOnce(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	for _, way := range []string{"kill %1", "kill $!", "kill -TERM -$!"} {
		s.types("$F /bin/sh -c 'trap \"echo te\\rm\" TERM; echo rea\\dy; for i in 1 2 3 4 5 6 7 8; do sleep 0.2; done; echo e\\nd' &\n")
		s.expect("ready")
		time.Sleep(100 * time.Millisecond)
		s.types(way + "; wait\n")
		if got := s.expect(`(?s)term.*end\s`); strings.Count(got, "term") != 1 {
			t.Errorf("%s reaches the program %d times: %q", way, strings.Count(got, "term"), got)
		}
		s.types("wait; echo\n")
	}
}

// Who kills the process that they have started kills the program.
func TestFrontKilled(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", "front", "/bin/sh", "-c", "echo $$; exec sleep 77")
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for end := time.Now().Add(patience); unix.Kill(pid, 0) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the program lives on")
		}
	}
}
