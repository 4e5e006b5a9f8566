package lifeline_test

import (
	"fmt"
	"go/ast"
	"go/build/constraint"
	"slices"
	"strings"
)

// Budgets. What outgrows one is two things that should have two names.
const (
	mostFileLines     = 500
	mostFuncLines     = 60
	mostInterfaceSize = 5
)

// drawers are names that say nothing about what is inside.
var drawers = []string{"base", "common", "core", "helper", "helpers", "lib", "misc", "shared", "types", "util", "utils"}

// loud is what a library leaves to its caller: it returns errors, and values.
var loud = map[string][]string{
	"os":  {"Args", "Environ", "Exit", "ExpandEnv", "Getenv", "LookupEnv", "Stderr", "Stdin", "Stdout"},
	"fmt": {"Print", "Printf", "Println", "Scan", "Scanf", "Scanln"},
}

// callers is what only commands, and tests, may import.
var callers = []string{"flag", "log", "log/slog", "log/syslog", "testing"}

// tags are the build constraints that some build of make test meets. Code
// behind any other would never be compiled.
var tags = []string{"linux", "darwin", "windows", "unix", "amd64", "arm64", "386", "arm", "cgo", "race"}

// imported are the packages that are imported for their effect, and which it
// is; only they may have a func init.
var imported = map[string]string{
	"names/getaddrinfo":        "lets package names ask through the program that it carries, which nobody must carry who did not ask for it",
	"agent/cmd/lifeline/early": "begins what a program waits for, before the rest of the command is initialised",
}

// dependencies are the modules that are required directly, and why.
var dependencies = map[string]map[string]string{
	"go.mod": {
		"golang.org/x/crypto": "the SSH protocol, unforked; v0.58 is the first whose connection no flood on one channel can block, and it asks for Go 1.26",
		"golang.org/x/net":    "dnsmessage: the parser of DNS messages that package net itself has, without allocations",
		"golang.org/x/sys":    "TCP_INFO and socket options on every architecture; the version that x/crypto asks for",
	},
	"agent/go.mod": {
		module:                                "the library",
		"charm.land/bubbletea/v2":             "lifeline top: keys and what is drawn, on every terminal that there is",
		"github.com/charmbracelet/x/ansi":     "how many columns a text takes; bubbletea draws by it",
		"github.com/cilium/ebpf":              "loads BPF objects without cgo or a compiler on the machine",
		"github.com/coder/websocket":          "the lab's server and clients, as users write them; it has no dependencies itself",
		"github.com/godbus/dbus/v5":           "systemd's word that the machine goes down: signals, a lock that is a descriptor, a bus that comes back; nameways asks one question and needs none of it",
		"github.com/mdlayher/netlink":         "netlink messages and attributes",
		"github.com/prometheus/client_golang": "metrics in the format that Prometheus reads, and the check of their names",
		"github.com/prometheus/client_model":  "what client_golang gathers, to send it by OTLP",
		"github.com/rogpeppe/go-internal":     "testscript: the command is tested as it is typed; txtar: programs that the lab builds, each in one file",
		"github.com/spf13/cobra":              "subcommands, flags, help",
		"github.com/spf13/pflag":              "help shows the flags of a command and of all commands as one list",
		"go.opentelemetry.io/proto/slim/otlp": "the messages of OTLP as OpenTelemetry publishes them, without gRPC",
		"google.golang.org/protobuf":          "writes and reads these messages",
		"go.yaml.in/yaml/v3":                  "the policy file: a parser that keeps line numbers; the one that the YAML organisation keeps after gopkg.in/yaml.v3 was left",
		"golang.org/x/crypto":                 "keys and callbacks of package ssh are those of x/crypto",
		"golang.org/x/net":                    "dnsmessage: what a nameserver answers",
		"golang.org/x/sys":                    "system calls",
		"modernc.org/sqlite":                  "the history: one file that survives SIGKILL and a full disk; without cgo",
	},
	"names/getaddrinfo/asker/go.mod": {
		"github.com/ebitengine/purego": "calls the C library without cgo, so the program can be built for every machine on any",
	},
	"examples/go.mod": {
		module:                         "the library",
		module + "/agent":              "agent/lab: machines that die",
		"github.com/coder/websocket":   "a recipe",
		"github.com/docker/docker":     "a recipe: the client of the story, of the version that never gives an idle connection back",
		"github.com/jackc/pgx/v5":      "a recipe",
		"github.com/redis/go-redis/v9": "a recipe",
		"google.golang.org/grpc":       "a recipe",
	},
}

