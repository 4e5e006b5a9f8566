package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/web/chromium"
	"github.com/lifeline-go/lifeline/internal/need"
)

// The page of a real agent in a real browser: it shows what is found here, who
// talks to whom and since when, stays when the agent is killed, and goes on with
// the next one.
func TestAgentPage(t *testing.T) {
	t.Parallel()
	need.Root(t)
	need.Program(t, "chromium")
	full := nearlyFull(t)
	box := lab.New(t).Host("box")
	l := box.Listen("tcp", "127.0.0.1:0")
	connected(t, box, l)
	history := filepath.Join(t.TempDir(), "history.db")
	w := keeping(t, box.Path(), history)
	w.until("the process that has nearly all files open", func(s *state.State) bool {
		return slices.ContainsFunc(s.Findings, func(f state.Finding) bool { return f.Code == "L001" }) && s.Totals.Sockets > 0
	})

	p := chromium.Start(t).Page(t)
	p.Go(w.page)
	p.Until(`document.querySelector("body.app article")`)
	p.Has(fmt.Sprintf("pid %d", full))
	p.Keys("2")
	p.Until(`document.querySelector("canvas").style.width`)
	p.Click("main input.filter")
	p.Type(l.Addr().String()[len("127.0.0.1"):]) // the port that is served
	p.Until(`document.querySelectorAll("main tbody tr").length === 1`)
	p.Click("main tbody td.links a")
	p.Until(`document.querySelector(".drawer tbody").innerText.includes("lifeline.test")`)
	p.Keys("Escape")
	w.span(func(s state.Span) bool { return s.Records > 0 })
	p.Keys("7")
	p.Has("record")
	p.Until(`document.querySelector(".chart canvas")`)

	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
	w.ended = true
	p.Has("No connection to the agent since")
	address := strings.Trim(strings.TrimPrefix(w.page, "http://"), "/")
	again := watching(t, nil, exec.Command("lifeline", "agent", "--listen", address, "--passive", "--json", "--netns", box.Path(), "--history", history))
	p.Has("the agent was restarted at")
	p.Keys("1")
	p.Has(fmt.Sprintf("pid %d", full))
	for _, url := range p.Requests() {
		if !strings.HasPrefix(url, w.page) && !strings.HasPrefix(url, "data:") {
			t.Errorf("the page asked for %s", url)
		}
	}
	again.end()
}
