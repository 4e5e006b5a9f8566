package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/internal/need"
)

// An agent says where in a Go program a call waits, although its connection is
// alive: NewSession that blocks for ever.
func TestAgentCalls(t *testing.T) {
	t.Parallel()
	need.Root(t)
	path := target(t, "story")
	_, address := begin(t, path, "host")
	pid, _ := begin(t, path, "manager", address)
	w := watching(t, nil, exec.Command(quick(t), "agent", "--listen", "127.0.0.1:0", "--passive", "--json", "--history", "none", "--netns", "self"))
	w.until("the goroutine that waits", func(s *state.State) bool {
		return slices.ContainsFunc(s.Calls, func(c state.Waiting) bool {
			return int(c.PID) == pid && c.Process == "story" && len(c.Goroutines) == 1 &&
				strings.HasPrefix(c.Goroutines[0], "an SSH channel to be confirmed main.reconcile (")
		})
	})
	w.end()
}
