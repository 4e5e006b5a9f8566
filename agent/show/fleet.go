package show

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/nodeset"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// fleetHost is fact.HostAnswer in JSON.
type fleetHost struct {
	Host       string       `json:"host"`
	Outcome    fact.Outcome `json:"outcome"`
	Exit       *int         `json:"exit"`
	Signal     *string      `json:"signal"`
	Phase      *string      `json:"phase"`
	Reason     *string      `json:"reason"`
	Detail     *string      `json:"detail"`
	MayHaveRun bool         `json:"may_have_run"`
	Command    *string      `json:"command"`
	Attempts   int          `json:"attempts"`
	Started    *time.Time   `json:"started"`
	MS         float64      `json:"ms"`
	Stdout     string       `json:"stdout"`
	Stderr     string       `json:"stderr"`
	Truncated  bool         `json:"truncated"`
	Copied     *fleetCopied `json:"copied"`
}

type fleetCopied struct {
	Files   int      `json:"files"`
	Bytes   int64    `json:"bytes"`
	Resumed int64    `json:"resumed_bytes"`
	Skipped []string `json:"skipped"`
}

// FleetJSON writes what hosts answered as one document; in one line where there
// will be others. Output that is not UTF-8 has U+FFFD where it is not. Hosts are
// written one by one: all that they said may be a lot.
func FleetJSON(w io.Writer, m *fact.Machine, answers []fact.HostAnswer, took time.Duration, line bool) error {
	counts := make(map[fact.Outcome]int)
	for _, o := range fact.Outcomes {
		counts[o] = 0
	}
	for i := range answers {
		counts[answers[i].Outcome]++
	}
	var frame bytes.Buffer
	err := encode(&frame, struct {
		Head
		Counts map[fact.Outcome]int `json:"counts"`
		MS     float64              `json:"ms"`
		Hosts  []struct{}           `json:"hosts"`
	}{head(m), counts, milliseconds(took), []struct{}{}}, line)
	if err != nil {
		return err
	}
	start, inner, end := "", "", "]}\n"
	if !line {
		start, inner, end = "\n    ", "    ", "\n  ]\n}\n"
	}
	out := bufio.NewWriterSize(w, 64<<10)
	before := bytes.LastIndexByte(frame.Bytes(), '[') + 1 // hosts are the last of it
	_, _ = out.Write(frame.Bytes()[:before])              // the error of out stays
	for i := range answers {
		if i > 0 {
			_ = out.WriteByte(',')
		}
		_, _ = out.WriteString(start)
		e := json.NewEncoder(&lastLine{to: out})
		e.SetEscapeHTML(false)
		if !line {
			e.SetIndent(inner, "  ")
		}
		if err := e.Encode(jsonOf(&answers[i])); err != nil {
			return err
		}
	}
	_, _ = out.WriteString(end)
	return out.Flush()
}

// lastLine leaves out the end of line that json.Encoder writes last.
type lastLine struct{ to io.Writer }

func (l *lastLine) Write(p []byte) (int, error) {
	n, err := l.to.Write(bytes.TrimSuffix(p, []byte("\n")))
	if err == nil {
		n = len(p)
	}
	return n, err
}

func jsonOf(a *fact.HostAnswer) fleetHost {
	h := fleetHost{
		Host: a.Host, Outcome: a.Outcome, Signal: given(a.Signal), Phase: given(a.Phase), Reason: given(a.Reason), Detail: given(a.Detail), MayHaveRun: a.MayHaveRun,
		Command: given(a.Command), Attempts: a.Attempts, MS: milliseconds(a.Took),
		Stdout: string(a.Stdout), Stderr: string(a.Stderr), Truncated: a.Truncated,
	}
	if exit, ok := a.Exit.Get(); ok {
		h.Exit = &exit
	}
	if !a.Started.IsZero() {
		started := a.Started.Round(0)
		h.Started = &started
	}
	if c := a.Copied; c != nil {
		h.Copied = &fleetCopied{c.Files, c.Bytes, c.Resumed, append([]string{}, c.Skipped...)}
	}
	return h
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
}

// Output is what hosts wrote alike.
type Output struct {
	Hosts []string
	Text  []byte
	Cut   bool // there was more
}

// Gather puts hosts together that wrote the same, most hosts first; those that
// wrote nothing are left out.
func Gather(answers []fact.HostAnswer, of func(*fact.HostAnswer) []byte) (groups []Output) {
	at := make(map[string]int)
	for i := range answers {
		a := &answers[i]
		text := of(a)
		if len(text) == 0 {
			continue
		}
		key := fmt.Sprintf("%t%s", a.Truncated, text)
		g, there := at[key]
		if !there {
			g = len(groups)
			at[key] = g
			groups = append(groups, Output{Text: text, Cut: a.Truncated})
		}
		groups[g].Hosts = append(groups[g].Hosts, a.Host)
	}
	slices.SortStableFunc(groups, func(a, b Output) int { return cmp.Compare(len(b.Hosts), len(a.Hosts)) })
	return groups
}

// Outputs writes each output once, with the hosts that it is from. On a terminal
// what hosts wrote is made harmless.
func Outputs(w io.Writer, groups []Output, terminal bool) error {
	for _, g := range groups {
		text := g.Text
		if terminal {
			text = Harmless(text)
		}
		title := title(g.Hosts)
		rule := strings.Repeat("-", min(max(utf8.RuneCountInString(title), 15), 80))
		end := ""
		if !bytes.HasSuffix(text, []byte("\n")) {
			end = "\n"
		}
		if g.Cut {
			end += "(there was more)\n"
		}
		if _, err := fmt.Fprintf(w, "%s\n%s\n%s\n%s%s", rule, title, rule, text, end); err != nil {
			return err
		}
	}
	return nil
}

