package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/internal/need"
)

// question is what a nameserver of these tests is asked.
type question struct {
	name string // without its final dot, in lower case
	aaaa bool
	edns bool
	tcp  bool
}

// reply is what it says; the zero reply is nothing.
type reply struct {
	code      byte
	addresses []string
	truncated bool
	raw       []byte // instead of all else, after the id
	ok        bool
}

func addresses(list ...string) reply { return reply{addresses: list, ok: true} }
func code(code byte) reply           { return reply{code: code, ok: true} }

const (
	formatError = 1
	serverFails = 2
	noSuchName  = 3
)

// message answers a question in the wire format, RFC 1035 section 4.1.
func message(asked []byte, tcp bool, answer func(question) reply) []byte {
	if len(asked) < 12 {
		return nil
	}
	q := question{edns: binary.BigEndian.Uint16(asked[10:]) > 0, tcp: tcp}
	at := 12
	for at < len(asked) && asked[at] != 0 {
		end := min(at+1+int(asked[at]), len(asked))
		q.name += "." + strings.ToLower(string(asked[at+1:end]))
		at = end
	}
	if at += 5; at > len(asked) {
		return nil
	}
	q.name, q.aaaa = strings.TrimPrefix(q.name, "."), binary.BigEndian.Uint16(asked[at-4:]) == 28
	r := answer(q)
	switch {
	case r.raw != nil:
		return append(slices.Clone(asked[:2]), r.raw...)
	case !r.ok:
		return nil
	}
	m := slices.Clone(asked[:at])
	flags := 0x8180 | uint16(r.code)
	if r.truncated {
		flags |= 0x0200
	}
	binary.BigEndian.PutUint16(m[2:], flags)
	binary.BigEndian.PutUint16(m[10:], 0)
	count := 0
	for _, text := range r.addresses {
		addr := netip.MustParseAddr(text)
		if addr.Is6() != q.aaaa {
			continue
		}
		count++
		m = append(m, 0xc0, 12, 0, map[bool]byte{false: 1, true: 28}[q.aaaa], 0, 1, 0, 0, 0, 60, 0, byte(len(addr.AsSlice())))
		m = append(m, addr.AsSlice()...)
	}
	binary.BigEndian.PutUint16(m[6:], uint16(count))
	return m
}

// nameserver answers on port 53 of an address of a host, over UDP and TCP.
func nameserver(t *testing.T, h *lab.Host, addr string, answer func(question) reply) {
	t.Helper()
	var udp net.PacketConn
	if err := h.Do(func() (err error) {
		udp, err = net.ListenPacket("udp", net.JoinHostPort(addr, "53"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { udp.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			if m := message(buf[:n], false, answer); m != nil {
				_, _ = udp.WriteTo(m, from)
			}
		}
	}()
	l := h.Listen("tcp", net.JoinHostPort(addr, "53"))
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go overTCP(conn, answer)
		}
	}()
}

func overTCP(conn net.Conn, answer func(question) reply) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return
	}
	asked := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, asked); err != nil {
		return
	}
	if m := message(asked, true, answer); m != nil {
		_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...))
	} else {
		_, _ = conn.Read(length[:]) // until the client has had enough
	}
}

// office is a machine with nameservers on the other end of its wire, 10.77.4.53
// and 10.77.4.54, and fd77:4::53.
type office struct {
	t         *testing.T
	box, far  *lab.Host
	dir       string
	resolv    string
	nss       string
	user      string
	libraries string // LD_LIBRARY_PATH
	path      string // put before PATH
	script    string // run in the mount namespace, before the command
}

