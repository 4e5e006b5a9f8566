package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/need"
)

// situation is one way in which names can be broken, or not, and what must be
// said of it.
type situation struct {
	name    string
	servers map[string]func(question) reply // by address
	drop    []string                        // matches of nft
	setup   func(o *office)
	asked   []string
	code    int
	say     [][3]string // code, severity, words of the title
	silent  []string    // codes that must not be there
	answers [][3]string // way, family, answer
}

const alive = "10.77.4.53"

// withoutAAAA answers for A and says nothing to the rest.
func withoutAAAA(q question) reply {
	if q.aaaa {
		return reply{}
	}
	return addresses("10.1.2.3")
}

func everything(question) reply { return addresses("10.1.2.3", "fd00::7") }

var situations = []situation{
	{
		name: "healthy", servers: map[string]func(question) reply{alive: known("db.example", "10.1.2.3", "fd00::7")}, asked: []string{"db.example"},
		answers: [][3]string{{"getaddrinfo", "both", "10.1.2.3,fd00::7"}, {"go", "both", "10.1.2.3,fd00::7"}, {"nameserver 10.77.4.53 tcp", "AAAA", "fd00::7"},
			{"nameserver 10.77.4.53 udp without EDNS", "A", "10.1.2.3"}, {"nameserver 10.77.4.53 tls", "A", "failed"}, {"hosts", "both", "no such name"}},
	},
	{
		name: "UDP is dropped and TCP is not", servers: map[string]func(question) reply{alive: everything}, drop: []string{"udp dport 53"}, asked: []string{"db.example"}, code: exitFindings,
		say:     [][3]string{{"N004", "warn", "nameserver 10.77.4.53 answers over TCP and not over UDP (by eth0)"}, {"N001", "fail", "the only nameserver"}},
		answers: [][3]string{{"nameserver 10.77.4.53 udp", "A", "silent"}, {"nameserver 10.77.4.53 tcp", "A", "10.1.2.3"}},
	},
	{
		name: "and resolv.conf says so", servers: map[string]func(question) reply{alive: everything}, drop: []string{"udp dport 53"}, asked: []string{"db.example"},
		setup: func(o *office) { o.resolv += "options use-vc\n" }, silent: []string{"N001", "N004", "N005", "N006"},
		answers: [][3]string{{"go", "both", "10.1.2.3,fd00::7"}},
	},
	{
		name: "EDNS is refused", asked: []string{"db.example"}, code: exitFindings,
		servers: map[string]func(question) reply{alive: func(q question) reply {
			if q.edns {
				return code(formatError)
			}
			return everything(q)
		}},
		say:    [][3]string{{"N003", "fail", "nameserver 10.77.4.53 answers FORMERR to questions with EDNS"}, {"N006", "fail", "db.example: the operating system answers, nameserver 10.77.4.53 takes no questions with EDNS"}},
		silent: []string{"N001"},
	},
	{
		name: "EDNS is dropped by the first", asked: []string{"db.example"},
		setup: func(o *office) { o.resolv += "nameserver 10.77.4.54\n" },
		servers: map[string]func(question) reply{"10.77.4.54": everything, alive: func(q question) reply {
			if q.edns && !q.tcp {
				return reply{}
			}
			return everything(q)
		}},
		say: [][3]string{{"N003", "warn", "nameserver 10.77.4.53 does not answer questions with EDNS"}}, silent: []string{"N001", "N006"},
	},
	{
		name: "AAAA is never answered", servers: map[string]func(question) reply{alive: withoutAAAA}, asked: []string{"db.example"}, code: exitFindings,
		say: [][3]string{{"N007", "fail", "nameserver 10.77.4.53 never answers AAAA: each lookup waits 10 s or longer for it"}}, silent: []string{"N001", "N006", "N009", "N010"},
		answers: [][3]string{{"getaddrinfo", "A", "10.1.2.3"}, {"getaddrinfo", "AAAA", "silent"}, {"getaddrinfo", "both", "silent"}, {"go", "both", "silent"}},
	},
	{
		name: "the first server is dead", servers: map[string]func(question) reply{"10.77.4.54": everything}, drop: []string{"ip daddr 10.77.4.53"}, asked: []string{"db.example"},
		setup: func(o *office) { o.resolv += "nameserver 10.77.4.54\n" },
		say:   [][3]string{{"N001", "warn", "nameserver 10.77.4.53, the first of 2, does not answer (timed out): lookups by Go and libc wait 5 s for it"}}, silent: []string{"N006", "N009", "N010"},
	},
	{
		name: "split DNS", servers: map[string]func(question) reply{alive: known("other"), "10.77.4.54": known("db.example", "10.1.2.3")}, asked: []string{"db.example"}, code: exitFindings,
		setup: func(o *office) { o.resolv += "nameserver 10.77.4.54\n" },
		say:   [][3]string{{"N008", "fail", "db.example: split DNS: nameserver 10.77.4.54 knows it (10.1.2.3), nameserver 10.77.4.53 says it does not exist"}},
	},
	{
		name: "only a source of nsswitch.conf knows the name", servers: map[string]func(question) reply{alive: known("other")}, asked: []string{"api.lab"}, code: exitFindings,
		setup: func(o *office) { o.nss, o.libraries = "hosts: files lab dns\n", nssModule(o.t) },
		say:   [][3]string{{"N006", "fail", "api.lab: the operating system answers, no nameserver knows the name, only lab of nsswitch.conf does"}, {"N002", "info", "Go programs without cgo do not see names from lab"}},
	},
	{
		name: "a source of nsswitch.conf hangs", servers: map[string]func(question) reply{alive: everything}, asked: []string{"slow.lab"}, code: exitFindings,
		setup: func(o *office) { o.nss, o.libraries = "hosts: files lab dns\n", nssModule(o.t) },
		say:   [][3]string{{"N009", "fail", "slow.lab: the operating system does not answer within 3"}},
	},
	{
		name: "everything is dead", drop: []string{"meta l4proto { tcp, udp }"}, asked: []string{"a.example", "b.example", "c.example"}, code: exitFindings,
		setup: func(o *office) { o.resolv += "nameserver 10.77.4.54\nnameserver fd77:4::53\n" },
		say:   [][3]string{{"N001", "fail", "none of the 3 nameservers answers"}, {"N010", "fail", "c.example: nobody who would know answers"}},
	},
	{
		name: "names are completed", servers: map[string]func(question) reply{alive: known("db.corp.example", "10.1.2.3")}, asked: []string{"db"},
		setup:   func(o *office) { o.resolv += "search nowhere.example corp.example\n" },
		answers: [][3]string{{"getaddrinfo", "both", "10.1.2.3"}, {"go", "both", "10.1.2.3"}, {"nameserver 10.77.4.53 udp", "A", "10.1.2.3"}, {"nameserver 10.77.4.53 udp", "AAAA", "no address"}},
	},
	{
		name: "IPv6 only", servers: map[string]func(question) reply{"fd77:4::53": known("db.example", "fd00::7")}, asked: []string{"db.example"},
		setup: func(o *office) {
			o.box.Run("ip", "addr", "flush", "dev", "eth0", "scope", "global")
			o.box.Run("ip", "addr", "add", "fd77:4::2/64", "dev", "eth0", "nodad")
			o.resolv = "nameserver fd77:4::53\n"
		},
		answers: [][3]string{{"getaddrinfo", "both", "fd00::7"}, {"go", "both", "fd00::7"}, {"nameserver fd77:4::53 udp", "AAAA", "fd00::7"}},
	},
	{
		name: "no resolv.conf, and a name of the hosts file", asked: []string{"printer"}, setup: func(o *office) { o.resolv = "" },
		say:     [][3]string{{"N001", "warn", "no nameserver is configured, and the default 127.0.0.1 does not answer (connection refused)"}},
		answers: [][3]string{{"hosts", "both", "10.77.4.9"}, {"getaddrinfo", "both", "10.77.4.9"}, {"go", "both", "10.77.4.9"}},
	},
	{
		name: "no route", asked: []string{"db.example"}, code: exitFindings, setup: func(o *office) { o.resolv = "nameserver 192.0.2.53\n" },
		say: [][3]string{{"N001", "fail", "the only nameserver, 192.0.2.53, does not answer (no route: network is unreachable)"}},
	},
	{
		name: "no such name, and one that is not ASCII", servers: map[string]func(question) reply{alive: known("xn--bcher-kva.example", "10.1.2.3")}, asked: []string{"nosuch.example", "bücher.example"}, code: exitFindings,
		say: [][3]string{{"N010", "fail", "nosuch.example: no such name"}},
	},
	{
		name: "servers that fail", servers: map[string]func(question) reply{alive: func(question) reply { return code(serverFails) }}, asked: []string{"db.example"}, code: exitFindings,
		say: [][3]string{{"N010", "fail", "db.example: no answer that is of use (SERVFAIL)"}}, silent: []string{"N001", "N003"},
	},
	{
		name: "long answers without TCP", asked: []string{"db.example"}, drop: []string{"tcp dport 53"},
		servers: map[string]func(question) reply{alive: func(q question) reply {
			r := everything(q)
			r.truncated = true
			return r
		}},
		code: exitFindings, say: [][3]string{{"N011", "warn", "db.example: the answer of nameserver 10.77.4.53 does not fit a datagram, and TCP to it is not answered"}},
	},
	{
		name: "an address", servers: map[string]func(question) reply{alive: known("other")}, asked: []string{"10.0.0.1", "fd00::1"},
		answers: [][3]string{{"address", "both", "10.0.0.1"}}, silent: []string{"N001", "N010"},
	},
	{
		name: "systemd-resolved", servers: map[string]func(question) reply{alive: known("other")}, asked: []string{"db.example"}, code: exitFindings,
		setup: func(o *office) {
			nameserver(o.t, o.box, "127.0.0.53", known("db.example", "10.1.2.3"))
			varlink(o.t, filepath.Join(o.dir, "varlink"))
			o.script = "mount -t tmpfs none /run\nmkdir -p /run/systemd/resolve\ntouch /run/systemd/resolve/stub-resolv.conf\n" +
				"ln -s " + filepath.Join(o.dir, "varlink") + " /run/systemd/resolve/io.systemd.Resolve\n"
		},
		say: [][3]string{{"N006", "fail", "db.example: the operating system answers, no nameserver knows the name"}},
		answers: [][3]string{{"resolved-varlink", "both", "10.1.2.3"}, {"resolved-stub 127.0.0.53 udp", "A", "10.1.2.3"}, {"resolved-stub 127.0.0.53 tcp", "AAAA", "no address"},
			{"resolved-stub 127.0.0.54 udp", "A", "failed"}, {"go", "both", "no such name"}},
	},
	{
		name: "hostile answers", asked: []string{"db.example"}, code: exitFindings,
		servers: map[string]func(question) reply{alive: func(q question) reply {
			// A question that points to itself, and 65,535 answers that are not there.
			loop := []byte{0x81, 0x80, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc0, 12, 0, 1, 0, 1, 0xc0, 12}
			return reply{raw: append(loop, bytes.Repeat([]byte{0xc0, 12}, 1000)...)}
		}},
		say: [][3]string{{"N010", "fail", "db.example: "}},
	},
}