var houseRules = []rule{
	{
		name: "no package is a drawer", check: namesSay,
		wrong: []sample{{"util/a.go": "package util"}, {"agent/a.go": "package helpers"}, {"agent/common/x/a.go": "package x"}},
		right: []sample{{"bound/a.go": "package bound"}},
	},
	{
		name: "every package has one package comment", check: commented,
		wrong: []sample{
			{"a/a.go": "package a"},
			{"a/a.go": "// Package a is.\npackage a", "a/b.go": "// Package a is.\npackage a"},
			{"a/a.go": "// Of something else.\npackage a"},
			{"a/a.go": "//go:build linux\npackage a"},
			{"a/a_test.go": "package a_test"},
		},
		right: []sample{
			{"a/a.go": "// Package a is.\npackage a", "a/b.go": "package a", "a/a_test.go": "package a_test"},
			{"a/main.go": "// Command a does.\npackage main"},
		},
	},
	{
		name: "files, functions and interfaces are small", check: small,
		wrong: []sample{
			{"a/a.go": "package a" + strings.Repeat("\n", mostFileLines+1)},
			{"a/a.go": "package a\nfunc f() {" + strings.Repeat("\n", mostFuncLines+1) + "}"},
			{"a/a.go": "package a\ntype i interface { A(); B(); C(); D(); E(); F() }"},
		},
		right: []sample{
			{"a/a.go": "package a\nfunc f() {" + strings.Repeat("\n", mostFuncLines) + "}"},
			{"a/a.go": "// Code generated by hand. DO NOT EDIT.\npackage a" + strings.Repeat("\n", mostFileLines+1)},
		},
	},
	{
		name: "libraries do not log, print, exit, or read flags and environment", check: quiet,
		wrong: []sample{
			{"agent/node/a.go": `package node; import "log/slog"`},
			{"agent/source/procfs/a.go": `package procfs; import env "os"; var s = env.Getenv("HOME")`},
			{"doc.go": `package lifeline; import "fmt"; func f() { fmt.Println() }`},
			{"agent/show/a.go": `package show; func f() { println() }`},
			{"bound/a.go": `package bound; import "flag"`},
		},
		right: []sample{
			{"agent/cmd/lifeline/a.go": `package main; import "os"; var s = os.Args`},
			{"agent/show/a.go": `package show; import ("fmt"; "io"); func f(w io.Writer) { fmt.Fprintln(w) }`},
		},
	},
	{
		name: "nothing happens by importing", check: noInit,
		wrong: []sample{
			{"a/a.go": "package a; func init() {}"},
			{"names/getaddrinfo/asker/main.go": "package main; func init() {}"},
		},
		right: []sample{
			{"a/a.go": "package a; type t int; func (t) init() {}"},
			{"a/a.go": "// Code generated by hand. DO NOT EDIT.\n\npackage a\nfunc init() {}"},
			{"names/getaddrinfo/way.go": "package getaddrinfo; func init() {}"},
		},
	},
	{
		name: "no struct keeps a context", check: contextsPass,
		wrong: []sample{{"a/a.go": `package a; import "context"; type t struct { ctx context.Context }`}},
		right: []sample{{"a/a.go": `package a; import "context"; type t struct { f func(context.Context) }`}},
	},
	{
		name: "no file hides behind a build tag", check: tagsMet,
		wrong: []sample{
			{"a/a_test.go": "//go:build integration\n\npackage a"},
			{"a/a.go": "//go:build linux && !ignore\n\npackage a"},
		},
		right: []sample{{"a/a.go": "//go:build !linux && (amd64 || arm64)\n\npackage a"}},
	},
	{
		name: "every direct dependency has a reason", check: dependenciesKnown,
		wrong: []sample{
			{"go.mod": "module m\nrequire golang.org/x/text v0.1.0"},
			{"agent/go.mod": "module m\nrequire (\n\tgithub.com/stretchr/testify v1.0.0\n)"},
			{"agent/go.mod": "module m\nreplace golang.org/x/sys => ../sys"},
			{"examples/go.mod": "module m\nreplace golang.org/x/sys => ../sys"},
		},
		right: []sample{
			{"agent/go.mod": "module m\nrequire (\n\tgolang.org/x/sys v0.1.0\n\tgolang.org/x/sync v0.1.0 // indirect\n)\nreplace " + module + " => ../"},
			{"examples/go.mod": "module m\nreplace (\n\t" + module + " => ../\n\t" + module + "/agent => ../agent\n)"},
			{"tools/go.mod": "module m\nrequire golang.org/x/tools v0.1.0 // indirect"},
		},
	},
}

func namesSay(t tree) (complaints []string) {
	for _, f := range t.files {
		for _, part := range append(strings.Split(f.folder(), "/"), f.Name.Name) {
			if slices.Contains(drawers, part) {
				complaints = append(complaints, f.complain(f.Name, "the name %q does not say what is inside", part))
			}
		}
	}
	return complaints
}

