package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/state"
)

// watcher is a lifeline agent that runs as a process of its own.
type watcher struct {
	t      *testing.T
	cmd    *exec.Cmd
	page   string
	log    *json.Decoder
	errs   bytes.Buffer
	client http.Client
	ended  bool
}

// watching starts an agent and waits until it says where its page is. Host is
// where it runs; nil is here.
func watching(t *testing.T, host *lab.Host, cmd *exec.Cmd) *watcher {
	t.Helper()
	w := &watcher{t: t, cmd: cmd}
	cmd.Stderr = &w.errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	dial := func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		if host == nil {
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
		err = host.Do(func() (err error) { conn, err = net.DialTimeout(network, addr, 10*time.Second); return err })
		return conn, err
	}
	w.client = http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(4*time.Minute, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		late.Stop()
		if !w.ended {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	w.log = json.NewDecoder(out)
	w.page = w.next("watching").Page
	return w
}

// apart is a network namespace with nobody in it, for agents of which a test wants
// something else than sockets to be seen: in the others are those of all tests. Who
// is not root has none but its own.
func apart(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		return "self"
	}
	return lab.New(t).Host("apart").Path()
}

// next returns the next line of the log with this message.
func (w *watcher) next(msg string) (e event) {
	w.t.Helper()
	for e.Msg != msg {
		e = event{}
		if err := w.log.Decode(&e); err != nil {
			_ = w.cmd.Process.Kill() // then all is there that it said
			_ = w.cmd.Wait()
			w.ended = true
			w.t.Fatalf("it ended before it said %q: %v\n%s", msg, err, w.errs.String())
		}
	}
	return e
}

// until asks for its state until one fits.
func (w *watcher) until(what string, fits func(*state.State) bool) *state.State {
	w.t.Helper()
	for deadline := time.Now().Add(100 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var s state.State
		text := w.get("api/v1/state")
		if err := json.Unmarshal(text, &s); err != nil {
			w.t.Fatal(err)
		}
		if fits(&s) {
			return &s
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: it never said so; the last is %s", what, text)
		}
	}
}

func (w *watcher) get(path string) []byte {
	w.t.Helper()
	r, err := w.client.Get(w.page + path)
	if err != nil {
		w.t.Fatalf("%v\n%s", err, w.errs.String())
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

// end asks it to end, which it does within 5 s where the machine is not busy.
func (w *watcher) end() {
	w.t.Helper()
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	began := time.Now()
	for { // Wait must not take what was not read
		var e event
		if err := w.log.Decode(&e); err != nil {
			break
		}
	}
	_ = w.cmd.Wait()
	w.ended = true
	if took := time.Since(began); took > 20*time.Second {
		w.t.Errorf("it took %v to end", took)
	}
}

// sourceOf is one of its sources; the zero Source when there is none.
func sourceOf(s *state.State, name string) state.Source {
	for _, src := range s.Sources {
		if src.Name == name {
			return src
		}
	}
	return state.Source{}
}
