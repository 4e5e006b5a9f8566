//go:build linux

package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/client"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
	"github.com/lifeline-go/lifeline/ledger"
	"github.com/lifeline-go/lifeline/lifelinetest"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// An engine is what the agent of the story was given by others: it keeps a
// client, in an interface that has no Close, and has none itself.
type engine struct{ docker client.APIClient }

// setup imports the image of a build, and looks meanwhile what runs, as the
// story's engine followed the logs of a container while it waited for its end.
func (e *engine) setup(ctx context.Context, image string) error {
	source, upload := io.Pipe()
	asked := make(chan error, 1)
	go func() {
		_, err := upload.Write(layer("before"))
		if err == nil {
			_, err = e.docker.ContainerList(ctx, types.ContainerListOptions{All: true})
		}
		asked <- err
		_ = upload.CloseWithError(err)
	}()
	answer, err := e.docker.ImageImport(ctx, types.ImageImportSource{Source: source, SourceName: "-"}, image, types.ImageImportOptions{})
	_ = source.Close()
	if err := errors.Join(err, <-asked); err != nil {
		return err
	}
	defer answer.Close()
	_, err = io.Copy(io.Discard, answer)
	return err
}

// destroy removes the image. It does not touch the client, whatever its name
// may promise.
func (e *engine) destroy(ctx context.Context, image string) error {
	_, err := e.docker.ImageRemove(ctx, image, types.ImageRemoveOptions{})
	return err
}

// layer is a file system with one file.
func layer(file string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(len(file))})
	_, _ = io.WriteString(w, file)
	_ = w.Close()
	return b.Bytes()
}

// run is one build of the agent, as it is in the story: it makes a client, and
// an engine, and closes neither.
func run(ctx context.Context, host string, dialer *lifeline.Dialer, build int) error {
	docker, err := Client(host, dialer.DialContext)
	if err != nil {
		return err
	}
	e, image := &engine{docker}, fmt.Sprintf("build:%d", build)
	if err := e.setup(ctx, image); err != nil {
		return err
	}
	return e.destroy(ctx, image)
}

// daemon starts a dockerd of the test's own, on a socket of its own.
func daemon(t *testing.T) (host string) {
	t.Helper()
	need.Root(t)
	dir, err := os.MkdirTemp("", "lifeline-docker-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var said bytes.Buffer
	host = "unix://" + dir + "/socket"
	cmd := exec.Command(need.Program(t, "setpriv"), "--pdeathsig=TERM", need.Program(t, "dockerd"), // which goes when the test is killed
		"--host="+host, "--data-root="+dir+"/data", "--exec-root="+dir+"/exec", "--pidfile="+dir+"/pid",
		"--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false")
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it stops its containerd too
		select {
		case <-ended:
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			t.Errorf("dockerd did not stop: %s", said.String())
		}
	})
	docker, err := Client(host, new(lifeline.Dialer).DialContext)
	if err != nil {
		t.Fatal(err)
	}
	defer docker.Close()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		_, err := docker.Ping(t.Context())
		if err == nil {
			return host
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("dockerd: %v: %s", err, said.String())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("dockerd does not answer: %v", err)
		}
	}
}

// The story: two sockets for each build. And its end: each build has a scope,
// which closes them and says which line opened them.
func TestBuilds(t *testing.T) {
	lifelinetest.NoLeaks(t)
	host := daemon(t)
	socket := strings.TrimPrefix(host, "unix://")

	leaky := lifeline.NewScope("agent")
	for build := range 5 {
		if err := run(t.Context(), host, &lifeline.Dialer{Scope: leaky}, build); err != nil {
			t.Fatal(err)
		}
	}
	if open := leaky.Open(); len(open) != 10 {
		t.Errorf("%d sockets after 5 builds", len(open))
	}
	leaky.SetLimit(10)
	err := run(t.Context(), host, &lifeline.Dialer{Scope: leaky}, 5)
	if !strings.Contains(fmt.Sprint(err), `lifeline: leaks: dial `+socket+`: too many connections are open: scope "agent" has the 10 open that it may have`) {
		t.Errorf("a build too many: %v", err)
	}
	leaky.Close()

	for build := range 5 {
		scope := lifeline.NewScope(fmt.Sprintf("build %d", build))
		if err := run(scope.Context(t.Context()), host, new(lifeline.Dialer), build); err != nil {
			t.Fatal(err)
		}
		left := scope.Close()
		if len(left) != 2 {
			t.Errorf("build %d left %d sockets", build, len(left))
		}
		for _, e := range left {
			if e.Remote != socket || !strings.HasSuffix(e.Site().Function, ".TestBuilds") {
				t.Errorf("build %d left %+v", build, e)
			}
		}
	}
	for _, e := range ledger.Open() {
		t.Errorf("open in the end: %+v", e)
	}
}
