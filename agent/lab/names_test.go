//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/need"
	"github.com/lifeline-go/lifeline/names"
	"github.com/lifeline-go/lifeline/names/getaddrinfo"
)

// asksNames makes this test binary a program that looks names up, on a machine
// of a lab, as long as its value says: lines with a network and a name are its
// input, outcomes its output.
const asksNames = "LIFELINE_TEST_NAMES"

var muslLoader = map[string]string{"amd64": "/lib/ld-musl-x86_64.so.1", "arm64": "/lib/ld-musl-aarch64.so.1"}[runtime.GOARCH]

// outcomes of questions by the way that was asked, and the question.
type outcomes map[string]map[string]string

// lookNamesUp is that program.
func lookNamesUp() {
	patient, err := time.ParseDuration(os.Getenv(asksNames))
	if err != nil {
		panic(err)
	}
	glibc, musl := new(getaddrinfo.Way), &getaddrinfo.Way{Loader: muslLoader}
	ways := map[string]func(context.Context, string, string) ([]netip.Addr, error){
		"getaddrinfo, glibc": glibc.Lookup,
		"getaddrinfo, musl":  musl.Lookup,
		"names, glibc":       (&names.Resolver{System: []names.Way{glibc}, Timeout: patient}).LookupNetIP,
		"names, musl":        (&names.Resolver{System: []names.Way{musl}, Timeout: patient}).LookupNetIP,
		"names, nothing":     (&names.Resolver{Timeout: patient}).LookupNetIP,
	}
	names.Register(nothing{}) // importing getaddrinfo has registered it
	result := make(outcomes)
	for way := range ways {
		result[way] = make(map[string]string)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		question := lines.Text()
		network, name, _ := strings.Cut(question, " ")
		for way, lookup := range ways {
			slots <- struct{}{}
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patient)
				defer cancel()
				got := outcome(lookup(ctx, network, name))
				mu.Lock()
				result[way][question] = got
				mu.Unlock()
				<-slots
			})
		}
	}
	wg.Wait()
	if err = errors.Join(json.NewEncoder(os.Stdout).Encode(result), glibc.Close(), musl.Close()); err != nil {
		panic(err)
	}
}

// nothing takes the place of the way through getaddrinfo.
type nothing struct{}

func (nothing) Name() string { return "getaddrinfo" }
func (nothing) Lookup(context.Context, string, string) ([]netip.Addr, error) {
	return nil, getaddrinfo.ErrUnavailable
}

// What a lookup comes to, beside addresses.
const (
	no     = "no"      // it is known that there are none
	failed = "failure" // it is not known
)

func outcome(addrs []netip.Addr, err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return no
	case err != nil:
		return failed
	}
	var texts []string
	for _, addr := range addrs {
		texts = append(texts, addr.WithZone("").String())
	}
	slices.Sort(texts)
	return strings.Join(slices.Compact(texts), " ")
}

// compile makes the reference: a program in C, of the C library of the compiler.
func compile(t *testing.T, compiler string) string {
	t.Helper()
	need.Program(t, compiler)
	program := filepath.Join(t.TempDir(), compiler+".out")
	if out, err := exec.Command(compiler, "-O1", "-Wall", "-o", program, "testdata/getaddrinfo.c").CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", compiler, err, out)
	}
	return program
}

// reference returns what the reference gets; where that is slow, of all questions
// at once.
func (e *Etc) reference(t *testing.T, program string, questions []string, slow bool) map[string]string {
	t.Helper()
	cmd := e.Command(program)
	if slow {
		cmd = e.Command(program, "at once")
	}
	var lines strings.Builder
	for _, question := range questions {
		network, name, _ := strings.Cut(question, " ")
		fmt.Fprintf(&lines, "%s%s\n", cmp.Or(strings.TrimPrefix(network, "ip"), "0"), name)
	}
	cmd.Stdin = strings.NewReader(lines.String())
	out, err := cmd.Output()
	got := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		question, said, _ := strings.Cut(line, "\t")
		question = strings.TrimSuffix("ip"+question[:1], "0") + " " + question[1:]
		switch words := strings.Fields(said); words[0] {
		case "0":
			var addrs []netip.Addr
			for _, word := range words[1:] {
				addrs = append(addrs, netip.MustParseAddr(word))
			}
			got[question] = outcome(addrs, nil)
		case "-2", "-5", "-9": // EAI_NONAME, EAI_NODATA, EAI_ADDRFAMILY
			got[question] = no
		default:
			got[question] = failed
		}
	}
	if err != nil || len(got) != len(questions) {
		t.Fatalf("%s: %v: %d answers to %d questions", program, err, len(got), len(questions))
	}
	return got
}

