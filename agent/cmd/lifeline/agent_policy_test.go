package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
)

// A running agent reads its policy again on SIGHUP. With an error in it the old
// one stays in force and the page says so; findings go to the webhook.
func TestAgentPolicy(t *testing.T) {
	t.Parallel()
	about := fmt.Sprintf("pid %d)", nearlyFull(t))
	told := make(chan string, 1000)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var alerts []struct{ Labels, Annotations map[string]string }
		if err := json.NewDecoder(r.Body).Decode(&alerts); err != nil {
			t.Error(err)
		}
		for _, a := range alerts {
			told <- a.Labels["code"] + " " + a.Annotations["summary"]
		}
	}))
	defer receiver.Close()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ignore:\n  codes: [S003]\n")
	cmd := exec.Command("lifeline", "agent", "--listen", "127.0.0.1:0", "--passive", "--json", "--history", "none", "--netns", apart(t), "--policy", file, "--webhook", receiver.URL+"/api/v2/alerts")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	lines := json.NewDecoder(out)
	next := func(msg string) (e event) {
		t.Helper()
		for e.Msg != msg {
			if err := lines.Decode(&e); err != nil {
				t.Fatalf("it ended before it said %q: %v", msg, err)
			}
		}
		return e
	}
	page := next("watching").Page
	policyIs := func(fits func(state.Policy) bool) {
		t.Helper()
		var s struct {
			Agent struct{ Policy state.Policy }
		}
		for deadline := time.Now().Add(time.Minute); !fits(s.Agent.Policy); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the policy is said to be %+v", s.Agent.Policy)
			}
			if err := json.Unmarshal([]byte(fetch(t, page+"api/v1/state")), &s); err != nil {
				t.Fatal(err)
			}
		}
	}
	policyIs(func(p state.Policy) bool { return p.Path == file && p.Error == "" })
	for got := ""; !strings.HasPrefix(got, "L001") || !strings.Contains(got, about); {
		select {
		case got = <-told:
		case <-time.After(time.Minute):
			t.Fatal("the webhook was not told of the process that has nearly all files open")
		}
	}
	write("ignore:\n  code: [L001]\n")
	_ = cmd.Process.Signal(syscall.SIGHUP)
	next("policy not read, the one before stays")
	policyIs(func(p state.Policy) bool { return strings.Contains(p.Error, "line 2: ") })
	if text := fetch(t, page+"metrics"); !strings.Contains(text, "\nlifeline_policy_valid 0") || !strings.Contains(text, "\nlifeline_webhook_alerts_sent_total") {
		t.Error("/metrics does not say so")
	}
	write("ignore:\n  codes: [L001]\n")
	_ = cmd.Process.Signal(syscall.SIGHUP)
	next("policy read")
	policyIs(func(p state.Policy) bool { return p.Error == "" })
	for deadline := time.Now().Add(time.Minute); strings.Contains(fetch(t, page+"api/v1/findings"), about); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what the policy ignores is still shown")
		}
	}
}

func TestPolicyThatCannotBeKept(t *testing.T) {
	for text, want := range map[string]string{
		"acts: {cut: {on: [S001]}}":   "--passive",
		"acts:\n  cut: {on: [S002]}":  "line 2: cut does not act on S002",
		"watch: {names: [a.example]}": "--passive",
		"wach: 1":                     "line 1: ",
	} {
		file := filepath.Join(t.TempDir(), "policy.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readAgentPolicy(file, "", true); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := readAgentPolicy("", "there", false); err == nil || !strings.Contains(err.Error(), "--webhook") {
		t.Errorf("%v", err)
	}
	if _, err := readAgentPolicy("/no/such/file", "", false); err == nil {
		t.Error("no file is no error")
	}
}