// commented leaves external test packages alone, except where there is nothing
// else to carry the comment.
func commented(t tree) (complaints []string) {
	for folder, files := range t.byFolder() {
		external := func(f file) bool { return strings.HasSuffix(f.Name.Name, "_test") }
		if !slices.ContainsFunc(files, func(f file) bool { return !external(f) }) {
			external = func(file) bool { return false }
		}
		var with []string
		for _, f := range files {
			text := strings.TrimSpace(f.Doc.Text())
			if external(f) || text == "" {
				continue
			}
			with = append(with, f.path)
			if f.Name.Name != "main" && !strings.HasPrefix(text, "Package "+f.Name.Name) {
				complaints = append(complaints, f.complain(f.Name, "the comment must begin with Package %s", f.Name.Name))
			}
		}
		if len(with) != 1 {
			complaints = append(complaints, fmt.Sprintf("%s: one file must have the package comment; these have it: %v", folder, with))
		}
	}
	return complaints
}

func small(t tree) (complaints []string) {
	for _, f := range t.files {
		if f.test() || f.generated() {
			continue
		}
		if f.lines > mostFileLines {
			complaints = append(complaints, f.complain(f.Name, "%d lines, of %d at most", f.lines, mostFileLines))
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if lines := f.set.Position(n.End()).Line - f.set.Position(n.Pos()).Line; lines > mostFuncLines {
					complaints = append(complaints, f.complain(n, "func %s has %d lines, of %d at most", n.Name.Name, lines, mostFuncLines))
				}
			case *ast.InterfaceType:
				if methods := n.Methods.NumFields(); methods > mostInterfaceSize {
					complaints = append(complaints, f.complain(n, "%d methods, of %d at most", methods, mostInterfaceSize))
				}
			}
			return true
		})
	}
	return complaints
}

func quiet(t tree) (complaints []string) {
	for _, f := range t.files {
		if k := kindOf(f.folder()); f.test() || k == support || k == command {
			continue
		}
		for imported := range f.imports() {
			if slices.Contains(callers, imported) {
				complaints = append(complaints, f.complain(f.Name, "a library may not import %s", imported))
			}
		}
		for from, names := range loud {
			f.uses(from, func(n ast.Node, name string) {
				if slices.Contains(names, name) {
					complaints = append(complaints, f.complain(n, "a library may not use %s.%s: that is for its caller", from, name))
				}
			})
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if fun, ok := call.Fun.(*ast.Ident); ok && (fun.Name == "print" || fun.Name == "println") {
					complaints = append(complaints, f.complain(n, "a library may not print"))
				}
			}
			return true
		})
	}
	return complaints
}

func noInit(t tree) (complaints []string) {
	for _, f := range t.files {
		if f.test() || f.generated() || imported[f.folder()] != "" { // nobody imports a test
			continue
		}
		for _, decl := range f.Decls {
			if fun, ok := decl.(*ast.FuncDecl); ok && fun.Recv == nil && fun.Name.Name == "init" {
				complaints = append(complaints, f.complain(fun, "func init: say it where it is used"))
			}
		}
	}
	return complaints
}

func contextsPass(t tree) (complaints []string) {
	for _, f := range t.files {
		local, ok := f.imports()["context"]
		if !ok {
			continue
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			fields, ok := n.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range fields.Fields.List {
				if of, ok := field.Type.(*ast.SelectorExpr); ok && of.Sel.Name == "Context" {
					if x, ok := of.X.(*ast.Ident); ok && x.Name == local {
						complaints = append(complaints, f.complain(field, "a context is passed, not kept"))
					}
				}
			}
			return true
		})
	}
	return complaints
}

func tagsMet(t tree) (complaints []string) {
	for _, f := range t.files {
		for _, group := range f.Comments {
			for _, line := range group.List {
				if group.Pos() > f.Package || !constraint.IsGoBuild(line.Text) {
					continue
				}
				expr, err := constraint.Parse(line.Text)
				if err != nil {
					complaints = append(complaints, f.complain(line, "%v", err))
					continue
				}
				expr.Eval(func(tag string) bool {
					if !f.generated() && !slices.Contains(tags, tag) {
						complaints = append(complaints, f.complain(line, "no build sets the tag %s", tag))
					}
					return true
				})
			}
		}
	}
	return complaints
}

func dependenciesKnown(t tree) (complaints []string) {
	for name, text := range t.modules {
		for _, words := range directives(text) {
			switch {
			case words[0] == "require" && dependencies[name][words[1]] == "":
				complaints = append(complaints, fmt.Sprintf("%s: a direct dependency on %s needs a reason in dependencies", name, words[1]))
			case words[0] == "replace" && name == "examples/go.mod" && strings.HasPrefix(words[1], module): // nobody installs it
			case words[0] == "replace" && (name != "agent/go.mod" || words[1] != module):
				complaints = append(complaints, fmt.Sprintf("%s: replaces %s, which go install refuses", name, words[1]))
			}
		}
	}
	return complaints
}

// directives returns the lines of a go.mod file as words, those of a block
// each with its directive, without requirements that are indirect.
func directives(text string) (lines [][]string) {
	block := ""
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] == "//" || words[len(words)-1] == "indirect":
		case words[0] == ")":
			block = ""
		case words[len(words)-1] == "(":
			block = words[0]
		case block != "":
			lines = append(lines, append([]string{block}, words...))
		default:
			lines = append(lines, words)
		}
	}
	return lines
}
