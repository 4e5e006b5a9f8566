package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// fed is lifeline ssh whose commands come from a pipe.
type fed struct {
	*exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	errs bytes.Buffer
}

func (d *sshd) feed(t *testing.T, args ...string) *fed {
	t.Helper()
	f := &fed{Cmd: exec.Command("lifeline", append([]string{"ssh", "-F", d.conf}, args...)...)}
	f.Stderr = &f.errs
	in, err := f.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := f.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	f.in, f.out = in, bufio.NewScanner(out)
	f.out.Buffer(nil, 1<<20)
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = f.Process.Kill()
		_ = f.Wait()
	})
	return f
}

func (f *fed) line(t *testing.T) string {
	t.Helper()
	if !f.out.Scan() {
		t.Fatalf("no more output: %v", f.out.Err())
	}
	return f.out.Text()
}

// Each line of standard input is run when it is there, on one connection that is
// kept; a frozen host delays no other.
func TestSSHAsItComes(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	f := d.feed(t, "web1,frozen1,dead", "--connect-timeout", "20s")
	began := time.Now()
	var said []string
	for range 5 {
		fmt.Fprint(f.in, "# a comment\n\necho $SSH_CONNECTION\n")
		said = append(said, f.line(t)) // before there is another
	}
	took := time.Since(began)
	t.Logf("five commands, one after the other, beside a frozen host: %v", took)
	for _, line := range said {
		if line != said[0] || len(strings.Fields(line)) != 5 {
			t.Errorf("%q, not %q", line, said[0])
		}
	}
	fmt.Fprint(f.in, "exit 3\necho never\n") // as in a script
	_ = f.in.Close()
	if f.out.Scan() {
		t.Errorf("%q", f.out.Text())
	}
	_ = f.Wait()
	want := []string{"dead: unreachable while connecting: connection refused; at: echo $SSH_CONNECTION\n", "frozen1: unreachable in the SSH handshake: no connection within 20 s; at: echo $SSH_CONNECTION\n",
		"web1: exited with status 3; at: exit 3\n", "3 hosts: 1 failed, 2 unreachable, in "}
	for _, text := range want {
		if strings.Count(f.errs.String(), text) != 1 {
			t.Errorf("%q does not say once: %s", f.errs.String(), text)
		}
	}
	if code := f.ProcessState.ExitCode(); code != exitBlind || took > 15*time.Second {
		t.Errorf("code %d, %v", code, took)
	}
}

// With --json each command is a document of one line, in which no host is
// missing.
func TestSSHAsItComesJSON(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	d.write(t, "a", "hello\n")
	f := d.feed(t, "at1,dead", "--json", "--put", d.file("a")+":"+d.file("b"), "--script", "-")
	document := func() (r sshReport) {
		if err := json.Unmarshal([]byte(f.line(t)), &r); err != nil || len(r.Hosts) != 2 || r.Schema != "lifeline/v1" {
			t.Errorf("%v, %+v", err, r)
		}
		return r
	}
	fmt.Fprint(f.in, "cat "+d.file("b")+"\n")
	if r := document(); r.Counts[fact.OutcomeOK] == 0 || r.Counts[fact.OutcomeUnreachable] != 1 || r.Hosts[0].Copied == nil {
		t.Errorf("%+v", r)
	}
	for i := range 3 {
		if i > 0 {
			fmt.Fprintf(f.in, "echo %d\n", i)
		}
		r := document()
		if r.Counts[fact.OutcomeNotRun] == 0 || r.Hosts[1].Host != "dead" || r.Hosts[1].Outcome != "not_run" {
			t.Errorf("%+v", r)
		}
		want := fmt.Sprintf("%d\n", i)
		if i == 0 {
			want = "hello\n"
		}
		if r.Hosts[0].Outcome == "ok" && r.Hosts[0].Stdout != want {
			t.Errorf("%+v", r.Hosts[0])
		}
	}
	_ = f.in.Close()
	if f.out.Scan() {
		t.Errorf("%q", f.out.Text())
	}
}

