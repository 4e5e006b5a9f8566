// Package sbom tells of what a program is made: a software bill of materials in
// the format CycloneDX 1.5, from what the Go toolchain records in each program.
// The same program has the same bill, to the byte.
package sbom

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"runtime/debug"
	"strings"
)

// BOM is a CycloneDX document, as far as it is needed here.
type BOM struct {
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	Serial       string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     Metadata     `json:"metadata"`
	Components   []Component  `json:"components"`
	Dependencies []Dependency `json:"dependencies"`
}

// Metadata is what the document is about.
type Metadata struct {
	Component Component `json:"component"`
}

// Component is a module, or the program itself.
type Component struct {
	Type       string     `json:"type"` // application or library
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl,omitempty"` // package URL
	Licenses   []License  `json:"licenses,omitempty"`
	Properties []Property `json:"properties,omitempty"`
}

// License is an SPDX expression.
type License struct {
	Expression string `json:"expression"`
}

// Property is something that the format has no place for.
type Property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Dependency says what a component is made of.
type Dependency struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn"`
}

// module is where this project comes from: its own modules have its version.
const module = "github.com/lifeline-go/lifeline"

// Of returns the bill of a program of that version.
func Of(info *debug.BuildInfo, version string) BOM {
	b := BOM{Format: "CycloneDX", SpecVersion: "1.5", Version: 1, Components: []Component{}}
	own := func(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }
	main := component(info.Main.Path, version, "")
	main.Type, main.Name = "application", info.Path
	for _, s := range info.Settings {
		if s.Key == "CGO_ENABLED" || s.Key == "-trimpath" || strings.HasPrefix(s.Key, "vcs.") { // not what differs between processors
			main.Properties = append(main.Properties, Property{"go:build:" + s.Key, s.Value})
		}
	}
	if own(info.Main.Path) {
		main.Licenses = []License{{"Apache-2.0"}}
	}
	b.Metadata.Component = main
	b.Components = append(b.Components, component("std", strings.TrimPrefix(info.GoVersion, "go"), ""))
	for _, dep := range info.Deps {
		if dep.Replace != nil && dep.Replace.Version != "" { // by another module; a folder keeps the name
			dep = dep.Replace
		}
		v := dep.Version
		if own(dep.Path) {
			v = version
		}
		b.Components = append(b.Components, component(dep.Path, v, dep.Sum))
	}
	all := Dependency{Ref: main.Ref, On: []string{}}
	for i := range b.Components {
		all.On = append(all.On, b.Components[i].Ref)
		b.Dependencies = append(b.Dependencies, Dependency{b.Components[i].Ref, []string{}})
	}
	b.Dependencies = append([]Dependency{all}, b.Dependencies...)
	b.Serial = serial(b)
	return b
}

// component is a module: its sum is that of go.sum, the tree of its files, which is
// none of the hashes of files that the format knows.
func component(path, version, sum string) Component {
	c := Component{Type: "library", Name: path, Version: version, PURL: purl(path, version)}
	c.Ref = c.PURL
	if sum != "" {
		c.Properties = []Property{{"go:sum", sum}}
	}
	return c
}

// purl is the package URL of a module: github.com/purl-spec has the type golang.
func purl(path, version string) string {
	var parts []string
	for part := range strings.SplitSeq(path, "/") {
		parts = append(parts, url.PathEscape(part))
	}
	return "pkg:golang/" + strings.Join(parts, "/") + "@" + strings.ReplaceAll(url.PathEscape(version), "+", "%2B")
}

// serial is the name of a document: a UUID made of what is in it.
func serial(b BOM) string {
	text, err := json.Marshal(b)
	if err != nil {
		panic(err) // strings and numbers alone
	}
	sum := sha256.Sum256(text)
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80 // version 8: of one's own making, RFC 9562
	x := hex.EncodeToString(sum[:16])
	return fmt.Sprintf("urn:uuid:%s-%s-%s-%s-%s", x[:8], x[8:12], x[12:16], x[16:20], x[20:])
}
