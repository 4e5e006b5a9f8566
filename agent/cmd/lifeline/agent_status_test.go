package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/agent/daemon"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/web"
	"github.com/lifeline-go/lifeline/internal/need"
)

// Without an agent, or with something else there, it says so at once.
func TestAgentStatusWithoutAgent(t *testing.T) {
	nobody := "http://" + need.Address(t)
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write([]byte(`{"error":"\u001b]0;owned\u0007"}`))
	}))
	defer evil.Close()
	closed := httptest.NewUnstartedServer(nil)
	closed.Config.Handler = web.Handler(web.Options{Agent: daemon.New(daemon.Options{Passive: true}), Listen: closed.Listener.Addr().String(), Token: "0123456789abcdef"})
	closed.Start()
	defer closed.Close()
	for _, c := range []struct {
		agent, says string
		code        int
	}{{nobody, "no agent at ", exitBlind}, {other.URL, "no agent at ", exitBlind}, {evil.URL, `\x1b]0;owned\a`, exitBlind},
		{closed.URL, "wants its token: --token-file FILE", exitBlind}, {"127.0.0.1:7117", "is no address of an agent", exitUsage}} {
		out, errs, code := lifeline(t, "agent", "status", "--agent", c.agent)
		if code != c.code || out != "" || strings.Contains(errs, "\x1b") || !strings.Contains(errs, c.says) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q, %q", c.agent, code, out, errs)
		}
	}
}

// It waits until an agent that has just begun has looked, and not for ever.
func TestAgentStatus(t *testing.T) {
	t.Parallel()
	of, err := node.ParseNamespaces(apart(t))
	if err != nil {
		t.Fatal(err)
	}
	d := daemon.New(daemon.Options{Passive: true, Namespaces: of})
	server := httptest.NewUnstartedServer(nil)
	server.Config.Handler = web.Handler(web.Options{Agent: d, Listen: server.Listener.Addr().String()})
	server.Start()
	defer server.Close()
	out, errs, code := lifeline(t, "agent", "status", "--agent", server.URL, "--wait", "2s") // a busy machine takes its time to answer at all
	if code != exitWell || !strings.Contains(out, "could not be looked at") {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
	go func() { _ = d.Run(t.Context()) }()
	out, errs, code = lifeline(t, "agent", "status", "--agent", server.URL, "--wait", "1m", "--json")
	var s state.State
	if err := json.Unmarshal([]byte(out), &s); err != nil || code > exitFindings || s.Totals.Looked.IsZero() {
		t.Errorf("exit code %d, %v, looked %v: %s", code, err, s.Totals.Looked, errs)
	}
	for _, p := range s.Promises {
		if p.Looked == nil && p.Status != state.Broken {
			t.Errorf("%s was not waited for", p.Promise)
		}
	}
}
