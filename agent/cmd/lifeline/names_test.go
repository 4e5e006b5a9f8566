package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/internal/need"
)

// binaries is what lifeline names --binaries --json says.
type binaries struct {
	Binaries []struct {
		Path, Name, Resolver, Reason string
		Here                         string  `json:"resolver_here"`
		Fails                        *bool   `json:"fails_here"`
		Why                          *string `json:"fails_why"`
		Go                           *string
	}
	Meaning []meaning
	Blind   []struct{ Source string }
}

type meaning struct {
	Code, Severity, Title, Why string
	Fix                        []string
}

const lookingUp = `package main

import (
	"net"
	"os"
)

func main() {
	for i := 0; i < 10 && len(os.Args) > 1; i++ {
		if _, err := net.LookupHost(os.Args[1]); err == nil {
			return
		}
	}
}
`

// goProgram builds a program that looks its argument up.
func goProgram(t *testing.T, cgo string, flags ...string) string {
	t.Helper()
	if cgo == "1" {
		need.Program(t, "gcc")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.org/asks\n\ngo 1.21\n", "main.go": lookingUp} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(need.Program(t, "go"), append([]string{"build", "-buildvcs=false", "-o", "asks"}, flags...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return filepath.Join(dir, "asks")
}

// What is told from the file is what the program says of itself, GODEBUG=netdns.
func TestBinariesAgreeWithThePrograms(t *testing.T) {
	for _, c := range []struct {
		name  string
		cgo   string
		flags []string
		env   string // of GODEBUG, for the program
	}{
		{"static", "0", nil, ""},
		{"without symbols", "0", []string{"-ldflags=-s -w"}, ""},
		{"pie", "0", []string{"-buildmode=pie"}, ""},
		{"netgo", "1", []string{"-tags=netgo"}, ""},
		{"cgo", "1", nil, ""},
		{"cgo without symbols", "1", []string{"-ldflags=-s -w"}, ""},
		{"cgo pie", "1", []string{"-buildmode=pie"}, ""},
		{"netcgo", "1", []string{"-tags=netcgo"}, ""},
		{"static cgo", "1", []string{"-ldflags=-linkmode=external -extldflags=-static -s -w"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := goProgram(t, c.cgo, c.flags...)
			var d binaries
			document(t, &d, "names", "--binaries", "--no-probe", path)
			if len(d.Binaries) != 1 || d.Binaries[0].Path != path || d.Binaries[0].Fails != nil {
				t.Fatalf("%+v", d)
			}
			cmd := exec.Command(path, "localhost.")
			cmd.Env = append(os.Environ(), "GODEBUG=netdns=2")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			said := string(out)
			truth := map[string]string{"using the Go DNS resolver": "go", "dynamic selection of DNS resolver": "either", "using the cgo DNS resolver": "system"}
			for line, resolver := range truth {
				if strings.Contains(said, line) != (d.Binaries[0].Resolver == resolver) {
					t.Errorf("told %+v, the program says %s", d.Binaries[0], said)
				}
			}
			order := said[strings.Index(said, "hostLookupOrder"):] // hostLookupOrder(localhost.) = files,dns, or cgo
			if system := strings.Contains(order, "= cgo"); system != (d.Binaries[0].Here == "system") {
				t.Errorf("told %+v, the program says %s", d.Binaries[0], said)
			}
		})
	}
}