// varlink answers on a socket as systemd-resolved does, with one address.
func varlink(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = bufio.NewReader(conn).ReadBytes(0)
			_, _ = conn.Write([]byte(`{"parameters":{"addresses":[{"ifindex":2,"family":2,"address":[10,1,2,3]}],"name":"db.example","flags":1}}` + "\x00"))
			conn.Close()
		}
	}()
}

// Each situation on a machine that is in it, with real sockets.
func TestNamesTellsTheSituation(t *testing.T) {
	for _, s := range situations {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t)
			for addr, answer := range s.servers {
				nameserver(t, o.far, addr, answer)
			}
			if s.drop != nil {
				o.drop(s.drop...)
			}
			if s.setup != nil {
				s.setup(o)
			}
			began := time.Now()
			d, code := o.names(s.asked...)
			took := time.Since(began)
			if code != s.code {
				t.Errorf("exit code %d, want %d: %+v", code, s.code, d.Meaning)
			}
			for _, say := range s.say {
				if !d.says(say[0], say[1], say[2]) {
					t.Errorf("%v is not said: %+v", say, d.Meaning)
				}
			}
			for _, code := range s.silent {
				if slices.Contains(d.codes(), code) {
					t.Errorf("%s is said: %+v", code, d.Meaning)
				}
			}
			for _, a := range s.answers {
				if got := d.answer(a[0], a[1]); got != a[2] {
					t.Errorf("%s for %s: %s, want %s", a[0], a[1], got, a[2])
				}
			}
			if took > 30*time.Second { // 3 s, and a machine that has other things to do
				t.Errorf("took %v", took)
			}
		})
	}
}