func title(hosts []string) string {
	if len(hosts) == 1 {
		return hosts[0]
	}
	return fmt.Sprintf("%s (%s)", nodeset.Fold(hosts), verdict.Number(len(hosts)))
}

// Differences writes the output that most hosts have in common, and of the
// others how they differ from it.
func Differences(w io.Writer, groups []Output, terminal bool) error {
	if len(groups) == 0 {
		return nil
	}
	if err := Outputs(w, groups[:1], terminal); err != nil {
		return err
	}
	for _, g := range groups[1:] {
		text := Unified(title(groups[0].Hosts), title(g.Hosts), string(groups[0].Text), string(g.Text))
		if terminal {
			text = string(Harmless([]byte(text)))
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return nil
}

// FleetSummary writes which hosts did not do well, those alike together, and
// how many there are of each.
func FleetSummary(w io.Writer, answers []fact.HostAnswer, took time.Duration) {
	FleetFaults(w, answers)
	FleetCounts(w, answers, took)
}

// FleetFaults writes which hosts did not do well, those alike together.
func FleetFaults(w io.Writer, answers []fact.HostAnswer) {
	hosts := make(map[string][]string)
	var order []string
	for i := range answers {
		a := &answers[i]
		if a.Outcome == fact.OutcomeOK && a.Reason == "" && !a.Truncated {
			continue
		}
		line := wrong(a)
		if hosts[line] == nil {
			order = append(order, line)
		}
		hosts[line] = append(hosts[line], a.Host)
	}
	for _, line := range order {
		fmt.Fprintf(w, "%s: %s\n", title(hosts[line]), line)
	}
}

// FleetCounts writes how many hosts there are of each outcome, and what was
// copied.
func FleetCounts(w io.Writer, answers []fact.HostAnswer, took time.Duration) {
	counts := make(map[fact.Outcome]int)
	var copied *fact.Copied
	for i := range answers {
		a := &answers[i]
		counts[a.Outcome]++
		if a.Copied != nil {
			if copied == nil {
				copied = &fact.Copied{}
			}
			copied.Files += a.Copied.Files
			copied.Bytes += a.Copied.Bytes
			copied.Resumed += a.Copied.Resumed
		}
	}
	separator := " hosts: "
	if len(answers) == 1 {
		separator = " host: "
	}
	fmt.Fprint(w, verdict.Number(len(answers)))
	for _, o := range fact.Outcomes {
		if counts[o] > 0 {
			fmt.Fprintf(w, "%s%s %s", separator, verdict.Number(counts[o]), outcomeWords(o))
			separator = ", "
		}
	}
	if copied != nil {
		files := "files"
		if copied.Files == 1 {
			files = "file"
		}
		fmt.Fprintf(w, "; %s %s, %s copied", verdict.Number(copied.Files), files, Size(copied.Bytes))
		if copied.Resumed > 0 {
			fmt.Fprintf(w, " and %s were there", Size(copied.Resumed))
		}
	}
	fmt.Fprintf(w, ", in %s\n", bound.Format(took.Round(time.Millisecond)))
}

// Size writes a number of bytes as people say it.
func Size(bytes int64) string {
	if bytes < 1<<10 {
		return fmt.Sprintf("%d B", bytes)
	}
	n, unit := float64(bytes)/(1<<10), 0
	for n >= 1000 && unit < 3 {
		n, unit = n/(1<<10), unit+1
	}
	return fmt.Sprintf("%.3g %ciB", n, "KMGT"[unit])
}

func outcomeWords(o fact.Outcome) string { return strings.ReplaceAll(string(o), "_", " ") }

// wrong says in a line what is to be said of a host.
func wrong(a *fact.HostAnswer) string {
	text := a.Reason
	if a.Outcome == fact.OutcomeUnreachable {
		text = "unreachable"
		if a.Phase != "" {
			text += " " + phaseWords(a.Phase)
		}
		text += ": " + a.Reason
	}
	parts := []string{}
	if text != "" {
		parts = append(parts, text)
	}
	if a.MayHaveRun {
		parts = append(parts, "the command may have run")
	}
	if a.Truncated {
		parts = append(parts, "there was more output than was kept")
	}
	if a.Command != "" && a.Outcome != fact.OutcomeOK {
		parts = append(parts, "at: "+a.Command)
	}
	return strings.Join(parts, "; ")
}

// phaseWords says of a phase when it was.
func phaseWords(phase string) string {
	switch phase {
	case "connect":
		return "while connecting"
	case "handshake":
		return "in the SSH handshake"
	case "open":
		return "while opening a session"
	case "request":
		return "when asked to run the command"
	case "run":
		return "in the middle of the command"
	case "copy":
		return "in the middle of the copy"
	default:
		return "in " + phase
	}
}

// Harmless returns text of a host that is not trusted such that a terminal
// shows it and does nothing else. Lines and tabs stay.
func Harmless(text []byte) []byte {
	if !bytes.ContainsFunc(text, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
		return text
	}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		body, newline := strings.CutSuffix(line, "\n")
		body = strings.TrimSuffix(body, "\r")
		for i, field := range strings.Split(body, "\t") {
			if i > 0 {
				b.WriteByte('\t')
			}
			b.WriteString(fact.Printable(field))
		}
		if newline {
			b.WriteByte('\n')
		}
	}
	return []byte(b.String())
}
