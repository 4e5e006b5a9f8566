// Package tty draws lifeline top on a terminal, hands keys to it, and gives
// the terminal back as it was: also when it is told to end while the terminal
// takes nothing, and when the terminal has gone.
package tty

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/top"
)

const (
	// patience is how long a terminal that takes nothing is waited for in the end.
	patience = time.Second

	// stopTime is how long it may take until this process is stopped.
	stopTime = 500 * time.Millisecond

	// The size of a terminal that does not say it.
	usualWidth, usualHeight = 80, 24
)

// Source is where states come from.
type Source interface {
	// Follow hands over each state, and why none come, until ctx ends.
	Follow(ctx context.Context, take func(*state.State), lost func(error))

	// Ask answers what is in no state. It ends when ctx does.
	Ask(context.Context, top.Ask) top.Answer
}

// Options say on what to draw, and what. All are needed.
type Options struct {
	In, Out *os.File // the terminal
	Environ []string // of this process: what TERM is, and the like
	Screen  *top.Screen
	Source  Source
}

// errGone is a terminal that is not there any more.
var errGone = errors.New("the terminal is gone")

// Run draws until the user leaves, ctx ends or the terminal is gone, which is no
// error. It returns when all that it began has ended.
func Run(ctx context.Context, o Options) error {
	l, err := lineOf(o.In)
	if err != nil {
		return err
	}
	if err := l.raw(); err != nil {
		return err
	}
	defer l.restore()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	gone := func() { cancel(errGone) }
	out := openOutlet(o.Out, gone)
	defer out.close()
	work, stop := context.WithCancel(ctx)
	var working sync.WaitGroup
	defer working.Wait()
	defer stop()
	m := &model{screen: o.Screen}
	// Keys are read here: bubbletea leaves who reads them behind when some come as
	// it ends.
	p := tea.NewProgram(m, tea.WithInput(nil), tea.WithOutput(out), tea.WithEnvironment(o.Environ), tea.WithoutSignalHandler(), tea.WithFilter(sized))
	m.ask = func(a top.Ask) {
		working.Go(func() {
			answer := o.Source.Ask(work, a)
			answer.ID = a.ID
			p.Send(&answer)
		})
	}
	working.Go(func() { follow(work, o.Source, p) })
	working.Go(func() { tick(work, p) })
	working.Go(func() {
		if keys(work, o.In, p, &l) != nil {
			gone()
		}
	})
	ended := make(chan error, 1)
	go func() {
		_, err := p.Run()
		ended <- err
	}()
	select {
	case err = <-ended:
	case <-ctx.Done():
		go p.Quit() // it waits for what is drawn now
		out.hurry()
		select {
		case err = <-ended:
		case <-time.After(2 * patience):
			return errors.New("the terminal took nothing, and was left as it was")
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// keys sends on what is typed.
func keys(ctx context.Context, from *os.File, p *tea.Program, l *line) error {
	return readKeys(ctx, from, func(k key) {
		if k.name == "ctrl+z" {
			setAside(p, l)
			return
		}
		p.Send(k)
	})
}

// setAside stops this process, as ctrl+z does, until it is told to go on; at once
// where nobody could tell it. It must be called by who reads keys.
func setAside(p *tea.Program, l *line) {
	if p.ReleaseTerminal() != nil {
		return
	}
	l.restore()
	goesOn := make(chan os.Signal, 1)
	signal.Notify(goesOn, unix.SIGCONT)
	defer signal.Stop(goesOn)
	if unix.Kill(0, unix.SIGTSTP) == nil { // all of the job
		select {
		case <-goesOn:
		case <-time.After(stopTime): // no shell has this job, as over ssh HOST lifeline top: the kernel stops none such
		}
	}
	_ = l.raw()             // fails where the terminal is gone, and who reads keys finds out
	_ = p.RestoreTerminal() // likewise
}

// sized gives a size to a terminal that has none.
func sized(_ tea.Model, msg tea.Msg) tea.Msg {
	if size, is := msg.(tea.WindowSizeMsg); is && (size.Width <= 0 || size.Height <= 0) {
		return tea.WindowSizeMsg{Width: usualWidth, Height: usualHeight}
	}
	return msg
}

// tick tells the time once a second.
func tick(ctx context.Context, p *tea.Program) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			p.Send(now)
		}
	}
}

// lost is why no states come.
type lost struct{ error }

// follow sends on what the source says, always the latest: a terminal that is slow
// holds up nobody.
func follow(ctx context.Context, from Source, p *tea.Program) {
	news := make(chan tea.Msg, 1)
	put := func(msg tea.Msg) {
		select {
		case <-news: // nobody has seen it, and it is old now
		default:
		}
		news <- msg // nobody else puts
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		from.Follow(ctx, func(s *state.State) { put(s) }, func(err error) { put(lost{err}) })
	}()
	for {
		select {
		case <-ctx.Done():
			<-done
			return
		case msg := <-news:
			p.Send(msg)
		}
	}
}

// model is the screen as bubbletea has it.
type model struct {
	screen *top.Screen
	ask    func(top.Ask)
}

// Init implements tea.Model.
func (m *model) Init() tea.Cmd { return nil }

// Update implements tea.Model.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	now := time.Now()
	var do tea.Cmd
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.screen.Resize(msg.Width, msg.Height)
	case key:
		switch {
		case msg.paste:
			m.screen.Paste(now, msg.text)
		case msg.name == "ctrl+l":
			do = tea.ClearScreen
		default:
			m.screen.Key(now, msg.name, msg.text)
		}
	case *state.State:
		m.screen.Take(now, msg)
	case lost:
		m.screen.Lose(now, msg.Error())
	case *top.Answer:
		m.screen.Answer(now, msg)
	case time.Time:
		m.screen.Tick(now)
	}
	for _, a := range m.screen.Asks() {
		m.ask(a)
	}
	if m.screen.Done() {
		do = tea.Quit
	}
	return m, do
}

// View implements tea.Model.
func (m *model) View() tea.View {
	return tea.View{Content: strings.Join(m.screen.Lines(), "\n"), AltScreen: true}
}
