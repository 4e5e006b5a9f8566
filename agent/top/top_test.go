package top

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

var update = flag.Bool("update", false, "write the screens as they are now")

// TestScreens plays the files of testdata: commands, a line ----, the screen that
// must be there then, a line ====, more commands …
func TestScreens(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			p := &play{T: t, now: began}
			for scene := range strings.SplitSeq(string(text), "====\n") {
				commands, want, _ := strings.Cut(scene, "----\n")
				for command := range strings.Lines(commands) {
					p.do(strings.TrimSpace(command))
				}
				got := p.screen()
				if want = strings.TrimSuffix(want, "\n"); !*update && got != want {
					t.Errorf("after\n%sthe screen is\n%s\nand not\n%s", commands, got, want)
				}
				out = append(out, commands+"----\n"+got+"\n")
			}
			if *update {
				if err := os.WriteFile(file, []byte(strings.Join(out, "====\n")), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// play is a screen under commands.
type play struct {
	*testing.T
	*Screen
	now  time.Time
	hold bool // questions are not answered
}

func (p *play) do(command string) {
	p.Helper()
	verb, rest, _ := strings.Cut(command, " ")
	if verb != "" && !strings.HasPrefix(verb, "#") && verb != "screen" && p.Screen == nil {
		p.Screen = New(Options{From: "agent at 127.0.0.1:7117", History: true, Zone: time.UTC})
	}
	switch verb {
	case "", "#":
	case "options":
		p.o.Itself, p.o.ASCII = strings.Contains(rest, "itself"), strings.Contains(rest, "ascii")
		if p.o.Itself {
			p.o.From, p.o.History = "no agent: looks itself, as user 1000", false
		}
	case "size":
		w, h, _ := strings.Cut(rest, "x")
		width, err := strconv.Atoi(w)
		height, err2 := strconv.Atoi(h)
		if err != nil || err2 != nil {
			p.Fatal(command)
		}
		p.Resize(width, height)
	case "take":
		s := map[string]func() *state.State{"story": story, "well": well}[rest]()
		s.Time = p.now
		p.Take(p.now, s)
	case "later":
		d, err := time.ParseDuration(rest)
		if err != nil {
			p.Fatal(err)
		}
		p.now = p.now.Add(d)
		p.Tick(p.now)
	case "lose":
		p.Lose(p.now, rest)
	case "hold":
		p.hold = true
	case "keys":
		for key := range strings.FieldsSeq(rest) {
			p.Key(p.now, key, "")
			p.answerAll()
		}
	case "type":
		for _, r := range rest {
			p.Key(p.now, string(r), string(r))
			p.answerAll()
		}
	default:
		p.Fatalf("unknown command %q", command)
	}
	if p.Screen != nil {
		p.answerAll()
	}
}

func (p *play) answerAll() {
	for !p.hold {
		asks := p.Asks()
		if len(asks) == 0 {
			return
		}
		for _, a := range asks {
			p.Answer(p.now, answer(a))
		}
	}
}

// screen is what is drawn, with a frame so that nothing is lost at the ends of
// lines; it holds what must be true of every screen.
func (p *play) screen() string {
	p.Helper()
	lines := p.Lines()
	if len(lines) != p.height {
		p.Errorf("%d lines on a screen of %d", len(lines), p.height)
	}
	for i, l := range lines {
		if ansi.StringWidth(l) > p.width {
			p.Errorf("line %d is %d columns wide: %s", i, ansi.StringWidth(l), l)
		}
		lines[i] = strings.TrimRight(l, " ")
	}
	return strings.Join(lines, "\n")
}

// Whatever the size, the view and the key, a screen is as large as the terminal
// and nothing panics.
func TestEverySize(t *testing.T) {
	keys := strings.Fields("1 2 3 4 5 6 7 8 down enter down pgdown end esc s s r S / esc f f ? down ? 2 enter c esc tab shift+tab [ ] ] ]")
	for _, width := range []int{1, 33, 80, 120} {
		for _, height := range []int{1, 15, 24} {
			p := &play{T: t, Screen: New(Options{History: true, From: "here"}), now: began}
			p.Resize(width, height)
			p.screen()
			for _, s := range []*state.State{well(), story(), {}} {
				p.Take(began, s)
				p.answerAll()
				p.screen()
				for _, key := range keys {
					p.Key(began, key, "")
					p.answerAll()
					p.screen()
				}
			}
			p.Lose(began, "connection refused")
			p.screen()
		}
	}
}

var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

// What is drawn in colours says the same without them, and nothing but colours and
// letters is drawn, whatever others have named themselves.
func TestHostile(t *testing.T) {
	const evil = "\x1b]0;owned\x07\x1b[2J\r\n\t\x00\x9b31m\u202egnp\u200b\xff\xc2\x9b%s世界e\u0301"
	s := story()
	s.Host = evil
	for i := range s.Findings {
		f := &s.Findings[i]
		f.Title, f.Why, f.Fix, f.ID = evil+f.Title, evil, []string{evil}, f.ID+evil
		f.Evidence = append(f.Evidence, []verdict.Value{{Key: evil, V: evil}, {Key: "list", V: []string{evil}}}...)
	}
	s.Promises[2].Summary = evil
	for i := range s.Peers {
		s.Peers[i].Peer, s.Peers[i].Verdict, s.Peers[i].Processes[0].Name = evil, evil, evil
	}
	s.Leaks[0].Process, s.Leaks[0].Stack[0].Function, s.Leaks[0].Diagnosis, s.Leaks[0].Peer = evil, evil, evil, evil
	s.Names.Servers[1].Error, s.Names.Names[0].Name, s.Names.Config[0].Text = evil, evil, evil
	s.Calls[0].Process, s.Calls[0].Goroutines = evil, []string{evil}
	s.Sources[2].Error, s.Blind[0].Needs, s.Sources[0].Name = evil, ptr(evil), evil
	hostile := func(a Ask) *Answer {
		out := answer(a)
		for i := range out.Connections.List {
			c := &out.Connections.List[i]
			c.Process.Name, c.State, c.Local, c.ByIdle = evil, evil, evil, evil
		}
		for i := range out.Findings {
			out.Findings[i].Title, out.Findings[i].Severity = evil, evil
		}
		out.Difference.Went = append(out.Difference.Went, state.Change{Peer: evil, Programs: []string{evil}})
		if a.ID%5 == 4 {
			out.Err = evil
		}
		return out
	}
	var all [3]string
	for ink, ascii := range []bool{false, false, true} {
		p := New(Options{Ink: Ink(ink), ASCII: ascii, From: evil, History: true})
		p.Take(began, s)
		for _, width := range []int{30, 80, 150} {
			p.Resize(width, 40)
			for _, key := range strings.Fields("1 enter esc down enter esc 2 enter c enter esc / \x1b[A ab esc 4 enter esc 5 enter esc down down enter esc 6 enter esc 7 enter esc 8 enter esc ?  ?") {
				p.Key(began, key, key)
				for _, a := range p.Asks() {
					p.Answer(began, hostile(a))
				}
				all[ink] += strings.Join(p.Lines(), "\n") + "\n"
			}
		}
		p.Lose(began, evil)
		all[ink] += strings.Join(p.Lines(), "\n")
	}
	for ink, text := range all {
		if bare := sgr.ReplaceAllString(text, ""); ink > 0 && strings.Contains(bare, "\x1b") {
			t.Errorf("ink %d draws an escape that is no colour", ink)
		} else {
			for _, r := range bare {
				if r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 || r == '\u202e' || r == '\u200b' || r == '\ufffd' || ink == 2 && r > '~' {
					t.Fatalf("ink %d draws %q", ink, r)
				}
			}
		}
	}
	if sgr.ReplaceAllString(all[1], "") != all[0] {
		t.Error("without colours something else is said")
	}
}

// Counts below nothing, which only a liar tells, are drawn as nothing.
func TestBarsBelowNothing(t *testing.T) {
	least, most := -1e9, 1.0
	if got := bars([]*float64{&least, nil, &most}, 10); got != "▁ █" {
		t.Errorf("%q", got)
	}
}

// A key is drawn in a moment, with as much to show as there ever is.
func TestQuick(t *testing.T) {
	p := &play{T: t, Screen: New(Options{Ink: InkColor, History: true}), now: began}
	p.Resize(200, 60)
	p.Take(began, busy())
	var slowest time.Duration
	for range 3 {
		for _, key := range strings.Fields("1 end enter esc 2 s s end up enter esc 3 end up pgup home pgdown s 4 end enter esc / a b esc 6 7 8 down enter esc") {
			at := time.Now()
			p.Key(began, key, key)
			_ = p.Lines()
			slowest = max(slowest, time.Since(at))
			p.answerAll()
		}
	}
	t.Logf("a key is drawn within %v, with %d peers, findings, sites and calls each", slowest.Round(10*time.Microsecond), state.MostPeers)
	if slowest > 2*time.Second { // of a machine that does much else
		t.Error("that is too slow")
	}
}

// busy has as much of all as there is at the most.
func busy() *state.State {
	s := story()
	for i := range state.MostPeers {
		f, p, site, call := s.Findings[2], s.Peers[1], s.Leaks[0], s.Calls[0]
		f.ID, p.Peer, site.ID, call.PID = fmt.Sprint("f", i), fmt.Sprintf("10.1.%d.%d", i/250, i%250), fmt.Sprint("s", i), int32(1000+i)
		s.Findings, s.Peers, s.Leaks, s.Calls = append(s.Findings, f), append(s.Peers, p), append(s.Leaks, site), append(s.Calls, call)
	}
	return s
}

func BenchmarkKey(b *testing.B) {
	s := New(Options{Ink: InkColor})
	s.Resize(120, 40)
	s.Take(began, busy())
	s.Key(began, "2", "2")
	for b.Loop() {
		s.Key(began, "down", "")
		_ = s.Lines()
	}
}
