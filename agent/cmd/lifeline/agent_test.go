package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// event is a line of lifeline agent --json.
type event struct {
	Msg, Level, Page, Code, Title, ID string
	Source, Error, Needs              string

	Subject, Evidence map[string]any
	Fix               []string
}

// A process of its own watches: it says where its page is, a process that has
// nearly all files open is found and served, and SIGTERM ends it well.
func TestAgent(t *testing.T) {
	t.Parallel()
	full := nearlyFull(t)
	sent := make(chan string, 100)
	receiver := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		sent <- r.URL.Path + " " + r.Header.Get("Authorization")
	}))
	defer receiver.Close()
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: receiver.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("lifeline", "agent", "--listen", "127.0.0.1:0", "--passive", "--json", "--history", "none", "--netns", apart(t), "--otlp", receiver.URL)
	cmd.Env = append(os.Environ(), "OTEL_EXPORTER_OTLP_CERTIFICATE="+authority, "OTEL_EXPORTER_OTLP_HEADERS=Authorization=Bearer%20correct%2Bhorse")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }() // when the test fails; else it has ended
	late := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	lines := bufio.NewScanner(out)
	next := func(fits func(event) bool) (e event) {
		t.Helper()
		for lines.Scan() {
			if e = (event{}); json.Unmarshal(lines.Bytes(), &e) != nil {
				t.Fatalf("no JSON: %s", lines.Text())
			}
			if fits(e) {
				return e
			}
		}
		t.Fatalf("it ended before it said that: %v: %s", lines.Err(), errs.String())
		return e
	}
	page := next(func(e event) bool { return e.Msg == "watching" }).Page
	if body := fetch(t, page+"healthz"); !strings.Contains(body, `"ok":true`) {
		t.Errorf("healthz: %s", body)
	}
	slackOf(t, cmd.Process.Pid)
	about := fmt.Sprintf("pid %d", full)
	found := next(func(e event) bool { return e.Msg == "finding" && e.Code == "L001" && strings.Contains(e.Title, about) })
	if found.Level == "INFO" || found.Subject["pid"] != float64(full) || len(found.Evidence) == 0 || len(found.Fix) == 0 {
		t.Errorf("the finding is told as %+v", found)
	}
	select {
	case what := <-sent:
		if what != "/v1/logs Bearer correct+horse" {
			t.Errorf("the OTLP receiver is asked for %s first", what)
		}
	case <-time.After(time.Minute):
		t.Error("the OTLP receiver is told nothing")
	}
	for path, has := range map[string]string{"": "L001", "api/v1/findings": about, "api/v1/state": `"schema":"lifeline/v1"`, "metrics": "lifeline_"} {
		if body := fetch(t, page+path); !strings.Contains(body, has) {
			t.Errorf("%s has no %s: %.300s", path, has, body)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	next(func(e event) bool { return e.Msg == "ended" })
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil || errs.Len() > 0 {
		t.Errorf("it ended with %v: %s", err, errs.String())
	}
	if c, err := net.Dial("tcp", strings.Trim(strings.TrimPrefix(page, "http://"), "/")); err == nil {
		c.Close()
		t.Error("somebody still listens")
	}
}

// slackOf sees to it that no thread of an agent asks to be woken to the microsecond.
func slackOf(t *testing.T, pid int) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(threads) < 3 {
		t.Fatalf("threads %v, %v", threads, err)
	}
	for _, thread := range threads {
		slack, err := os.ReadFile(filepath.Join("/proc", filepath.Base(thread), "timerslack_ns")) // which task/ has not
		if err == nil && strings.TrimSpace(string(slack)) != fmt.Sprint(timerSlack) {
			t.Errorf("thread %s: %s", thread, slack)
		}
	}
}

// nearlyFull starts a process that has 96 of 100 files open.
func nearlyFull(t *testing.T) int {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd := exec.Command("sleep", "600")
	for range 93 {
		cmd.ExtraFiles = append(cmd.ExtraFiles, null)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if err := unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: 100}, nil); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, r.Status, err)
	}
	return string(text)
}

func TestAgentFlags(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", "0123456789abcdef\n", 0o600)
	for _, c := range []struct{ listen, token, says string }{
		{"127.0.0.1:7117", "", ""},
		{"[::1]:0", "", ""},
		{"localhost:7117", "", ""},
		{"0.0.0.0:7117", good, ""},
		{"192.0.2.7:7117", "", "add --token-file"},
		{"0.0.0.0:7117", "", "add --token-file"},
		{"[::]:7117", "", "add --token-file"},
		{":7117", "", "names no address"},
		{"example.com:7117", good, "no IP address"},
		{"7117", "", "is no address"},
		{"127.0.0.1:7117", file("open", "0123456789abcdef", 0o644), "chmod 600"},
		{"127.0.0.1:7117", file("short", "123", 0o600), "no good token"},
		{"127.0.0.1:7117", file("two", "0123456789 abcdef", 0o600), "no good token"},
		{"127.0.0.1:7117", filepath.Join(dir, "none"), "no such file"},
	} {
		token, err := (&agentFlags{listen: c.listen, tokenFile: c.token}).check()
		if c.says == "" && (err != nil || c.token != "" && token != "0123456789abcdef") || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s with %s: %q, %v", c.listen, c.token, token, err)
		}
	}
	if _, errs, code := lifeline(t, "agent", "--listen", "0.0.0.0:0"); code != exitUsage || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

// Each finding is one line when it comes and one when it goes; what a cause explains
// is none.
func TestAgentTells(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	look := func(open map[string]bool, findings ...state.Finding) map[string]bool {
		now := make(map[string]bool)
		for i := range findings {
			tellFinding(log, &findings[i], open, now)
		}
		return now
	}
	one := state.Finding{Finding: verdict.Finding{Code: "S001", Severity: verdict.Fail, Title: "10.77.1.2 is silent"}, ID: "one", Count: 4224}
	hidden := state.Finding{Finding: verdict.Finding{Code: "S002", Severity: verdict.Warn}, ID: "two", Cause: "one"}
	open := look(nil, one, hidden)
	open = look(open, one, hidden)
	over := one
	end := time.Now()
	over.Resolved = &end
	open = look(open, over)
	look(open, over)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "level=ERROR msg=finding ") || !strings.Contains(lines[0], "count=4224") || !strings.Contains(lines[1], `msg="finding is over"`) {
		t.Errorf("it told:\n%s", out.String())
	}
}