func newOffice(t *testing.T) *office {
	t.Helper()
	for _, program := range []string{"unshare", "mount", "nft", "setpriv"} {
		need.Program(t, program)
	}
	l := lab.New(t)
	o := &office{t: t, box: l.Host("box"), far: l.Host("far"), dir: t.TempDir(), resolv: "nameserver 10.77.4.53\n", nss: "hosts: files dns\n"}
	l.Wire(o.box, "10.77.4.2/24", o.far, "10.77.4.53/24")
	o.far.Run("ip", "addr", "add", "10.77.4.54/24", "dev", "eth0")
	o.far.Run("ip", "addr", "add", "fd77:4::53/64", "dev", "eth0", "nodad")
	for d := o.dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if program := filepath.Join(o.dir, "lifeline"); os.Link(os.Args[0], program) != nil { // by this name the test binary is the command
		copyFile(t, os.Args[0], program)
	}
	if err := os.Mkdir(o.programs(), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"setpriv", "getent"} {
		copyFile(t, need.Program(t, program), filepath.Join(o.programs(), program))
	}
	return o
}

// programs is the folder of all programs that the machine has: the command looks
// at each, which takes long where there are many.
func (o *office) programs() string { return filepath.Join(o.dir, "programs") }

// lifeline runs the command on the machine, with files of its own in place of
// /etc/resolv.conf, /etc/nsswitch.conf and /etc/hosts.
func (o *office) lifeline(args ...string) (stdout, stderr string, code int, took time.Duration) {
	o.t.Helper()
	cmd := o.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		o.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode(), time.Since(began)
}

// command is the same, not begun.
func (o *office) command(args ...string) *exec.Cmd {
	o.t.Helper()
	script := "set -e\n"
	for name, text := range map[string]string{"resolv.conf": o.resolv, "nsswitch.conf": o.nss, "hosts": "127.0.0.1 localhost\n10.77.4.9 printer\n"} {
		path := filepath.Join(o.dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			o.t.Fatal(err)
		}
		script += fmt.Sprintf("mount --bind %s /etc/%s\n", path, name)
	}
	script += o.script
	script += "for folder in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin; do mount --bind " + o.programs() + " $folder; done\n"
	command := "exec"
	if o.user != "" {
		command = fmt.Sprintf("exec setpriv --reuid=%s --regid=%s --clear-groups --inh-caps=-all --", o.user, o.user)
	}
	script += command + ` "$@"` + "\n"
	cmd := o.box.Command("unshare", append([]string{"--mount", "sh", "-c", script, "sh", filepath.Join(o.dir, "lifeline")}, args...)...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "PATH="+o.path+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	if o.libraries != "" {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+o.libraries)
	}
	return cmd
}

// drop drops what the nameservers' machine is sent, by matches of nft.
func (o *office) drop(matches ...string) {
	o.t.Helper()
	rules := "table inet vpn {\nchain in {\ntype filter hook input priority 0\n"
	for _, m := range matches {
		rules += m + " drop\n"
	}
	o.far.Nft(rules + "}\n}\n")
}

// looked is what lifeline names NAME --json says.
type looked struct {
	Ways []struct {
		Name, Way, Family, Answer string
		OK                        bool
		Addresses                 []string
		MS                        float64
		Error                     *string
	}
	Nameservers []struct{ Address, Interface string }
	Meaning     []meaning
	Blind       []struct{ Source, Error string }
}

func (o *office) names(args ...string) (d looked, code int) {
	o.t.Helper()
	stdout, stderr, code, _ := o.lifeline(append(append([]string{"names"}, args...), "--json")...)
	if err := json.Unmarshal([]byte(stdout), &d); err != nil {
		o.t.Fatalf("%v: exit code %d\n%s%s", err, code, stdout, stderr)
	}
	return d, code
}

// answer returns what a way said to a question for a family.
func (d *looked) answer(way, family string) string {
	for _, w := range d.Ways {
		if w.Way == way && w.Family == family {
			if w.OK { // their order is a matter of getaddrinfo and of the machine
				slices.Sort(w.Addresses)
				return strings.Join(w.Addresses, ",")
			}
			return w.Answer
		}
	}
	return "(no such way)"
}