// lifeline check tells the same of nameservers without a name, and sends nothing
// when it must not.
func TestCheckAsksNameservers(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	var asked atomic.Int64
	nameserver(t, o.far, alive, func(q question) reply {
		if asked.Add(1); q.edns {
			return code(formatError)
		}
		return everything(q)
	})
	check := func(args ...string) (d looked) {
		stdout, stderr, code, _ := o.lifeline(append([]string{"check", "--json", "--only", "names", "--for", "100ms"}, args...)...)
		if err := json.Unmarshal(bytes.Replace([]byte(stdout), []byte(`"findings"`), []byte(`"meaning"`), 1), &d); err != nil {
			t.Fatalf("%v: exit code %d\n%s%s", err, code, stdout, stderr)
		}
		return d
	}
	if d := check("--no-probe"); asked.Load() != 0 || len(d.Meaning) != 0 {
		t.Errorf("with --no-probe %d questions: %+v", asked.Load(), d.Meaning)
	}
	d := check()
	if n := asked.Load(); n != 4 || !d.says("N003", "fail", "answers FORMERR to questions with EDNS") {
		t.Errorf("%d questions: %+v", n, d.Meaning)
	}
	o.drop("udp dport 53")
	o.path = filepath.Dir(goProgram(t, "0"))
	if d := check(); !d.says("N005", "fail", "cannot resolve names: ") || !d.says("N001", "fail", "the only nameserver, 10.77.4.53, does not answer") || !d.says("N004", "warn", "answers over TCP and not over UDP") {
		t.Errorf("%+v", d.Meaning)
	}
}

