// Package chromium drives a headless Chromium in tests of the page: each of its
// methods does one thing that a user would, or fails the test. It speaks the
// DevTools protocol over two pipes: when the test process is gone, however it went,
// Chromium reads their end, and goes too.
package chromium

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/need"
)

// patience is how long anything in the browser may take.
const patience = time.Minute

// flags make a browser that starts from nothing and speaks to nobody by itself.
var flags = []string{"--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run", "--no-default-browser-check",
	"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-breakpad", "--disable-crash-reporter",
	"--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb", "--disable-features=Translate,OptimizationHints,MediaRouter,DialMediaRouteProvider", "about:blank"}

// Browser is one Chromium.
type Browser struct {
	to *os.File

	mu      sync.Mutex
	next    int
	waiting map[int]chan answer
	pages   map[string]*Page // by session
	ended   error            // why nothing comes any more
}

type answer struct {
	result json.RawMessage
	err    error
}

// message is what Chromium says: an answer, or an event of a page.
type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// Start starts a Chromium that ends with the test.
func Start(t testing.TB) *Browser {
	t.Helper()
	program := need.Program(t, "chromium")
	theirs, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, others, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command(program, append([]string{"--user-data-dir=" + t.TempDir()}, flags...)...)
	cmd.ExtraFiles = []*os.File{theirs, others}
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that all its processes can be told to end
	cmd.WaitDelay = patience
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	others.Close()
	b := &Browser{to: to, waiting: make(map[int]chan answer), pages: make(map[string]*Page)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		b.listen(from)
	}()
	t.Cleanup(func() {
		_, _ = b.ask("", "Browser.close", nil)
		to.Close()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what is left of it; it has nothing to keep
		_ = cmd.Wait()
		from.Close()
		<-read
	})
	if _, err := b.ask("", "Browser.getVersion", nil); err != nil {
		t.Fatalf("chromium: %v\n%s", err, said.Bytes())
	}
	return b
}

// listen hands on what Chromium says, until it says no more.
func (b *Browser) listen(from io.Reader) {
	r := bufio.NewReaderSize(from, 1<<20)
	for {
		text, err := r.ReadBytes(0)
		if err != nil {
			b.mu.Lock()
			b.ended = fmt.Errorf("chromium ended: %w", err)
			for _, w := range b.waiting {
				w <- answer{err: b.ended}
			}
			clear(b.waiting)
			b.mu.Unlock()
			return
		}
		var m message
		if json.Unmarshal(bytes.TrimSuffix(text, []byte{0}), &m) != nil {
			continue
		}
		b.mu.Lock()
		if w := b.waiting[m.ID]; w != nil {
			delete(b.waiting, m.ID)
			a := answer{result: m.Result}
			if m.Error != nil {
				a.err = errors.New(m.Error.Message)
			}
			w <- a
		} else if p := b.pages[m.Session]; p != nil {
			p.note(m.Method, m.Params)
		}
		b.mu.Unlock()
	}
}

// ask sends a command to the browser, or to a page of it, and waits for the answer.
func (b *Browser) ask(session, method string, params any) (json.RawMessage, error) {
	raw, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	if params == nil {
		raw = nil
	}
	b.mu.Lock()
	if b.ended != nil {
		b.mu.Unlock()
		return nil, b.ended
	}
	b.next++
	id, got := b.next, make(chan answer, 1)
	b.waiting[id] = got
	text, err := json.Marshal(message{ID: id, Session: session, Method: method, Params: raw})
	if err == nil {
		_, err = b.to.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case a := <-got:
		return a.result, a.err
	case <-time.After(patience):
		b.mu.Lock()
		delete(b.waiting, id)
		b.mu.Unlock()
		return nil, fmt.Errorf("%s: no answer within %v", method, patience)
	}
}