// says reports a finding whose title has the words.
func (d *looked) says(code, severity, words string) bool {
	return slices.ContainsFunc(d.Meaning, func(m meaning) bool {
		return m.Code == code && m.Severity == severity && strings.Contains(m.Title, words)
	})
}

func (d *looked) codes() (list []string) {
	for _, m := range d.Meaning {
		list = append(list, m.Code)
	}
	return list
}

// known is a nameserver that knows one name, and this one's addresses.
func known(name string, list ...string) func(question) reply {
	return func(q question) reply {
		if q.name == name {
			return addresses(list...)
		}
		return code(noSuchName)
	}
}

// nssModule makes a source of nsswitch.conf, lab, that knows names ending with
// .lab, and sleeps for ten seconds for those that begin with slow.
func nssModule(t *testing.T) (dir string) {
	t.Helper()
	gcc := need.Program(t, "gcc")
	dir = t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const text = `#include <errno.h>
#include <netdb.h>
#include <nss.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum nss_status _nss_lab_gethostbyname2_r(const char *name, int af, struct hostent *h, char *buf, size_t size, int *err, int *herr)
{
	size_t n = strlen(name);
	if (!strncmp(name, "slow", 4))
		sleep(10);
	if (af != AF_INET || n < 4 || strcmp(name + n - 4, ".lab")) {
		*err = ENOENT;
		*herr = HOST_NOT_FOUND;
		return NSS_STATUS_NOTFOUND;
	}
	char **list = (char **)(((unsigned long)buf + 7) & ~7ul);
	char *addr = (char *)(list + 3), *copy = addr + 4;
	if (copy + n + 1 > buf + size) {
		*err = ERANGE;
		*herr = NETDB_INTERNAL;
		return NSS_STATUS_TRYAGAIN;
	}
	memcpy(addr, "\x0a\x01\x02\x03", 4);
	memcpy(copy, name, n + 1);
	list[0] = addr;
	list[1] = list[2] = 0;
	h->h_name = copy;
	h->h_aliases = list + 2;
	h->h_addrtype = AF_INET;
	h->h_length = 4;
	h->h_addr_list = list;
	return NSS_STATUS_SUCCESS;
}
`
	if err := os.WriteFile(filepath.Join(dir, "lab.c"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(gcc, "-shared", "-fPIC", "-o", "libnss_lab.so.2", "lab.c")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// The story: UDP to the nameserver is dropped, and the operating system knows the
// name by a source that Go does not ask.
func TestNamesTellsTheStory(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	nameserver(t, o.far, "10.77.4.53", known("api.lab", "10.1.2.3"))
	o.drop("udp dport 53", "tcp dport { 53, 853 }")
	o.nss, o.libraries, o.user = "hosts: files lab dns\n", nssModule(t), "65534" // not root
	d, code := o.names("api.lab")
	if code != exitFindings || !d.says("N006", "fail", "api.lab: the operating system answers, UDP/53 to 10.77.4.53 is dropped on eth0: ") {
		t.Errorf("exit code %d: %+v", code, d)
	}
	for _, m := range d.Meaning {
		if m.Code == "N006" && !slices.ContainsFunc(m.Fix, func(f string) bool { return strings.HasPrefix(f, "lifeline run -- ") }) {
			t.Errorf("%q", m.Fix)
		}
	}
	if d.Nameservers[0].Interface != "eth0" || d.answer("nameserver 10.77.4.53 udp", "A") != "silent" || d.answer("go", "both") != "silent" {
		t.Errorf("%+v", d)
	}
	stdout, stderr, code, took := o.lifeline("names", "api.lab")
	if code != exitFindings || took > 30*time.Second || !strings.Contains(stdout, "nameserver 10.77.4.53: by eth0, on the link\n") || !strings.Contains(stdout, "fail N006 api.lab: the operating system answers") {
		t.Errorf("exit code %d after %v:\n%s%s", code, took, stdout, stderr)
	}
	t.Logf("after %v:\n%s", took, stdout)
}