// TestNamesAgree asks by getaddrinfo and by package names what C programs ask
// getaddrinfo, in the same environments, through glibc and through musl.
// Addresses must be the same, order apart; docs/names.md says where they are not.
func TestNamesAgree(t *testing.T) {
	t.Parallel()
	for _, program := range slices.Concat(EtcPrograms, ModulePrograms) {
		need.Program(t, program)
	}
	host, _ := two(t) // addresses of both families, or getent finds nothing
	_, err := os.Stat(muslLoader)
	need.Feature(t, "the C library musl", err)
	nameserver.serve(t, host, "127.0.0.1:53")
	nameserver.serve(t, host, "[::1]:53")
	references := map[string]string{"glibc": compile(t, "gcc"), "musl": compile(t, "musl-gcc")}
	cases, differ := 0, &differences{}
	t.Run("in", func(t *testing.T) {
		for name, env := range environments() {
			etc := host.Etc(map[string]string{
				"resolv.conf":   cmp.Or(env.resolv, "nameserver 127.0.0.1\n"),
				"nsswitch.conf": cmp.Or(env.nsswitch, "hosts: files dns\n"),
				"hosts":         env.hosts,
			})
			if env.module != "" {
				etc.Module(env.module)
			}
			cases += len(env.questions())
			t.Run(name, func(t *testing.T) {
				if env.slow {
					t.Parallel()
				}
				env.compare(t, etc, references, differ)
			})
		}
	})
	t.Logf("%d cases through each C library, each in five ways; differences that docs/names.md explains: %v", cases, differ.seen)
	if cases < 300 {
		t.Errorf("only %d cases", cases)
	}
}

// An environment is a machine, and the names that are asked there.
type environment struct {
	resolv, nsswitch, hosts string
	module                  string // the table of the NSS module
	names                   string
	slow                    bool // answers take as long as the patience of the C library
}

func (env environment) questions() (all []string) {
	for _, name := range strings.Fields(env.names) {
		for _, network := range []string{"ip", "ip4", "ip6"} {
			all = append(all, network+" "+name)
		}
	}
	return all
}

// compare asks up to three times: on a busy machine the C library gives up on a
// nameserver that answers late, and no two do so at the same moment.
func (env environment) compare(t *testing.T, etc *Etc, references map[string]string, differ *differences) {
	var wrong []string
	for range 3 {
		if wrong = env.differences(t, etc, references, differ); len(wrong) == 0 {
			return
		}
	}
	for _, text := range wrong {
		t.Error(text)
	}
}

func (env environment) differences(t *testing.T, etc *Etc, references map[string]string, differ *differences) (wrong []string) {
	questions := env.questions()
	wants := make(map[string]map[string]string)
	for libc, program := range references {
		wants[libc] = etc.reference(t, program, questions, env.slow)
	}
	for way, got := range etc.lookUp(t, questions, env.slow) {
		want := wants["glibc"]
		if strings.HasSuffix(way, "musl") {
			want = wants["musl"]
		}
		for _, question := range questions {
			g, w := got[question], want[question]
			if g != w && !differ.explain(way, question, g, w, wants["glibc"][question]) {
				wrong = append(wrong, fmt.Sprintf("%s: %s: %s, want %s", way, question, g, w))
			}
		}
	}
	return wrong
}

// differences are those that docs/names.md explains, counted.
type differences struct {
	mu   sync.Mutex
	seen map[string]int
}

// explain reports whether a difference is explained. With the way through
// getaddrinfo alone there must be none.
func (d *differences) explain(way, question, got, want, glibc string) bool {
	network, name, _ := strings.Cut(question, " ")
	none := func(outcome string) bool { return outcome == no || outcome == failed }
	local := strings.TrimSuffix(name, ".")
	why := ""
	switch {
	case strings.HasPrefix(way, "getaddrinfo"):
	case none(got) && none(want):
		why = "no or failure"
	case strings.Contains(want, "::ffff:") || strings.HasPrefix(name, "::ffff:"):
		why = "IPv4 in IPv6"
	case strings.Contains(name, "%"), strings.HasPrefix(name, "fe80:"):
		why = "zones"
	case want == no && inHosts(got):
		why = "the hosts file"
	case way == "names, musl" && got == glibc:
		why = "what musl does not know"
	case network == "ip" && !none(got) && strings.Contains(" "+want+" ", " "+got+" "):
		why = "the other family is late"
	case want == failed:
		why = "nameservers after a failure"
	case way != "names, nothing":
	case local == "localhost" || strings.HasSuffix(local, ".localhost") || local == "localhost.localdomain":
		why = "localhost"
	case strings.IndexFunc(name, func(r rune) bool { return r > 127 }) >= 0:
		why = "IDN"
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen == nil {
		d.seen = make(map[string]int)
	}
	if why != "" {
		d.seen[why]++
	}
	return why != ""
}

// inHosts reports whether all addresses are of the hosts file.
func inHosts(addrs string) bool {
	for text := range strings.FieldsSeq(addrs) {
		addr, err := netip.ParseAddr(text)
		if err != nil || !addr.IsLoopback() && !addr.IsPrivate() {
			return false
		}
	}
	return true
}

// lookUp asks in all ways of lookNamesUp.
func (e *Etc) lookUp(t *testing.T, questions []string, slow bool) outcomes {
	t.Helper()
	patience := "20s" // this is not about time
	if slow {
		patience = "8s" // more than the C library has
	}
	cmd := e.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asksNames+"="+patience)
	cmd.Stdin = strings.NewReader(strings.Join(questions, "\n"))
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	var got outcomes
	if err := errors.Join(err, json.Unmarshal(out, &got)); err != nil {
		t.Fatalf("%v: %s", err, complaints.Bytes())
	}
	return got
}
