package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/internal/need"
)

// sshd is a real one on addresses of loopback, and an ssh_config that has names
// for it: web1 to web999 and at1 to at4 (127.0.0.1 to 127.0.0.4), dead where
// nobody listens, and frozen1 to frozen99 of one that is stopped.
type sshd struct {
	dir  string
	conf string
}

func startSSHD(t *testing.T) *sshd {
	t.Helper()
	_, err := os.Stat("/usr/sbin/sshd")
	need.Feature(t, "sshd", err)
	keygen := need.Program(t, "ssh-keygen")
	need.Root(t) // sshd separates privileges in /run/sshd
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	d := &sshd{dir: t.TempDir()}
	d.conf = d.file("ssh_config")
	for _, name := range []string{"host", "me"} {
		if out, err := exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-f", d.file(name)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	public, err := os.ReadFile(d.file("host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	who, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	port, _ := d.listen(t, "works", "1000")
	copies, _ := d.listen(t, "copies", "1000", d.homes(t)...)
	frozen, process := d.listen(t, "frozen", "1000")
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	d.write(t, "known_hosts", "fleet "+string(public))
	d.write(t, "ssh_config", "Host web*\n Port "+port+"\nHost at1\n Port "+port+"\nHost at2\n HostName 127.0.0.2\n Port "+port+
		"\nHost at3\n HostName 127.0.0.3\n Port "+port+"\nHost at4\n HostName 127.0.0.4\n Port "+port+"\nHost c1\n Port "+copies+"\nHost c2\n HostName 127.0.0.2\n Port "+copies+"\nHost c3\n HostName 127.0.0.3\n Port "+copies+"\nHost c4\n HostName 127.0.0.4\n Port "+copies+
		"\nHost dead*\n Port 1\nHost frozen*\n Port "+frozen+
		"\nHost *\n HostName 127.0.0.1\n HostKeyAlias fleet\n User "+who.Username+"\n IdentityFile "+d.file("me")+
		"\n IdentityAgent none\n UserKnownHostsFile "+d.file("known_hosts")+"\n GlobalKnownHostsFile none\n")
	return d
}

func (d *sshd) file(name string) string { return filepath.Join(d.dir, name) }

func (d *sshd) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(d.file(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// homes are options of an sshd on whose four addresses copies have homes of their
// own.
func (d *sshd) homes(t *testing.T) (options []string) {
	t.Helper()
	for i := range 4 {
		home := d.file(fmt.Sprintf("home%d", i+1))
		if err := os.Mkdir(home, 0o755); err != nil {
			t.Fatal(err)
		}
		options = append(options, fmt.Sprintf("Match LocalAddress 127.0.0.%d", i+1), "ForceCommand internal-sftp -d "+home)
	}
	return options
}

// listen starts an sshd, which is killed at the end.
func (d *sshd) listen(t *testing.T, name, startups string, more ...string) (port string, process *os.Process) {
	t.Helper()
	port = strconv.Itoa(need.Port(t))
	var options []string
	for i := range 4 {
		options = append(options, fmt.Sprintf("ListenAddress 127.0.0.%d", i+1))
	}
	options = append(options, "Port "+port, "HostKey "+d.file("host"), "AuthorizedKeysFile "+d.file("me.pub"), "PidFile none", "StrictModes no",
		"PermitRootLogin yes", "UsePAM no", "UseDNS no", "LogLevel ERROR", "SetEnv SHLVL=5",
		"AcceptEnv LIFELINE_*", "Subsystem sftp internal-sftp", "MaxStartups "+startups)
	d.write(t, name, strings.Join(append(append(options, more...), ""), "\n"))
	cmd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", d.file(name))
	var log bytes.Buffer
	cmd.Stderr = &log
	cmd.WaitDelay = time.Second // its children have its standard error too
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("sshd %s: %s", name, log.Bytes())
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port) // sshd listens on the address last that it is told first
		if err == nil {
			conn.Close()
			return port, cmd.Process
		}
		if time.Now().After(deadline) {
			t.Fatalf("sshd does not listen: %v: %s", err, log.Bytes())
		}
	}
}

// ssh runs lifeline ssh in this process.
func (d *sshd) ssh(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return lifeline(t, append([]string{"ssh", "-F", d.conf}, args...)...)
}

// sshReport is the document of lifeline ssh --json.
type sshReport struct {
	Schema string
	Counts map[fact.Outcome]int
	Hosts  []sshHost
}

type sshHost struct {
	Host, Outcome, Stdout, Stderr string
	Exit                          *int
	Phase, Reason                 *string
	Truncated                     bool
	Attempts                      int
	Started                       time.Time
	MS                            float64
	Copied                        *struct {
		Files   int
		Bytes   int64
		Resumed int64 `json:"resumed_bytes"`
	}
}

func (d *sshd) report(t *testing.T, code int, args ...string) (r sshReport, hosts map[string]sshHost) {
	t.Helper()
	stdout, stderr, got := d.ssh(t, append([]string{"--json"}, args...)...)
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || got != code || r.Schema != "lifeline/v1" || stderr != "" {
		t.Fatalf("code %d, not %d, %v\n%s%s", got, code, err, stdout, stderr)
	}
	hosts = map[string]sshHost{}
	for _, h := range r.Hosts {
		hosts[h.Host] = h
	}
	return r, hosts
}

// Every way in which a host can fail, in one run.
func TestSSHOutcomes(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	command := `case "$SSH_CONNECTION" in
		*127.0.0.2*) echo oops >&2; exit 3;;
		*127.0.0.3*) echo begun; sleep 30;;
		*127.0.0.4*) echo $PPID > ` + d.file("stopped") + `; kill -STOP $PPID; sleep 30;;
		esac; echo hi`
	t.Cleanup(func() { // the process of sshd that the command stops
		var pid int
		text, _ := os.ReadFile(d.file("stopped"))
		if _, err := fmt.Sscan(string(text), &pid); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	_, hosts := d.report(t, exitBlind, "at[1-4],dead,frozen1", "--timeout", "15s", "--silence", "3s", "--connect-timeout", "5s", "--retry", "1", "--", command)
	if len(hosts) != 6 {
		t.Fatalf("%d hosts", len(hosts))
	}
	for host, want := range map[string]struct{ outcome, phase, reason, stdout, stderr string }{
		"at1":     {"ok", "run", "", "hi\n", ""},
		"at2":     {"failed", "run", "exited with status 3", "", "oops\n"},
		"at3":     {"timed_out", "run", "the command did not end within 15 s", "begun\n", ""},
		"at4":     {"unreachable", "run", "silent, nothing heard for", "", ""},
		"dead":    {"unreachable", "connect", "connection refused", "", ""},
		"frozen1": {"unreachable", "handshake", "no connection within 5 s", "", ""},
	} {
		got := hosts[host]
		reason := ""
		if got.Reason != nil {
			reason = *got.Reason
		}
		if got.Outcome != want.outcome || got.Phase == nil || *got.Phase != want.phase || !strings.HasPrefix(reason, want.reason) || (want.reason == "") != (reason == "") ||
			got.Stdout != want.stdout || got.Stderr != want.stderr {
			t.Errorf("%s: %+v, %s", host, got, reason)
		}
	}
	if h := hosts["at2"]; h.Exit == nil || *h.Exit != 3 {
		t.Errorf("%+v", h)
	}
	if a, b := hosts["dead"].Attempts, hosts["at2"].Attempts; a != 2 || b != 1 {
		t.Errorf("%d and %d attempts", a, b)
	}
}

func TestSSHText(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	out, errs, code := d.ssh(t, "web1", "--", "echo", "a  b;", "printf 'c\td'; echo e >&2; exit 4")
	if out != "web1: a b\nweb1: c\td\n" || errs != "web1: e\nweb1: exited with status 4\n"+lastLine(errs) || code != exitFindings {
		t.Errorf("%q, %q, %d", out, errs, code)
	}
	out, errs, code = d.ssh(t, "web[1-3],at2", "-b", "--", `echo same; case "$SSH_CONNECTION" in *127.0.0.2*) echo more;; esac`)
	const gathered = "---------------\nweb[1-3] (3)\n---------------\nsame\n---------------\nat2\n---------------\nsame\nmore\n"
	if out != gathered || !strings.HasPrefix(errs, "4 hosts: 4 ok, in ") || code != 0 {
		t.Errorf("%q, %q, %d", out, errs, code)
	}
	out, _, _ = d.ssh(t, "web[1-3],at2", "--diff", "--", `echo same; case "$SSH_CONNECTION" in *127.0.0.2*) echo more;; esac`)
	if want := gathered[:strings.Index(gathered, "---------------\nat2")] + "--- web[1-3] (3)\n+++ at2\n@@ -1,1 +1,2 @@\n same\n+more\n"; out != want {
		t.Errorf("%q", out)
	}
	_, errs, code = d.ssh(t, "dead", "--", "true")
	if !strings.HasPrefix(errs, "dead: unreachable while connecting: connection refused\n1 host: 1 unreachable, in ") || code != exitBlind {
		t.Errorf("%q, %d", errs, code)
	}
	_, errs, code = d.ssh(t, "-o", "UserKnownHostsFile=none", "web1", "--", "true")
	if !strings.Contains(errs, "the host is not known") || code != exitBlind {
		t.Errorf("%q, %d", errs, code)
	}
	_, _, code = d.ssh(t, "web1,at3", "--timeout", "1s", "--", `case "$SSH_CONNECTION" in *127.0.0.3*) sleep 3;; esac`)
	if code != exitTimedOut {
		t.Error(code)
	}
}

func lastLine(text string) string {
	lines := slices.Collect(strings.Lines(text))
	return lines[len(lines)-1]
}

func TestSSHFiles(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	d.write(t, "hosts", "# the fleet\nweb[1-2]\nweb3 # and one more\n")
	d.write(t, "script", "# steps\necho $SSH_CONNECTION\n\necho $SSH_CONNECTION\nfalse\necho never\n")
	r, hosts := d.report(t, exitFindings, "--hosts", d.file("hosts"), "--script", d.file("script"))
	if r.Counts[fact.OutcomeFailed] != 3 {
		t.Errorf("%+v", r)
	}
	lines := strings.Split(hosts["web2"].Stdout, "\n")
	if len(lines) != 3 || lines[0] != lines[1] || lines[0] == "" { // the same connection
		t.Errorf("%q", lines)
	}
}

// All hosts behind a jump host go by one connection: it would drop most of them
// otherwise.
func TestSSHJump(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	port, process := d.listen(t, "jump", "3:100:3")
	config, err := os.ReadFile(d.conf)
	if err != nil {
		t.Fatal(err)
	}
	d.write(t, "ssh_config", "Host jump*\n Port "+port+"\n"+string(config))
	r, _ := d.report(t, 0, "-J", "jump", "web[1-40]", "--", "true")
	if r.Counts[fact.OutcomeOK] != 40 {
		t.Errorf("%+v", r)
	}
	_, errs, code := d.ssh(t, "-J", "jump,frozen1", "web[1-3]", "--connect-timeout", "10s", "--", "true")
	if !strings.HasPrefix(errs, "web[1-3] (3): unreachable in the SSH handshake: by way of frozen1: no connection within 9 s\n3 hosts: ") || code != exitBlind {
		t.Errorf("%q, %d", errs, code)
	}
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, errs, code = d.ssh(t, "-J", "jump", "web[1-3]", "--", "true")
		if strings.HasPrefix(errs, "web[1-3] (3): unreachable while connecting: by way of jump: connection refused\n") && code == exitBlind {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q, %d", errs, code)
		}
	}
}

// A roll-out that fails stops.
func TestSSHSerial(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	r, hosts := d.report(t, exitFindings, "at2,web[1-9]", "--serial", "1,50%", "--", `case "$SSH_CONNECTION" in *127.0.0.2*) exit 1;; esac`)
	if r.Counts[fact.OutcomeNotRun] != 9 || *hosts["web9"].Reason != "not begun, because a host failed" {
		t.Errorf("%+v", r)
	}
	r, _ = d.report(t, exitFindings, "at2,web[1-9]", "--serial", "1,50%", "--max-fail", "10%", "--", `case "$SSH_CONNECTION" in *127.0.0.2*) exit 1;; esac`)
	if r.Counts[fact.OutcomeOK] != 9 {
		t.Errorf("%+v", r)
	}
}

// What one host writes does not fill the memory.
func TestSSHFlood(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	const flood = 18 << 20                                                   // more says no more: what is kept is 16 MiB
	for name, most := range map[string]int64{"lines": 200, "--json": 1000} { // MiB; the race detector takes more than half
		args := []string{"ssh", "-F", d.conf, "web1", "--", fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x", flood)}
		if name == "--json" {
			args = slices.Insert(args, 1, name)
		}
		cmd := exec.Command("lifeline", args...)
		var out bytes.Buffer
		count := &counter{}
		cmd.Stdout = io.MultiWriter(count, &out)
		memory, err := runMeasured(t, cmd)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%d MiB from one host, %s: at most %d MiB in memory, %d MiB written", flood>>20, name, memory, count.n>>20)
		if memory > most || name == "lines" && count.n < flood {
			t.Errorf("%s: %d MiB in memory, %d bytes", name, memory, count.n)
		}
		var r sshReport
		if name != "--json" {
			continue
		}
		if err := json.Unmarshal(out.Bytes(), &r); err != nil || !r.Hosts[0].Truncated || len(r.Hosts[0].Stdout) != 16<<20 {
			t.Errorf("%v, %d bytes", err, out.Len())
		}
	}
}

// 10,000 hosts are all in the report.
func TestSSHTenThousand(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	cmd := exec.Command("lifeline", "ssh", "-F", d.conf, "--json", "dead[1-9999],web1", "--", "true")
	var out bytes.Buffer
	cmd.Stdout = &out
	began := time.Now()
	memory, _ := runMeasured(t, cmd)
	var r sshReport
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	t.Logf("10,000 hosts, all but one refuse: %v, at most %d MiB in memory", time.Since(began), memory)
	if len(r.Hosts) != 10_000 || r.Counts[fact.OutcomeUnreachable] != 9999 || r.Counts[fact.OutcomeOK] != 1 || memory > 600 {
		t.Errorf("%v, %d MiB", r.Counts, memory)
	}
}

// runMeasured runs a program and returns how many MiB of memory it had at most.
// What wait4 says of that is no less than what the test had when it began it.
func runMeasured(t *testing.T, cmd *exec.Cmd) (most int64, err error) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
			if _, rest, ok := strings.Cut(string(text), "VmHWM:"); ok {
				var kib int64
				_, _ = fmt.Sscan(rest, &kib)
				most = max(most, kib>>10)
			}
			select {
			case <-over:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	err = cmd.Wait()
	close(over)
	<-ended
	return most, err
}

type counter struct{ n int }

func (c *counter) Write(p []byte) (int, error) {
	c.n += len(p)
	return len(p), nil
}

// Ctrl-C reaches the remote commands, and every host is in the report.
func TestSSHInterrupt(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	cmd := exec.Command("lifeline", "ssh", "-F", d.conf, "web[1-3]", "-j", "2", "-t", "--", "echo $$; while :; do sleep 0.1; done")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	for lines := bufio.NewScanner(stdout); len(pids) < 2 && lines.Scan(); {
		var host string
		var pid int
		if _, err := fmt.Sscan(strings.Replace(lines.Text(), ":", " ", 1), &host, &pid); err != nil {
			t.Errorf("%q: %v", lines.Text(), err)
		}
		pids = append(pids, pid)
	}
	began := time.Now()
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	took := time.Since(began)
	t.Logf("ended after %v", took)
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || took > 9*time.Second {
		t.Errorf("code %d after %v", code, took)
	}
	if text := errs.String(); !strings.Contains(text, "(2): interrupted; the command may have run\n") ||
		!strings.Contains(text, ": interrupted before it was begun\n3 hosts: 2 failed, 1 not run, in ") {
		t.Errorf("%q", text)
	}
	for _, pid := range pids {
		for deadline := time.Now().Add(10 * time.Second); running(pid); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d still runs", pid)
			}
		}
	}
}

// running says whether a process is more than the remains of one.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

// Two signals end it at once, also when nobody reads what it writes.
func TestSSHTwoSignals(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	cmd := exec.Command("lifeline", "ssh", "-F", d.conf, "web1", "-t", "--", "yes")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = stdout.Read(make([]byte, 10)) // it has begun, and is read no more
	time.Sleep(200 * time.Millisecond)
	_ = cmd.Process.Signal(os.Interrupt)
	time.Sleep(500 * time.Millisecond)
	began := time.Now()
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	if took := time.Since(began); took > patience/2 {
		t.Errorf("ended after %v", took)
	}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGINT {
		t.Errorf("%v", cmd.ProcessState)
	}
}

// 40 hosts of a real sshd, 10 of them frozen: these are reported at their bound,
// and the others, of which there is room for four beside them, are done meanwhile.
// (make bench has 200.)
func TestSSHFrozenHosts(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	const within = 10 * time.Second
	r, _ := d.report(t, exitBlind, "frozen[1-10],web[1-30]", "-j", "14", "--connect-timeout", within.String(), "--", "true")
	var first, healthy, longest time.Duration // when the first of the healthy had ended, when the last; how long a frozen one took
	began := r.Hosts[0].Started
	for _, h := range r.Hosts {
		took := time.Duration(h.MS * float64(time.Millisecond))
		switch ended := h.Started.Add(took).Sub(began); {
		case h.Outcome == "unreachable":
			longest = max(longest, took)
			if took < within || took > within+patience {
				t.Errorf("%+v", h)
			}
		case first == 0 || ended < first:
			first, healthy = ended, max(healthy, ended)
		default:
			healthy = max(healthy, ended)
		}
	}
	t.Logf("40 hosts, 10 of them frozen, within %v: of the others the first was done after %v, the last after %v; the frozen were reported after %v at most", within, first, healthy, longest)
	if r.Counts[fact.OutcomeOK] != 30 || r.Counts[fact.OutcomeUnreachable] != 10 || first > longest {
		t.Errorf("%v, the first after %v", r.Counts, first)
	}
}

// What a host writes cannot act on a terminal, and the progress names who is
// late.
func TestSSHTerminal(t *testing.T) {
	var out, errs bytes.Buffer
	p := &fleetPrinter{stdout: &out, stderr: &errs, outIsTerm: true, errIsTerm: true, width: 60,
		lines: map[lineKey][]byte{}, running: map[string]time.Time{}, warned: map[string]bool{}}
	for _, text := range []string{"\x1b]0;own", "ed\x07\nwhole\nrest", "\x9b", strings.Repeat("x", longestLine)} {
		if err := p.write("web1", false, []byte(text)); err != nil {
			t.Error(err)
		}
	}
	p.ended(&fact.HostAnswer{Host: "web1"})
	if want := "web1: \\x1b]0;owned\\a\nweb1: whole\nweb1: rest\\x9b" + strings.Repeat("x", longestLine) + "\n"; out.String() != want {
		t.Errorf("%.200q", out.String())
	}
	now := time.Now()
	p.all, p.left, p.bad = 200, 22, 3
	for i := range 20 {
		p.running[fmt.Sprintf("web%02d", i+1)] = now.Add(-12 * time.Second)
	}
	p.running["db1"] = now
	if got, want := p.progress(now), "178 of 200 done, 3 not ok; waiting for 20, up to 12 s: web[0…"; got[:50] != want[:50] || len(got) > 62 {
		t.Errorf("%q", got)
	}
	p.width = 100
	if got, want := p.progress(now), "178 of 200 done, 3 not ok; waiting for 20, up to 12 s: web[01-20]"; got != want {
		t.Errorf("%q", got)
	}
}
