package lifelinetest_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/lifelinetest"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// A trial is a test that may fail: what it says is kept.
type trial struct {
	testing.TB
	name     string
	cleanups []func()
	said     string
}

func (t *trial) Name() string              { return t.name }
func (t *trial) Helper()                   {}
func (t *trial) Failed() bool              { return t.said != "" }
func (t *trial) Cleanup(f func())          { t.cleanups = append(t.cleanups, f) }
func (t *trial) Errorf(s string, a ...any) { t.said += fmt.Sprintf(s, a...) }

// try runs a test on a goroutine of its own, as package testing does, and
// returns what it said.
func try(tb testing.TB, test func(t *trial)) string {
	t := &trial{TB: tb, name: tb.Name()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(t)
		for i := len(t.cleanups) - 1; i >= 0; i-- {
			t.cleanups[i]()
		}
	}()
	<-done
	return t.said
}

func serve(t testing.TB) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") }))
	t.Cleanup(server.Close)
	return server
}

// get is what a program has: it asks by a client.
func get(client *http.Client, url string) error {
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// mustSay checks that a report has all parts.
func mustSay(t *testing.T, report string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(report, part) {
			t.Errorf("%q is not in:\n%s", part, report)
		}
	}
}

// The report of a client that was dropped with its pool names the line that
// asked, and not only net/http. It runs alone: what tests beside it open counts
// against the same share of the time.
func TestPooledConnection(t *testing.T) {
	server := serve(t)
	var dialer lifeline.Dialer
	transport := &http.Transport{DialContext: dialer.DialContext}
	said := try(t, func(t *trial) {
		lifelinetest.NoLeaks(t)
		if err := get(&http.Client{Transport: transport}, server.URL); err != nil {
			t.Errorf("%v", err)
		}
	})
	mustSay(t, said, "TestPooledConnection left open, 3s after its end:\n\ntcp connection, "+server.Listener.Addr().String(),
		"asked for by lifelinetest_test.get lifelinetest_test.go:", "call CloseIdleConnections of the one that lifelinetest_test.get ")
	transport.CloseIdleConnections()
}

// The same without package lifeline: goroutines remain, whatever dialed.
func TestPooledGoroutines(t *testing.T) {
	t.Parallel()
	server, transport := serve(t), &http.Transport{}
	said := try(t, func(t *trial) {
		lifelinetest.NoLeaks(t)
		if err := get(&http.Client{Transport: transport}, server.URL); err != nil {
			t.Errorf("%v", err)
		}
	})
	mustSay(t, said, "goroutine [IO wait] in ", "goroutine [select] in net/http.(*persistConn).writeLoop", "make one client and reuse it", "GODEBUG=tracebackancestors=10")
	transport.CloseIdleConnections()
}

func TestUnclosedBody(t *testing.T) {
	t.Parallel()
	server, transport := serve(t), &http.Transport{}
	var response *http.Response
	said := try(t, func(t *trial) {
		lifelinetest.NoLeaks(t)
		response, _ = (&http.Client{Transport: transport}).Get(server.URL)
	})
	mustSay(t, said, "close the Body of the response")
	response.Body.Close()
	transport.CloseIdleConnections()
}

// Tests beside one another are told apart, and what is closed late is no leak.
func TestParallelTests(t *testing.T) {
	t.Parallel()
	server := serve(t)
	var together sync.WaitGroup
	for i := range 8 {
		together.Go(func() {
			release := make(chan struct{})
			said := try(t, func(t *trial) {
				lifelinetest.NoLeaks(t)
				var dialer lifeline.Dialer
				conn, err := dialer.DialContext(context.Background(), "tcp", server.Listener.Addr().String())
				if err != nil {
					t.Errorf("%v", err)
					return
				}
				time.AfterFunc(200*time.Millisecond, func() { conn.Close() })
				if i%2 == 1 {
					go func() { <-release }()
				}
			})
			close(release)
			if wrong := i%2 == 1; wrong != strings.Contains(said, "TestParallelTests.func1.1") {
				t.Errorf("%d: %s", i, said)
			}
		})
	}
	together.Wait()
}

func TestNothingLeft(t *testing.T) {
	lifelinetest.NoLeaks(t)
	server := serve(t)
	var dialer lifeline.Dialer
	client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
	defer client.CloseIdleConnections()
	if err := get(client, server.URL); err != nil {
		t.Error(err)
	}
	scope := lifeline.NewScope("in the test")
	defer scope.Close()
	if _, err := (&lifeline.Dialer{Scope: scope}).Dial("tcp", server.Listener.Addr().String()); err != nil {
		t.Error(err)
	}
}

func TestFilesOfATestAlone(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // whose descriptors are not known
	}
	var file *os.File
	var conn net.Conn
	server := serve(t)
	said := ""
	t.Run("inner", func(t *testing.T) {
		inner := &trial{TB: t, name: t.Name()}
		lifelinetest.NoLeaks(inner)
		file, _ = os.Open(os.DevNull)
		conn, _ = net.Dial("tcp", server.Listener.Addr().String())
		inner.cleanups[0]()
		said = inner.said
	})
	mustSay(t, said, "file descriptor ", ": /dev/null", conn.LocalAddr().String()+" to "+conn.RemoteAddr().String())
	file.Close()
	conn.Close()
}

func TestInABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		said := try(t, func(t *trial) {
			lifelinetest.NoLeaks(t)
			go func() { <-stop }()
		})
		close(stop)
		mustSay(t, said, "goroutine [chan receive")
	})
}

func TestIgnored(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	said := try(t, func(t *trial) {
		lifelinetest.Check{Ignore: []string{"github.com/lifeline-go/lifeline/lifelinetest_test.forever"}}.NoLeaks(t)
		go forever(stop)
	})
	close(stop)
	if said != "" {
		t.Error(said)
	}
}

//go:noinline
func forever(stop chan struct{}) { <-stop }

// A test that failed is not accused of what it left on top of that.
func TestFailedIsEnough(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	defer close(stop)
	said := try(t, func(t *trial) {
		lifelinetest.NoLeaks(t)
		go func() { <-stop }()
		t.Errorf("failed")
	})
	if said != "failed" {
		t.Error(said)
	}
}

// TestMain's form fails the binary, and with ancestors the line is named where
// nobody waits any more.
func TestWholeBinary(t *testing.T) {
	if os.Getenv("LIFELINETEST_LEAK") != "" {
		server := httptest.NewServer(http.NotFoundHandler())
		_ = get(&http.Client{Transport: &http.Transport{}}, server.URL)
		return
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^TestWholeBinary$")
	cmd.Env = append(os.Environ(), "LIFELINETEST_LEAK=1", "GODEBUG=tracebackancestors=10")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Error("it passed")
	}
	mustSay(t, string(out), "lifelinetest: left open, 3s after the last test:", "asked for by lifelinetest_test.get lifelinetest_test.go:",
		"call CloseIdleConnections", "call Close or Shutdown of the http.Server", "file descriptor ")
}