// Programs that fail on the machine are told, those that ask the operating system
// are not.
func TestBinariesThatFailHere(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.nss, o.libraries = "hosts: files lab dns\n", nssModule(t)
	static, system := goProgram(t, "0"), goProgram(t, "1", "-tags=netcgo")
	args := []string{"names", "--binaries", "--json", static, system}
	see := func() (d binaries, code int) {
		stdout, stderr, code, _ := o.lifeline(args...)
		if err := json.Unmarshal([]byte(stdout), &d); err != nil || len(d.Binaries) != 2 {
			t.Fatalf("%v: %s%s", err, stdout, stderr)
		}
		return d, code
	}
	nameserver(t, o.far, alive, everything)
	d, code := see()
	for _, b := range d.Binaries {
		if code != exitWell || b.Fails == nil || *b.Fails {
			t.Errorf("exit code %d: %+v", code, b)
		}
	}
	o.drop("udp dport 53", "tcp dport 53")
	d, code = see()
	first, second := d.Binaries[0], d.Binaries[1] // what fails is first
	if code != exitFindings || first.Path != static || first.Resolver != "go" || first.Fails == nil || !*first.Fails || first.Why == nil ||
		second.Resolver != "system" || second.Fails != nil { // lab may know the name, or not
		t.Errorf("exit code %d: %+v", code, d.Binaries)
	}
}

// A process that waits for a nameserver that does not answer is seen to, with
// the goroutine that asked, in the mount and network namespaces of its own.
func TestNamesOfAProcess(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.drop("udp dport 53")
	need.Program(t, "gcc")
	path := goProgram(t, "0", "-ldflags=-s -w")
	resolv := filepath.Join(o.dir, "resolv.conf")
	if err := os.WriteFile(resolv, []byte(o.resolv), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := o.box.Command("unshare", "--mount", "sh", "-c", `mount --bind "$1" /etc/resolv.conf && exec "$2" db.example`, "sh", resolv, path)
	if err := cmd.Start(); err != nil { // nsenter, unshare and sh each become the next
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	var d struct {
		Process string
		Asking  []struct {
			Server     string
			Protocol   string
			Configured bool
			Unanswered bool
			Since      float64 `json:"since_seconds"`
			Looked     bool    `json:"since_is_look"`
		}
		Goroutines []struct {
			For   string                    `json:"waits_for"`
			Since float64                   `json:"since_seconds"`
			Asked struct{ Function string } `json:"asked_by"`
		}
	}
	for begin := time.Now(); time.Since(begin) < 30*time.Second; {
		document(t, &d, "names", "--pid", strconv.Itoa(cmd.Process.Pid), "--for", "500ms")
		looked := 0 // those that were there all the time
		for _, a := range d.Asking {
			if a.Looked {
				looked++
			}
		}
		if looked == 2 && len(d.Goroutines) > 0 {
			break
		}
	}
	if d.Process != "asks" || len(d.Asking) != 2 || len(d.Goroutines) == 0 { // A and AAAA
		t.Fatalf("%+v", d)
	}
	for _, a := range d.Asking {
		if a.Server != "10.77.4.53:53" || a.Protocol != "udp" || !a.Configured || !a.Unanswered || !a.Looked || a.Since < 0.4 || a.Since > 10 {
			t.Errorf("%+v", a)
		}
	}
	if g := d.Goroutines[0]; g.For != "a name to be resolved" || g.Asked.Function != "main.main" || g.Since < 0.3 {
		t.Errorf("%+v", g)
	}
	stdout, stderr, code := lifeline(t, "names", "--pid", strconv.Itoa(cmd.Process.Pid), "--for", "300ms")
	if code != exitWell || !strings.Contains(stdout, "10.77.4.53:53") || !strings.Contains(stdout, "nameserver 10.77.4.53: by eth0, on the link") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	t.Log(stdout)
	if stdout, stderr, code := nobody(t, "names", "--pid", strconv.Itoa(cmd.Process.Pid), "--for", "100ms"); code != exitBlind || !strings.Contains(stderr, "CAP_SYS_PTRACE") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
}
