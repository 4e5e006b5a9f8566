//go:build linux

package manager

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// What a manager is told, a word on a line.
const (
	wordCall = "call"
	wordEnd  = "end"
)

// What it says.
const (
	ready    = "ready"
	returned = "returned"
	left     = "left"
)

// message is a line of JSON that a manager says.
type message struct {
	What string `json:"what"`
	Situation
	Took        time.Duration `json:"took,omitempty"`
	Said        string        `json:"said,omitempty"`
	Counted     bool          `json:"counted,omitempty"`
	Goroutines  int           `json:"goroutines,omitempty"`
	Descriptors int           `json:"descriptors,omitempty"`
}

// settleTime is what goroutines may take to end after a close.
const settleTime = 2 * time.Second

// The lines that hosts are given to run.
const (
	shortLine = "true"
	longLine  = "echo begun; exec sleep 100000"
)

// client connects as its users do, and waits as long as it waits: the context is
// that of the manager's process, which x/crypto has no use for.
type client interface {
	connect(ctx context.Context, addr string) (connection, error)
}

// connection is to a host.
type connection interface {
	run(ctx context.Context, line string, output io.Writer) error
	close(ctx context.Context)
}

// RunProcess is the process of a manager: it does what it is told on in, until
// that ends, and tells w what becomes of its calls. Dir has the keys of the lab.
// Calls that are blocked then end with the process.
func RunProcess(ctx context.Context, with With, dir string, silence time.Duration, in io.Reader, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := newClient(with, dir, silence)
	if err != nil {
		return err
	}
	words := make(chan string)
	go func() {
		defer close(words)
		for lines := bufio.NewScanner(in); lines.Scan(); {
			select {
			case words <- lines.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	m := &managing{client: c, out: json.NewEncoder(w), held: make(map[Situation]connection)}
	_, m.program = c.(*openSSH)
	if err := m.baseline(); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- m.connectAll(ctx) }()
	for begun := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			if err != nil {
				return err
			}
			failed = nil
			m.say(message{What: ready})
		case word, ok := <-words:
			switch {
			case !ok:
				return nil
			case word == wordCall && !begun:
				begun = true
				m.callAll(ctx)
			case word == wordEnd:
				m.count()
			}
		}
	}
}

// newClient returns the client of that name.
func newClient(with With, dir string, silence time.Duration) (client, error) {
	switch with {
	case Mux:
		return &openSSH{dir: dir}, nil
	case MuxAlive:
		return &openSSH{dir: dir, alive: true}, nil
	}
	login, err := readLogin(dir)
	if err != nil {
		return nil, err
	}
	switch with {
	case Plain:
		return plain{login}, nil
	case Workaround:
		return workaround{login}, nil
	case Lifeline:
		return guarded{login, silence}, nil
	}
	return nil, fmt.Errorf("there is no client %q", with)
}

// managing is a manager at work.
type managing struct {
	client
	program bool // the client is a program: what this process has is nothing of it

	mu      sync.Mutex
	out     *json.Encoder
	held    map[Situation]connection
	called  time.Time     // when the calls began
	calling chan struct{} // closed then
	running sync.WaitGroup

	goroutines, descriptors int // before
}

func (m *managing) say(s message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.out.Encode(s) // who listened may be gone, and with it the reason to tell
}

// baseline counts what there is without a connection, but with what the first
// one makes for all.
func (m *managing) baseline() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_ = ln.Close()
	m.calling = make(chan struct{})
	m.goroutines = runtime.NumGoroutine()
	m.descriptors, err = descriptors()
	return err
}

func descriptors() (int, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	return len(entries), err
}

// connectAll connects to every host that can be, and begins the commands that
// are to run. All is as a manager has it: a goroutine for each host.
func (m *managing) connectAll(ctx context.Context) error {
	errs := make(chan error, len(Situations))
	waiting := 0
	for _, s := range Situations {
		if s.Call == Connection {
			continue
		}
		waiting++
		go func() { errs <- m.prepare(ctx, s) }()
	}
	for range waiting {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

func (m *managing) prepare(ctx context.Context, s Situation) error {
	conn, err := m.connect(ctx, address(s.Host))
	if err == nil {
		err = conn.run(ctx, shortLine, io.Discard) // the last round of the manager's loop
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.Host, err)
	}
	m.mu.Lock()
	m.held[s] = conn
	m.mu.Unlock()
	if s.Call != Running {
		return nil
	}
	output, early := make(firstWrite, 1), make(chan error, 1)
	go func() {
		err := conn.run(ctx, longLine, output)
		early <- err
		<-m.calling
		m.over(ctx, s, err)
	}()
	select {
	case <-output:
		return nil
	case err := <-early:
		return fmt.Errorf("%s: the command ended: %w", s.Host, err)
	}
}

// firstWrite says that there was output.
type firstWrite chan struct{}

func (w firstWrite) Write(p []byte) (int, error) {
	select {
	case w <- struct{}{}:
	default:
	}
	return len(p), nil
}

// callAll is the round of the loop in which hosts are lost.
func (m *managing) callAll(ctx context.Context) {
	m.called = time.Now()
	close(m.calling)
	for _, s := range Situations {
		if s.Call == Running {
			continue
		}
		go func() {
			conn, err := m.held[s], error(nil)
			if conn == nil {
				conn, err = m.connect(ctx, address(s.Host))
				m.mu.Lock()
				m.held[s] = conn
				m.mu.Unlock()
			}
			if err == nil {
				err = conn.run(ctx, shortLine, io.Discard)
			}
			m.over(ctx, s, err)
		}()
	}
}

// over is the end of a call, after which a manager closes the connection.
func (m *managing) over(ctx context.Context, s Situation, err error) {
	e := message{What: returned, Situation: s, Took: time.Since(m.called)}
	if err != nil {
		e.Said = strings.Join(strings.Fields(err.Error()), " ")
	}
	m.mu.Lock()
	conn := m.held[s]
	m.mu.Unlock()
	m.running.Add(1)
	defer m.running.Done()
	m.say(e)
	if conn != nil {
		conn.close(ctx)
	}
}

// count says what is left, after a while for what ends by itself.
func (m *managing) count() {
	closed := make(chan struct{})
	go func() { m.running.Wait(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(settleTime):
	}
	e := message{What: left, Counted: !m.program}
	for deadline := time.Now().Add(settleTime); ; time.Sleep(20 * time.Millisecond) {
		n, err := descriptors()
		if err != nil {
			e.Counted = false
		}
		e.Goroutines, e.Descriptors = max(runtime.NumGoroutine()-m.goroutines, 0), max(n-m.descriptors, 0)
		if e.Goroutines+e.Descriptors == 0 || m.program || time.Now().After(deadline) {
			break
		}
	}
	m.say(e)
}

// login is what Go clients authenticate with.
type login struct {
	user string
	key  []byte
	host []byte // the host's public key, as a line of known_hosts has it
}

func readLogin(dir string) (l login, err error) {
	if l.key, err = os.ReadFile(filepath.Join(dir, "user")); err != nil {
		return l, err
	}
	if l.host, err = os.ReadFile(filepath.Join(dir, "host.pub")); err != nil {
		return l, err
	}
	name, err := os.ReadFile(filepath.Join(dir, "login"))
	l.user = string(name)
	return l, err
}