// Nobody is begun without a command, and lines can be too long.
func TestSSHAsItComesWrong(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	f := d.feed(t, "web1")
	fmt.Fprint(f.in, "# nothing\n")
	_ = f.in.Close()
	_ = f.Wait()
	if want := "lifeline ssh: no command: put it behind --, "; !strings.HasPrefix(f.errs.String(), want) || f.ProcessState.ExitCode() != exitUsage {
		t.Errorf("%q", f.errs.String())
	}
	f = d.feed(t, "web1")
	fmt.Fprint(f.in, "echo a\n"+strings.Repeat("x", longestCommand+1)+"\n")
	_ = f.in.Close()
	if got := f.line(t); got != "web1: a" {
		t.Errorf("%q", got)
	}
	_ = f.Wait()
	if want := "1 host: 1 ok, in "; !strings.HasPrefix(f.errs.String(), want) || !strings.HasSuffix(f.errs.String(), "\nlifeline ssh: standard input: a command is longer than 1 MiB\n") {
		t.Errorf("%q", f.errs.String())
	}
	f = d.feed(t, "web1")
	fmt.Fprint(f.in, "echo $$; exec sleep 60\n")
	f.line(t)
	_ = f.Process.Signal(os.Interrupt)
	began := time.Now()
	_ = f.Wait() // though the input goes on
	if code, took := f.ProcessState.ExitCode(), time.Since(began); code != exitInterrupted || took > 9*time.Second || !strings.Contains(f.errs.String(), "web1: interrupted; the command may have run") {
		t.Errorf("%d after %v: %q", code, took, f.errs.String())
	}
}

// screen is a terminal on which lifeline runs.
type screen struct {
	master *os.File
	mu     sync.Mutex
	text   bytes.Buffer
}

func newScreen(t *testing.T) (*screen, *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{master: master}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100}); err != nil {
		t.Fatal(err)
	}
	return s, slave
}

// read takes what is written until the terminal is closed.
func (s *screen) read() {
	buf := make([]byte, 4096)
	for {
		n, err := s.master.Read(buf)
		s.mu.Lock()
		s.text.Write(buf[:n])
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// until waits for a text, and takes all before and with it away.
func (s *screen) until(t *testing.T, text string) (before string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		all := strings.ReplaceAll(s.text.String(), "\r", "")
		at := strings.Index(all, text)
		if at >= 0 {
			s.text.Reset()
			s.text.WriteString(all[at+len(text):])
		}
		s.mu.Unlock()
		if at >= 0 {
			return all[:at]
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q never came: %q", text, all)
		}
	}
}

// At a terminal commands are asked for. One that fails, or is ended by Ctrl-C,
// ends nothing else.
func TestSSHTyped(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	s, slave := newScreen(t)
	cmd := exec.Command("lifeline", "ssh", "-F", d.conf, "web[1-2],dead")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	var crew sync.WaitGroup
	crew.Go(s.read)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		s.master.Close()
		crew.Wait()
	})
	say := func(text string) { _, _ = s.master.WriteString(text) }
	s.until(t, "\nweb[1-2],dead> ")
	say("echo hi $((1+1))\n")
	text := s.until(t, "\nweb[1-2]> ")
	for _, want := range []string{"web1: hi 2\n", "web2: hi 2\n", "dead: unreachable while connecting: connection refused"} {
		if !strings.Contains(text+"\n", want) {
			t.Errorf("%q has no %q", text, want)
		}
	}
	say("exit 3\n")
	s.until(t, "web[1-2] (2): exited with status 3\nweb[1-2]> ")
	say("echo $$; sleep 60\n")
	s.until(t, "web2: ")
	s.until(t, "up to 2 s: web[1-2]") // the progress names who is late
	say("\x03")
	s.until(t, "web[1-2] (2): interrupted; the command may have run\nweb[1-2]> ")
	say("\x03")
	s.until(t, "\nweb[1-2]> ")
	say("echo still here\n")
	s.until(t, "web1: still here\n")
	s.until(t, "web[1-2]> ")
	say("\x04")
	s.until(t, "\n3 hosts: 2 ok, 1 unreachable, in ")
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitBlind {
		t.Errorf("code %d", code)
	}
}
