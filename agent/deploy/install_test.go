package deploy_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/agent/profile"
)

// The table of docs/install.md is that of package profile.
func TestInstallDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range profile.Features {
		var ways []string
		for _, way := range f.Ways {
			var names []string
			for _, c := range way {
				names = append(names, c.String())
			}
			ways = append(ways, strings.Join(names, ", "))
		}
		if row := fmt.Sprintf("\n| %s | *%s* | %s | %s |\n", f.Name, f.Profile, strings.Join(ways, "; or "), f.Lost); !strings.Contains(string(text), row) {
			t.Errorf("docs/install.md lacks %s", row)
		}
	}
}
