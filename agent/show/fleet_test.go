package show

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

func TestFleetText(t *testing.T) {
	var answers []fact.HostAnswer
	for i := range 9 {
		answers = append(answers, fact.HostAnswer{Host: fmt.Sprintf("web%02d", i+1), Outcome: fact.OutcomeOK, Exit: fact.Seen(0), Phase: "run", Stdout: []byte("6.1\nx\ny\n")})
	}
	answers[2].Stdout = []byte("5.10\nx\ny\n")
	answers[6].Stdout, answers[6].Truncated = []byte("\x1b[2Jgotcha"), true
	answers[7] = fact.HostAnswer{Host: "web08", Outcome: fact.OutcomeFailed, Exit: fact.Seen(3), Phase: "run", Reason: "exited with status 3", Command: "make"}
	answers[8] = fact.HostAnswer{Host: "web09", Outcome: fact.OutcomeUnreachable, Phase: "run", Reason: "the peer is silent", MayHaveRun: true}

	var b bytes.Buffer
	stdout := func(a *fact.HostAnswer) []byte { return a.Stdout }
	if err := Outputs(&b, Gather(answers, stdout), true); err != nil {
		t.Error(err)
	}
	b.WriteString("\n")
	if err := Differences(&b, Gather(answers[:6], stdout), true); err != nil {
		t.Error(err)
	}
	b.WriteString("\n")
	FleetSummary(&b, answers, 1500*time.Millisecond)
	const want = `-------------------
web[01-02,04-06] (5)
-------------------
6.1
x
y
---------------
web03
---------------
5.10
x
y
---------------
web07
---------------
\x1b[2Jgotcha
(there was more)

-------------------
web[01-02,04-06] (5)
-------------------
6.1
x
y
--- web[01-02,04-06] (5)
+++ web03
@@ -1,3 +1,3 @@
-6.1
+5.10
 x
 y

web07: there was more output than was kept
web08: exited with status 3; at: make
web09: unreachable in the middle of the command: the peer is silent; the command may have run
9 hosts: 7 ok, 1 failed, 1 unreachable, in 1.5 s
`
	if got := b.String(); got != strings.ReplaceAll(want, "-------------------\n", "--------------------\n") {
		t.Errorf("%s", got)
	}
}

func TestHarmless(t *testing.T) {
	for in, want := range map[string]string{
		"plain\n\ttext": "plain\n\ttext",
		"a\r\nb\x07":    `a` + "\n" + `b\a`,
		"\x1b]0;x\x07":  `\x1b]0;x\a`,
		"ok é\xff\n":    "ok é\\xff\n",
		"back\rwards\n": `back\rwards` + "\n",
	} {
		if got := string(Harmless([]byte(in))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// What Unified says must turn one text into the other.
func TestUnified(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	text := func() string {
		var b strings.Builder
		for range random.IntN(30) {
			fmt.Fprintf(&b, "%c\n", 'a'+rune(random.IntN(4)))
		}
		return b.String()
	}
	for range 2000 {
		from, to := text(), text()
		edits, ok := compare(linesOf(from), linesOf(to))
		var back, forth strings.Builder
		for _, e := range edits {
			if e.kind != '+' {
				back.WriteString(e.text + "\n")
			}
			if e.kind != '-' {
				forth.WriteString(e.text + "\n")
			}
		}
		if !ok || back.String() != from || forth.String() != to {
			t.Fatalf("%q and %q: %v", from, to, edits)
		}
	}
	var a, b strings.Builder
	for i := range 40 {
		fmt.Fprintf(&a, "%d\n", i)
		if i != 5 && i != 30 {
			fmt.Fprintf(&b, "%d\n", i)
		}
	}
	const want = "--- a\n+++ b\n@@ -3,7 +3,6 @@\n 2\n 3\n 4\n-5\n 6\n 7\n 8\n@@ -28,7 +27,6 @@\n 27\n 28\n 29\n-30\n 31\n 32\n 33\n"
	if got := Unified("a", "b", a.String(), b.String()); got != want {
		t.Errorf("%s", got)
	}
	if got := Unified("a", "b", strings.Repeat("x\n", 5000), strings.Repeat("y\n", 5000)); got != "--- a\n+++ b\n(they differ in more than 1000 lines)\n" {
		t.Errorf("%s", got)
	}
	if got := Unified("a", "b", "", "x"); got != "--- a\n+++ b\n@@ -0,0 +1,1 @@\n+x (without an end of line)\n" {
		t.Errorf("%s", got)
	}
}
