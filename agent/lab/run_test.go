//go:build linux

package lab

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/internal/need"
)

// However f ends, its hosts are gone when Run returns.
func TestRun(t *testing.T) {
	t.Parallel()
	need.Root(t)
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		f    func(h *Host) error
		want string
	}{
		"well":                 {func(*Host) error { return nil }, ""},
		"with an error":        {func(*Host) error { return broken }, "broken"},
		"something not built":  {func(h *Host) error { h.Run("false"); return nil }, "lab: only: false : exit status 1: "},
		"something not called": {func(h *Host) error { h.Route("nowhere", "nobody"); return nil }, "lab: ip route add nowhere via nobody: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var path string
			err := Run(func(l *Lab) error {
				h := l.Host("only")
				path = h.Path()
				if _, err := os.Stat(path); err != nil {
					t.Error(err)
				}
				return test.f(h)
			})
			if (err == nil) != (test.want == "") || err != nil && !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if _, err := os.Stat(path); !os.IsNotExist(err) {
				t.Errorf("%s: %v, want gone", path, err)
			}
		})
	}
}

func TestRunPassesPanicsOn(t *testing.T) {
	t.Parallel()
	need.Root(t)
	var path string
	defer func() {
		if r := recover(); r != "a mistake" {
			t.Errorf("recovered %v, want the panic of f", r)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s: %v, want gone", path, err)
		}
	}()
	_ = Run(func(l *Lab) error {
		path = l.Host("only").Path()
		panic("a mistake")
	})
}

func TestMissing(t *testing.T) {
	t.Parallel()
	need.Root(t)
	if err := Missing("cat"); err != nil {
		t.Error(err)
	}
	err := Missing("no-such", "neither")
	if want := "the lab needs the program no-such, the program neither"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
