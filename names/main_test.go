package names_test

import (
	"errors"
	"runtime"
	"testing"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// linuxOnly is why the daemons of Linux are not asked here.
func linuxOnly() error {
	if runtime.GOOS != "linux" {
		return errors.ErrUnsupported
	}
	return nil
}
