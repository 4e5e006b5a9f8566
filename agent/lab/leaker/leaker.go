// Package leaker plays the story of the leaked sockets: a CI agent that makes a
// Docker client for each build, by two versions of that client, one of which keeps
// its connections for ever and one that closes those that are idle. It has their
// source, and that of programs that leak in other ways, and builds them as users
// do, with their libraries from the module proxy.
package leaker

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
)

//go:embed victims
var victims embed.FS

// The programs that can be built.
const (
	DockerLeaks = "docker-leaks" // agent OPERATIONS PAUSE, with github.com/docker/docker v20.10.27
	DockerHeals = "docker-heals" // the same with github.com/moby/moby/client v0.6.2
	Standard    = "std"          // several leaks with the standard library alone
	Healthy     = "healthy"      // several programs that leak nothing, with github.com/jackc/pgx/v5
	GRPC        = "grpc"         // a connection for each call, with google.golang.org/grpc
)

// Build says how to build a program. The zero value is how releases are built:
// static, without symbols.
type Build struct {
	Toolchain string   // as GOTOOLCHAIN has it, such as go1.21.13; "" = the one that is installed
	Flags     []string // more of go build
}

// Make builds a program in a directory and returns its path.
func (b Build) Make(ctx context.Context, name, dir string) (path string, err error) {
	if err := unpack(name, dir); err != nil {
		return "", err
	}
	path = filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-ldflags=-s -w", "-o", path}, append(b.Flags, ".")...)...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false")
	if b.Toolchain != "" {
		cmd.Env = append(cmd.Env, "GOTOOLCHAIN="+b.Toolchain)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return path, nil
}

// unpack writes the source of a program.
func unpack(name, dir string) error {
	text, err := victims.ReadFile("victims/" + name + ".txtar")
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range txtar.Parse(text).Files {
		errs = append(errs, os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o644))
	}
	return errors.Join(errs...)
}
