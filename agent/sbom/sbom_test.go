package sbom_test

import (
	"debug/buildinfo"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/lifeline-go/lifeline/agent/sbom"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// What the schema of CycloneDX 1.5 asks of the parts that are used here.
var (
	serial = regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	purl   = regexp.MustCompile(`^pkg:golang/[A-Za-z0-9._~!$&'()*+,;=:@%/-]+@[A-Za-z0-9._~()%-]+$`)
)

func TestOf(t *testing.T) {
	info := &debug.BuildInfo{
		GoVersion: "go1.26.8", Path: "github.com/lifeline-go/lifeline/agent/cmd/lifeline",
		Main: debug.Module{Path: "github.com/lifeline-go/lifeline/agent", Version: "(devel)"},
		Deps: []*debug.Module{
			{Path: "github.com/lifeline-go/lifeline", Version: "v0.0.0", Replace: &debug.Module{Path: "../"}},
			{Path: "go.yaml.in/yaml/v3", Version: "v3.0.6", Sum: "h1:abc="},
			{Path: "example.com/a", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/b", Version: "v2.0.0+incompatible"}},
		},
		Settings: []debug.BuildSetting{{Key: "GOARCH", Value: "arm64"}},
	}
	b := sbom.Of(info, "v1.2.3")
	var got []string
	for _, c := range b.Components {
		got = append(got, c.PURL)
	}
	want := []string{"pkg:golang/std@1.26.8", "pkg:golang/github.com/lifeline-go/lifeline@v1.2.3", "pkg:golang/go.yaml.in/yaml/v3@v3.0.6", "pkg:golang/example.com/b@v2.0.0%2Bincompatible"}
	if !slices.Equal(got, want) {
		t.Errorf("components %q, want %q", got, want)
	}
	if again := sbom.Of(info, "v1.2.3"); !reflect.DeepEqual(again, b) {
		t.Error("it is another document the second time")
	}
	if other := sbom.Of(info, "v1.2.4"); other.Serial == b.Serial {
		t.Error("another version has the same serial number")
	}
}

// The bill of a real program names each module that is in it, once, and is as the
// format wants it.
func TestOfThisProgram(t *testing.T) {
	info, err := buildinfo.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	b := sbom.Of(info, "v0.0.1")
	if b.Format != "CycloneDX" || b.SpecVersion != "1.5" || b.Version != 1 || !serial.MatchString(b.Serial) {
		t.Errorf("%+v", b)
	}
	refs := map[string]bool{b.Metadata.Component.Ref: true}
	for _, c := range b.Components {
		if refs[c.Ref] || c.Name == "" || c.Type != "library" || !purl.MatchString(c.PURL) {
			t.Errorf("%+v", c)
		}
		refs[c.Ref] = true
	}
	if len(b.Components) != len(info.Deps)+1 {
		t.Errorf("%d components of %d modules and the standard library", len(b.Components), len(info.Deps))
	}
	for _, d := range b.Dependencies {
		for _, ref := range append(d.On, d.Ref) {
			if !refs[ref] {
				t.Errorf("%s is no component", ref)
			}
		}
	}
	if text, err := json.Marshal(b); err != nil || regexp.MustCompile(`:null`).Match(text) {
		t.Errorf("%v: %s", err, text)
	}
}
