package lifeline_test

import (
	"go/ast"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// A kind of package says what its code may do beside importing.
type kind int

const (
	pure    kind = iota // no I/O, no clock, nothing of the standard library beyond pureImports
	library             // does not log or print, reads no flags and no environment
	support             // for tests: may skip, print and exit
	command             // anything
)

// A layer is one package: what it may import beside the standard library, and
// why it is here. Its tests may also import testImports.
type layer struct {
	folder  string
	kind    kind
	imports []string // folders of this repository and modules of others; * stands for one part of a path
	why     string
}

const (
	xsys    = "golang.org/x/sys"
	xcrypto = "golang.org/x/crypto"
	xnet    = "golang.org/x/net"
	netlink = "github.com/mdlayher/netlink"
	ebpf    = "github.com/cilium/ebpf"
	prom    = "github.com/prometheus/client_golang"
	yaml    = "go.yaml.in/yaml/v3"
	xansi   = "github.com/charmbracelet/x/ansi"
	godbus  = "github.com/godbus/dbus/v5"
)

// layers is the architecture: source → fact → verdict → show. A package that
// is not in it does not exist; docs/architecture.md tells the same in prose.
var layers = []layer{
	{".", library, []string{"bound", "internal/sockopt", "internal/tcpinfo", "ledger", "names"}, "the front door of the library"},
	{"ledger", library, []string{"bound", "internal/callers", "internal/tcpinfo"}, "what is open in this process, and scopes that close it"},
	{"ledger/ledgerhttp", library, []string{"ledger"}, "serves the ledger; apart, so that nobody gets net/http for nothing"},
	{"lifelinetest", support, []string{".", "ledger"}, "for users' tests: nothing is left open, and a network with faults; of the front door only its tests know"},
	{"internal/callers", library, nil, "call stacks told apart by frame pointers, in a tenth of the time of runtime.Callers"},
	{"bound", pure, nil, "arithmetic that anybody may embed: the standard library and nothing else"},
	{"ssh", library, []string{".", "bound", "internal/knownhosts", xcrypto, xsys}, "an SSH client whose every call returns"},
	{"ssh/sshconf", library, []string{".", "ssh", "internal/knownhosts", xcrypto}, "connects to a name as OpenSSH would"},
	{"ssh/sftp", library, []string{"ssh", xcrypto}, "copies files over it; of the keys of x/crypto only tests know"},
	{"internal/knownhosts", library, []string{xcrypto, xsys}, "reads and writes known_hosts as OpenSSH does"},
	{"names", library, []string{"internal/dnsclient", "internal/dnsconf", xnet}, "a resolver that answers as the operating system would, within a bound"},
	{"names/getaddrinfo", library, []string{"names", xsys}, "a way through the C library, imported for its effect: it carries a program"},
	{"names/getaddrinfo/asker", command, []string{"github.com/ebitengine/purego"}, "that program; a module of its own, so that users of the library do not depend on purego"},
	{"internal/dnsclient", library, []string{xnet}, "one question to one nameserver, by one transport"},
	{"internal/dnsconf", pure, nil, "resolv.conf, nsswitch.conf and hosts as resolvers read them: one parser for the library and the program"},
	{"internal/sockopt", library, []string{xsys}, "options of TCP sockets that package net has no method for"},
	{"internal/tcpinfo", library, []string{xsys}, "how the peer of a TCP connection answers"},
	{"internal/leakcheck", support, []string{"lifelinetest"}, "fails a test binary that leaves something open"},
	{"internal/need", support, nil, "the only place that skips a test"},
	{"internal/opensshd", support, []string{"internal/need", xcrypto}, "a real OpenSSH server for the tests of package ssh and below"},

	{"agent/fact", pure, []string{"bound"}, "what was seen: plain values"},
	{"agent/profile", pure, nil, "which capabilities are needed for what: a table, and who has what profile"},
	{"agent/sbom", library, nil, "of what a program is made, as the Go toolchain records it"},
	{"agent/verdict", pure, []string{"agent/fact", "bound"}, "what it means: rules that text scenarios can reach"},
	{"agent/state", pure, []string{"agent/fact", "agent/profile", "agent/verdict", "bound"}, "what the agent knows at one moment: page, terminal, metrics, history and API are made from it"},
	{"agent/policy", pure, []string{"agent/verdict", yaml}, "what the agent was told: one small file, read with line numbers"},
	{"agent/export", library, []string{".", "agent/fact", "agent/state", "agent/verdict", prom}, "tells other systems: metrics and alerts, bounded both"},
	{"agent/otlp", library, []string{"agent/export", "agent/state", "agent/verdict", prom, "github.com/prometheus/client_model", "go.opentelemetry.io/proto/slim/otlp", "google.golang.org/protobuf"}, "tells receivers of OpenTelemetry: metrics and findings, bounded; of the export only its tests know"},
	{"agent/deploy", library, []string{"agent/export", "agent/policy", "agent/profile", "agent/state", yaml}, "board, alert rules, unit and packages, held to what there is; of all this only its tests know"},
	{"agent/history", library, []string{"agent/state", "agent/verdict", "modernc.org/sqlite", xsys}, "what was seen in the last days, in one file; of verdicts only tests know"},
	{"agent/audit", library, []string{"agent/state", xsys}, "what the agent did, on the disk before it does it"},
	{"agent/census", pure, []string{"agent/fact", "bound"}, "how many there are: counting over facts, no source needed"},
	{"agent/nodeset", pure, nil, "names of hosts in short: web[01-32]"},
	{"agent/fleet", library, []string{".", "agent/fact", "bound", "ssh", "ssh/sftp", xcrypto}, "commands and copies on many hosts: one answer for each, always"},

	{"agent/source/capability", library, []string{xsys}, "which rights this thread has"},
	{"agent/source/netns", library, []string{"agent/fact", "agent/source/capability", "agent/source/procfs/bounded", "bound", xsys}, "network namespaces and their settings"},
	{"agent/source/sockdiag", library, []string{"agent/fact", xsys}, "sockets, over netlink"},
	{"agent/source/bpf", library, []string{"agent/fact", "agent/source/capability", "bound", ebpf, xsys}, "who owns a socket and its options, by a BPF iterator"},
	{"agent/source/owners", library, []string{"agent/fact", "agent/source/capability", xsys}, "who owns a socket, by a walk of /proc"},
	{"agent/source/pidfd", library, []string{"agent/fact", "bound", xsys}, "the options of a socket, by a copy of its descriptor"},
	{"agent/source/procfs", library, []string{"agent/fact", "agent/source/capability", "agent/source/procfs/bounded", xsys}, "processes"},
	{"agent/source/procfs/bounded", library, nil, "calls that may never return, with a way out"},
	{"agent/source/gobin", library, []string{"agent/fact", "agent/source/procfs/bounded", xsys}, "what an executable says of itself"},
	{"agent/source/gosym", library, []string{"agent/fact", "agent/source/gobin"}, "symbols and layouts of Go programs, from the executable alone"},
	{"agent/source/code", library, []string{"agent/fact", "agent/source/gobin", "agent/source/gosym", xsys}, "program counters of any process as calls"},
	{"agent/source/opener", library, []string{"agent/fact", "agent/source/capability", "agent/source/gosym", ebpf, xsys}, "who opened each socket, by BPF in the cgroup hooks of connect"},
	{"agent/source/goroutines", library, []string{"agent/fact", "agent/source/capability", "agent/source/gosym", xsys}, "goroutines of running Go programs, read from outside"},
	{"agent/source/conntrack", library, []string{"agent/fact", netlink, xsys}, "connection tracking"},
	{"agent/source/tcpevent", library, []string{"agent/fact", "agent/source/capability", ebpf, xsys}, "retransmissions, keepalive probes and resets as they happen, by BPF tracepoints"},
	{"agent/source/route", library, []string{netlink, xsys}, "which way a packet would go, and which addresses are local"},
	{"agent/source/dnsconf", library, []string{"agent/fact", "agent/source/procfs/bounded", "agent/source/route", "internal/dnsclient", "internal/dnsconf", xnet, xsys}, "how names are resolved"},

	{"agent/source/nameways", library, []string{"agent/fact", "agent/source/route", "internal/dnsclient", "names", xnet, xsys}, "asks for a name in every way there is"},

	{"agent/node", library, []string{"agent/fact", "agent/verdict", "agent/act", "bound", "agent/source/*", xsys}, "joins the sources into one look, and watches peers: what looking leaves open, a poke settles"},
	{"agent/daemon", library, []string{"agent/fact", "agent/profile", "agent/verdict", "agent/state", "agent/policy", "agent/census", "agent/node", "bound", xsys}, "the agent's loop: asks every source at its own pace, and publishes states"},
	{"agent/guard", library, []string{"agent/act", "agent/act/evac", "agent/act/tune", "agent/audit", "agent/census", "agent/fact", "agent/node", "agent/policy", "agent/source/*", "agent/state", "agent/verdict", "bound", xsys}, "does what the policy allows, by findings and notices: the only one that acts without a person"},
	{"agent/notice", library, []string{".", "agent/lab/logind", "agent/state", godbus, xsys}, "tells that this machine is about to go: systemd's word, or a program's; of the lab only its tests know"},
	{"agent/web", library, []string{"agent/history", "agent/state", "agent/verdict", "bound"}, "the agent's API, stream and page; of the history only its tests know"},
	{"agent/web/chromium", support, []string{"internal/need"}, "a real browser for the tests of the page"},
	{"agent/top", pure, []string{"agent/fact", "agent/state", "agent/verdict", "bound", xansi}, "the screen of lifeline top: states and keys in, lines out"},
	{"agent/top/tty", library, []string{"agent/lab/pty", "agent/state", "agent/top", "charm.land/bubbletea/v2", xsys}, "draws it on a terminal, and gives the terminal back; of the lab only its tests know"},
	{"agent/client", library, []string{"agent/state", "agent/web"}, "asks an agent by its API, and follows its stream; of the page only its tests know"},
	{"agent/act", library, []string{"agent/fact", "agent/census", "agent/source/*", "bound", xsys}, "what to do: cut and poke; each touches only what was selected"},
	{"agent/show", library, []string{"agent/fact", "agent/profile", "agent/state", "agent/verdict", "agent/census", "agent/nodeset", "bound"}, "text and JSON; asks no source"},

	{"agent/act/run", library, []string{"agent/act/run/*", xnet, xsys}, "starts a program whose names resolve as the operating system's do, and outlives what it leaves behind; of DNS messages only tests know"},
	{"agent/act/run/launch", library, []string{"agent/act/run/notify", "agent/act/run/signals", "agent/source/capability", xsys}, "starts the keeper, and the program, before what else there is is initialised: nothing of package net"},
	{"agent/act/run/signals", library, []string{xsys}, "signals that are for a program, in the processes beside it"},
	{"agent/act/run/notify", library, []string{xsys}, "decides on system calls of others: seccomp user notification"},
	{"agent/act/run/redirect", library, []string{"agent/act/run/notify", "agent/act/run/stub", "agent/fact", "internal/dnsconf", xsys}, "leads DNS questions of running programs to the stub"},
	{"agent/act/run/stub", library, []string{xnet, xsys}, "a nameserver on loopback for one program"},
	{"agent/act/run/proxy", library, nil, "an HTTP proxy that resolves names, where seccomp is not to be had"},
	{"agent/act/evac", library, []string{"agent/fact", "agent/source/conntrack", "agent/source/route", netlink, xsys}, "resets the flows that a node forwards, before it goes"},
	{"agent/act/tune", library, []string{"agent/act", "agent/fact", "agent/census", "agent/source/*", "bound", ebpf, xsys}, "shortens keepalive of running programs, and gives it back"},
	{"agent/cmd/lifeline/early", command, []string{"agent/act/run/launch"}, "what lifeline run does before the rest of the command is initialised; so it imports little"},
	{"agent/cmd/lifeline", command, []string{"bound", "ssh", "ssh/sftp", "ssh/sshconf", "agent/*", "agent/act/*", "agent/act/run/*", "agent/cmd/lifeline/early", "agent/source/*", "agent/source/procfs/bounded", "agent/top/tty", "agent/lab/*", "names", "names/getaddrinfo", "github.com/spf13/cobra", "github.com/spf13/pflag", xsys}, "the command"},
	{"agent/verdict/gen", command, []string{"agent/verdict", "agent/fact"}, "writes docs/findings.md from the rules"},
	{"agent/lab", support, []string{".", "bound", "names", "names/getaddrinfo", "ssh", "internal/need", "internal/leakcheck", xcrypto, xnet, xsys}, "machines to test on: namespaces, wires, ends"},
	{"agent/lab/pty", support, []string{xsys}, "a terminal with nobody at it"},
	{"agent/lab/logind", support, []string{"internal/need", godbus}, "a shutdown that can be delayed, on a real private bus"},
	{"agent/lab/websocket", library, []string{"github.com/coder/websocket", xsys}, "the two ends of the story, as their users write them"},
	{"agent/lab/replay", library, []string{"agent/lab", "agent/lab/websocket", "agent/census", "agent/fact", "agent/node", "agent/source/sockdiag", "agent/verdict", "bound"}, "plays the story in a lab and takes the time"},
	{"agent/lab/vpn", support, []string{"agent/lab", "names"}, "plays the story of the lost names in a lab: kubectl, its plugin, a VPN that swallows port 53"},
	{"agent/lab/leaker", library, []string{"agent/lab", "agent/fact", "agent/node", "agent/verdict", "github.com/rogpeppe/go-internal"}, "plays the story of the leaked sockets, with the Docker clients that people have"},
	{"agent/lab/manager", library, []string{"agent/fact", "agent/lab", "bound", "ssh", xcrypto, xsys}, "plays the story of the blocked SSH calls in a lab, with the clients that people have"},
	{"agent/bench", command, []string{".", "bound", "ledger", "names", "names/getaddrinfo", "ssh", "ssh/sftp", "agent/*", "agent/act/*", "agent/act/run/*", "agent/source/*", xcrypto, xnet, xsys}, "measures it all beside what a user would have instead"},

	{"examples/docker", library, []string{".", "github.com/docker/docker"}, "the library with a Docker client that nobody closes"},
	{"examples/http", library, []string{"."}, "the library with net/http, client and server"},
	{"examples/postgres", library, []string{".", "github.com/jackc/pgx"}, "the library with PostgreSQL, by pgx and database/sql"},
	{"examples/redis", library, []string{".", "github.com/redis/go-redis"}, "the library with Redis"},
	{"examples/websocket", library, []string{".", "github.com/coder/websocket"}, "the library with WebSocket: heartbeat and reconnects"},
	{"examples/grpc", library, []string{".", "google.golang.org/grpc"}, "the library with gRPC"},
	{"examples/internal/stage", support, []string{".", "agent/lab", "internal/need"}, "servers on a machine that dies, for the tests of the recipes"},
}

// testImports is what tests of any package may import beside what it may
// itself.
var testImports = []string{"internal/leakcheck", "ledger", "lifelinetest", "internal/need", "internal/opensshd", "agent/lab", "agent/web/chromium", "agent/fact", "bound", "agent/source/*", xsys, "github.com/rogpeppe/go-internal", "examples/internal/stage"}

// pureImports is all of the standard library that does no I/O by itself and
// that pure packages have had a reason to use.
var pureImports = []string{
	"bytes", "cmp", "encoding/binary", "encoding/json", "errors", "fmt", "io", "iter", "maps", "math", "math/bits", "net/netip", "net/url",
	"slices", "sort", "strconv", "strings", "time", "unicode", "unicode/utf8",
}

// clock is what package time has beyond arithmetic.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}

var layerRules = []rule{
	{
		name: "each package imports what its layer may", check: importsFit,
		wrong: []sample{
			{"agent/verdict/a.go": `package verdict; import "github.com/lifeline-go/lifeline/agent/source/procfs"`},
			{"agent/source/procfs/a_darwin.go": `package procfs; import "github.com/lifeline-go/lifeline/agent/verdict"`},
			{"agent/show/a.go": `package show; import "github.com/lifeline-go/lifeline/agent/source/bpf"`},
			{"bound/a.go": `package bound; import "golang.org/x/sys/unix"`},
			{"bound/a.go": `package bound; import "github.com/lifeline-go/lifeline/agent/fact"`},
			{"doc.go": `package lifeline; import "github.com/lifeline-go/lifeline/agent/node"`},
			{"agent/show/a.go": `package show; import . "strings"`},
			{"agent/fact/a_test.go": `package fact; import "github.com/lifeline-go/lifeline/agent/node"`},
		},
		right: []sample{
			{"agent/node/a.go": `package node; import "github.com/lifeline-go/lifeline/agent/source/bpf"`},
			{"agent/source/bpf/a.go": `package bpf; import "github.com/cilium/ebpf/link"`},
			{"bound/a_test.go": `package bound_test; import ("github.com/lifeline-go/lifeline/bound"; "github.com/lifeline-go/lifeline/internal/need")`},
		},
	},
	{
		name: "every package has a place", check: foldersKnown,
		wrong: []sample{{"agent/extra/a.go": "package extra"}, {"agent/source/bpf/deep/a_windows.go": "package deep"}},
		right: []sample{{"bound/a.go": "package bound"}},
	},
	{
		name: "pure packages do no I/O and read no clock", check: pureIsPure,
		wrong: []sample{
			{"agent/fact/a.go": `package fact; import "os"`},
			{"agent/verdict/a.go": `package verdict; import "net"`},
			{"agent/census/a.go": `package census; import "log/slog"`},
			{"bound/a.go": `package bound; import clock "time"; var t = clock.Now()`},
		},
		right: []sample{
			{"agent/fact/a.go": `package fact; import ("net/netip"; "time"); var a netip.Addr; var d time.Duration`},
			{"agent/fact/a_test.go": `package fact; import ("os"; "time"); var t = time.Now; var f *os.File`},
		},
	},
}

// placeOf returns the row of a folder, nil when it has none.
func placeOf(folder string) *layer {
	i := slices.IndexFunc(layers, func(l layer) bool { return l.folder == folder })
	if i < 0 {
		return nil
	}
	return &layers[i]
}

// kindOf returns command for a folder without a place: the rule for places
// complains of it already.
func kindOf(folder string) kind {
	if l := placeOf(folder); l != nil {
		return l.kind
	}
	return command
}

func importsFit(t tree) (complaints []string) {
	for _, f := range t.files {
		place := placeOf(f.folder())
		if place == nil {
			continue
		}
		may := place.imports
		if f.test() {
			may = slices.Concat(may, testImports, []string{place.folder})
		}
		for imported, name := range f.imports() {
			if name == "." {
				complaints = append(complaints, f.complain(f.Name, "imports %s with a dot, which hides where names come from", imported))
			}
			if ours, foreign := origin(imported); (ours || foreign) && !allows(may, imported) {
				complaints = append(complaints, f.complain(f.Name, "%s may not import %s: it is %q", place.folder, imported, place.why))
			}
		}
	}
	return complaints
}

// origin says whether an import path is of this repository or of another
// module; of the standard library it is neither.
func origin(imported string) (ours, foreign bool) {
	if imported == module || strings.HasPrefix(imported, module+"/") {
		return true, false
	}
	host, _, _ := strings.Cut(imported, "/")
	return false, strings.Contains(host, ".")
}

func allows(may []string, imported string) bool {
	folder := strings.TrimPrefix(strings.TrimPrefix(imported, module), "/")
	if folder == "" {
		folder = "."
	}
	return slices.ContainsFunc(may, func(entry string) bool {
		fits, _ := path.Match(entry, folder)
		_, foreign := origin(entry)
		return fits || foreign && strings.HasPrefix(imported, entry+"/")
	})
}

func foldersKnown(t tree) (complaints []string) {
	for folder := range t.byFolder() {
		if placeOf(folder) == nil {
			complaints = append(complaints, folder+": a new package needs a row in layers, with what it may import and why it is there")
		}
	}
	return complaints
}

// TestNoLayerIsGone keeps the table from speaking of what does not exist.
func TestNoLayerIsGone(t *testing.T) {
	top, err := load(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	there := slices.Collect(maps.Keys(top.byFolder()))
	for _, l := range layers {
		if !slices.Contains(there, l.folder) {
			t.Errorf("layers speaks of %s, which has no Go file", l.folder)
		}
	}
}

func pureIsPure(t tree) (complaints []string) {
	for _, f := range t.files {
		if f.test() || kindOf(f.folder()) != pure {
			continue
		}
		for imported := range f.imports() {
			ours, foreign := origin(imported)
			if !ours && !foreign && !slices.Contains(pureImports, imported) {
				complaints = append(complaints, f.complain(f.Name, "%s is pure and may not import %s", f.folder(), imported))
			}
		}
		f.uses("time", func(n ast.Node, name string) {
			if slices.Contains(clock, name) {
				complaints = append(complaints, f.complain(n, "%s is pure and may not use time.%s: the time is a fact", f.folder(), name))
			}
		})
	}
	return complaints
}
