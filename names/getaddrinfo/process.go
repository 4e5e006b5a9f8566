//go:build linux && (amd64 || arm64)

package getaddrinfo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	patience      = time.Second
	mostAsked     = 64 // at a time, and so threads; the socket holds as many questions of any length
	mostForgotten = 32
	mostAnswer    = 128 << 10 // more than the process sends
)

// Why a process was ended that could have lived on.
var (
	errIdle   = errors.New("the process that asks getaddrinfo had nothing to do")
	errStuck  = errors.New("the process that asks getaddrinfo was stuck")
	errFrozen = errors.New("the process that asks getaddrinfo gave no sign of life")
)

// A process is one run of the program that asks. It ends once, and is then
// replaced.
type process struct {
	socket *os.File      // our end
	slots  chan struct{} // one is taken by each question without an answer
	over   chan struct{} // closed when it ends: no answer will come any more
	gone   chan struct{} // closed when it has been killed and waited for

	mu        sync.Mutex
	calls     map[uint32]*call // questions without an answer
	forgotten int              // of them, those that nobody waits for
	lastID    uint32
	used      time.Time // when something was asked last
	pinged    time.Time // when a sign of life was asked for; zero when one has come since
	lived     bool      // there was one, ever
	cause     error     // of its end
}

// A call is a question that was asked.
type call struct {
	id        uint32
	asked     time.Time
	answer    chan answer
	forgotten bool
}

// newProcess starts one. Questions can be asked at once: they wait in the socket.
func newProcess(loader string, idle time.Duration) *process {
	p := &process{
		slots: make(chan struct{}, mostAsked),
		over:  make(chan struct{}),
		gone:  make(chan struct{}),
		calls: make(map[uint32]*call),
		used:  time.Now(),
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(ends[0], true) // ours alone
	}
	if err != nil {
		p.end(fmt.Errorf("socketpair: %w", err))
		close(p.gone)
		return p
	}
	p.socket = os.NewFile(uintptr(ends[0]), "getaddrinfo")
	go p.run(loader, os.NewFile(uintptr(ends[1]), "getaddrinfo"), idle)
	return p
}

// run is the life of a process.
func (p *process) run(loader string, theirs *os.File, idle time.Duration) {
	defer close(p.gone)
	defer p.socket.Close()
	var complaint firstLine
	cmd, err := start(loader, theirs, &complaint)
	theirs.Close()
	if err != nil {
		p.end(fmt.Errorf("%w: %w", ErrUnavailable, err))
		return
	}
	dead := make(chan error, 1)
	go func() { dead <- cmd.Wait() }()
	listened := make(chan struct{})
	go func() { defer close(listened); p.listen() }()
	defer func() { p.socket.Close(); <-listened }()
	tick := time.NewTicker(patience / 2)
	defer tick.Stop()
	for {
		select {
		case err := <-dead:
			p.end(fmt.Errorf("the process that asks getaddrinfo ended: %v%s", err, complaint.said()))
			return
		case <-p.over:
			_ = cmd.Process.Kill()
			select {
			case <-dead:
			case <-time.After(patience): // the kernel cannot end it now; it is waited for whenever that may be
			}
			return
		case now := <-tick.C:
			p.tick(now, idle)
		}
	}
}

// ask returns the answer, or an error when ctx is done or the process ended
// before it.
func (p *process) ask(ctx context.Context, family byte, host string) (answer, error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case <-p.over:
		return answer{}, p.cause
	}
	c := &call{asked: time.Now(), answer: make(chan answer, 1)}
	p.mu.Lock()
	p.lastID++
	if p.lastID == 0 { // which is for signs of life
		p.lastID++
	}
	c.id = p.lastID
	p.calls[c.id], p.used = c, c.asked
	err := p.judge(c.asked)
	p.mu.Unlock()
	if err != nil {
		p.end(err)
		return answer{}, err
	}
	p.send(c.id, string(family)+host)
	select {
	case a := <-c.answer:
		return a, nil
	case <-ctx.Done():
		p.forget(c)
		return answer{}, ctx.Err()
	case <-p.over:
		select {
		case a := <-c.answer: // came with the end
			return a, nil
		default:
			return answer{}, p.cause
		}
	}
}

// send sends a question, or with an empty one asks for a sign of life. It does
// not wait, and tells of no error: when the process has died run hears of that,
// and when it reads nothing tick does.
func (p *process) send(id uint32, question string) {
	message := append(binary.LittleEndian.AppendUint32(nil, id), question...)
	if conn, err := p.socket.SyscallConn(); err == nil {
		_ = conn.Write(func(fd uintptr) bool {
			_ = unix.Send(int(fd), message, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			return true
		})
	}
}

// listen hands out answers until the socket is closed, at either end.
func (p *process) listen() {
	message := make([]byte, mostAnswer)
	for {
		n, err := p.socket.Read(message)
		if err != nil {
			return
		}
		a, err := parse(message[:n])
		if err == nil {
			err = p.take(a)
		}
		if err != nil {
			p.end(fmt.Errorf("the process that asks getaddrinfo sent nonsense: %w", err))
			return
		}
	}
}

// take hands an answer to who asked.
func (p *process) take(a answer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pinged, p.lived = time.Time{}, true
	if a.id == 0 {
		return nil
	}
	c := p.calls[a.id]
	if c == nil {
		return fmt.Errorf("an answer to question %d, which was not asked", a.id)
	}
	delete(p.calls, a.id)
	if c.forgotten {
		p.forgotten--
	}
	p.used = time.Now()
	c.answer <- a
	<-p.slots
	return nil
}

// forget says that nobody waits for the answer any more.
func (p *process) forget(c *call) {
	p.mu.Lock()
	if p.calls[c.id] == nil {
		p.mu.Unlock()
		return
	}
	c.forgotten = true
	p.forgotten++
	err := p.judge(time.Now())
	p.mu.Unlock()
	if err != nil {
		p.end(err)
	}
}

// judge says why the process must end now, because of what it was asked; nil
// when it need not. p.mu must be locked.
func (p *process) judge(now time.Time) error {
	if p.forgotten == 0 {
		return nil
	}
	slow, stuck := 0, 0
	for _, c := range p.calls {
		if !c.forgotten {
			continue
		}
		if age := now.Sub(c.asked); age >= patience {
			stuck++
		} else if age >= patience/4 {
			slow++
		}
	}
	switch {
	case stuck+slow >= mostForgotten && len(p.calls) == mostAsked:
		return errStuck // and there is no room for more questions
	case stuck > 0 && p.forgotten == len(p.calls):
		return errStuck // and it costs nobody an answer
	}
	return nil
}

// tick looks after the process from time to time.
func (p *process) tick(now time.Time, idle time.Duration) {
	p.mu.Lock()
	err, ping := p.judge(now), false
	switch {
	case err != nil:
	case len(p.calls) == 0:
		if now.Sub(p.used) >= idle {
			err = errIdle
		}
	case p.pinged.IsZero():
		p.pinged, ping = now, true
	case now.Sub(p.pinged) >= patience:
		err = errFrozen
	}
	p.mu.Unlock()
	if err != nil {
		p.end(err)
	} else if ping {
		p.send(0, "")
	}
}

// end makes the process end, for a reason that those hear who wait for an
// answer. The first reason counts.
func (p *process) end(cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cause == nil {
		p.cause = cause
		close(p.over)
	}
}

func (p *process) ended() bool {
	select {
	case <-p.over:
		return true
	default:
		return false
	}
}

// epitaph says why a process ended, and whether it ever gave a sign of life.
func (p *process) epitaph() (cause error, lived bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cause, p.lived
}

// firstLine keeps the first line of what is written to it, and not too much.
type firstLine struct{ text []byte }

func (f *firstLine) Write(b []byte) (int, error) {
	f.text = append(f.text, b[:min(len(b), 200-len(f.text))]...)
	return len(b), nil
}

// said is the line as it is added to an error.
func (f *firstLine) said() string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(f.text), []byte("\n"))
	if len(line) == 0 {
		return ""
	}
	return fmt.Sprintf(", and said %q", line)
}

// start starts the program, with theirs as its standard input.
func start(loader string, theirs *os.File, complaint *firstLine) (*exec.Cmd, error) {
	if loader == "" {
		var err error
		if loader, err = systemLoader(); err != nil {
			return nil, err
		}
	}
	program, err := sealed(asker)
	if err != nil {
		return nil, err
	}
	defer program.Close()
	cmd := exec.Command(loader, "/proc/self/fd/3", "lifeline: asks getaddrinfo")
	cmd.Stdin, cmd.Stderr, cmd.ExtraFiles = theirs, complaint, []*os.File{program}
	cmd.Dir = "/"
	cmd.Env = append(cmd.Environ(), "GODEBUG=")        // which is meant for this program
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // what a terminal sends to this program is not for that one
	cmd.WaitDelay = patience
	return cmd, cmd.Start()
}
