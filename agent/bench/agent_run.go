package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/source/opener"
	"github.com/lifeline-go/lifeline/agent/state"
)

// scrapes is how often somebody reads the metrics.
const scrapes = 15 * time.Second

// agentRun is a lifeline agent that runs, with a reader of its page and of its
// metrics.
type agentRun struct {
	cmd     *exec.Cmd
	url     string
	history string
	page    *pageReader
	reading sync.WaitGroup
	end     context.CancelFunc
	ended   chan error
}

// startAgent starts one that keeps its history in dir.
func startAgent(ctx context.Context, command, dir string) (*agentRun, error) {
	a := &agentRun{history: filepath.Join(dir, "history.db"), ended: make(chan error, 1)}
	a.cmd = exec.Command(command, "agent", "--json", "--listen", "127.0.0.1:0", "--history", a.history)
	a.cmd.Stderr = os.Stderr
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	for lines := bufio.NewScanner(out); a.url == ""; {
		var line struct{ Page string }
		if !lines.Scan() {
			_ = a.cmd.Process.Kill()
			return nil, errors.Join(errors.New("the agent did not say where its page is"), a.cmd.Wait())
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil {
			a.url = line.Page
		}
	}
	ctx, a.end = context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, out)
		a.ended <- a.cmd.Wait()
	}()
	a.page = newPageReader(a.url + "api/v1/stream")
	a.reading.Go(func() { a.page.read(ctx) })
	a.reading.Go(func() { a.scrape(ctx) })
	return a, nil
}

// scrape reads the metrics as Prometheus does.
func (a *agentRun) scrape(ctx context.Context) {
	tick := time.NewTicker(scrapes)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_, _ = a.get(ctx, "metrics") // the reader of the page notices an agent that is gone
		}
	}
}

func (a *agentRun) get(ctx context.Context, path string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+path, nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, answer.Status)
	}
	return string(text), err
}

// sleep waits, unless the agent ends before.
func (a *agentRun) sleep(ctx context.Context, d time.Duration) error {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case err := <-a.ended:
		a.ended <- err
		return fmt.Errorf("the agent ended: %v", err)
	case <-wait.C:
		return nil
	}
}

// stop ends the agent as a service manager does.
func (a *agentRun) stop() error {
	a.end()
	a.reading.Wait()
	if err := a.cmd.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-a.ended:
		return err
	case <-time.After(10 * time.Second):
		_ = a.cmd.Process.Kill()
		return errors.Join(errors.New("the agent did not end within 10 s of SIGTERM"), <-a.ended)
	}
}

// agentUsage is what the agent has taken so far, and has now.
type agentUsage struct {
	cpu             time.Duration
	machine, stolen float64 // of all processors, in ticks
	resident, peak  int64
	files, threads  int
	programs, hooks opener.Runs // BPF; hooks are those in others' system calls
}

func (a *agentRun) measure() (u agentUsage, err error) {
	proc := fmt.Sprintf("/proc/%d/", a.cmd.Process.Pid)
	stat, err := os.ReadFile(proc + "stat")
	if err != nil {
		return u, err
	}
	// 812 (name, which may have any sign) S 7 ..., proc(5)
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const utime, stime, hertz = 11, 12, 100
	for _, field := range f[utime : stime+1] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return u, err
		}
		u.cpu += time.Duration(ticks) * time.Second / hertz
	}
	if u.machine, u.stolen, err = machineTime(); err != nil {
		return u, err
	}
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		number, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
		switch key {
		case "VmHWM":
			u.peak = number << 10
		case "VmRSS":
			u.resident = number << 10
		case "Threads":
			u.threads = int(number)
		}
	}
	return u, a.descriptors(proc, &u)
}

// machineTime is the time of all processors so far, and what of it the host of this
// machine gave to others while there was work: then all of it takes longer.
func machineTime() (all, stolen float64, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	const steal = 7 // cpu user nice system idle iowait irq softirq steal guest guest_nice, proc_stat(5)
	for i, field := range strings.Fields(first)[1:] {
		ticks, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return 0, 0, err
		}
		if i <= steal { // what guests take is in user already
			all += ticks
		}
		if i == steal {
			stolen = ticks
		}
	}
	return all, stolen, nil
}

// processorRow is what the agent took between two moments, and how busy the host
// was with others meanwhile.
func processorRow(t *table, from, to *agentUsage, span time.Duration) {
	share := float64(to.cpu-from.cpu) / float64(span)
	t.row("processor, of one core", percent(share), "≤ "+percent(agentShare), share/agentShare)
	t.row("  of this machine's time its host gave to others", percent((to.stolen-from.stolen)/max(to.machine-from.machine, 1)), "-", 0)
}

// descriptors counts files, and reads what the kernel says of those that are BPF
// programs.
func (a *agentRun) descriptors(proc string, u *agentUsage) error {
	entries, err := os.ReadDir(proc + "fdinfo")
	if err != nil {
		return err
	}
	u.files = len(entries)
	seen := make(map[string]bool)
	for _, e := range entries {
		text, err := os.ReadFile(proc + "fdinfo/" + e.Name())
		if err != nil {
			continue // it was closed meanwhile
		}
		v := make(map[string]string)
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(line, ":")
			v[key] = strings.TrimSpace(value)
		}
		id := v["prog_id"]
		if v["run_cnt"] == "" || seen[id] {
			continue
		}
		seen[id] = true
		count, _ := strconv.ParseUint(v["run_cnt"], 10, 64)
		took, _ := strconv.ParseInt(v["run_time_ns"], 10, 64)
		one := opener.Runs{Count: count, Took: time.Duration(took)}
		add(&u.programs, one)
		const sockAddr = "18" // BPF_PROG_TYPE_CGROUP_SOCK_ADDR
		if v["prog_type"] == sockAddr {
			add(&u.hooks, one)
		}
	}
	return nil
}

func add(to *opener.Runs, one opener.Runs) {
	to.Count += one.Count
	to.Took += one.Took
}

// countPrograms has the kernel count runs of BPF programs.
func (a *agentRun) countPrograms() (io.Closer, error) { return opener.CountRuns() }

// historyRow says how many bytes a sample of the history takes, the file and all:
// one count of one series at one time. It is for a history that is some time old.
func (a *agentRun) historyRow(ctx context.Context, t *table) error {
	text, err := a.get(ctx, "api/v1/history/span")
	if err != nil {
		return err
	}
	var span state.Span
	if err := json.Unmarshal([]byte(text), &span); err != nil {
		return err
	}
	text, err = a.get(ctx, "api/v1/history/at?most=20000&time="+url.QueryEscape(time.Now().Format(time.RFC3339)))
	if err != nil {
		return err
	}
	var past state.Past
	if err := json.Unmarshal([]byte(text), &past); err != nil {
		return err
	}
	samples := span.Records * len(past.Groups)
	if samples <= 0 {
		return errors.New("there is no history")
	}
	each := float64(span.Bytes) / float64(samples)
	t.row("history, for each of some samples", fmt.Sprintf("%.2f bytes of %d", each, samples), fmt.Sprintf("≤ %d bytes", agentSample), each/agentSample)
	return nil
}

// pageReader reads the event stream as the page does.
type pageReader struct {
	url string

	mu     sync.Mutex
	latest *state.State
	at     time.Time
	news   chan struct{} // closed when there is another
	count  int
	bytes  int
	failed error
}

func newPageReader(url string) *pageReader {
	return &pageReader{url: url, latest: &state.State{}, news: make(chan struct{})}
}

func (p *pageReader) read(ctx context.Context) {
	err := p.stream(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = fmt.Errorf("the stream ended: %w", err)
	close(p.news)
	p.news = make(chan struct{})
}

func (p *pageReader) stream(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		data, is := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !is {
			continue
		}
		at, s := time.Now(), new(state.State)
		if err := json.Unmarshal(data, s); err != nil {
			return err
		}
		p.take(at, s, len(data))
	}
	return errors.Join(lines.Err(), io.EOF)
}

func (p *pageReader) take(at time.Time, s *state.State, size int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latest, p.at, p.bytes = s, at, size
	p.count++
	close(p.news)
	p.news = make(chan struct{})
}

func (p *pageReader) state() *state.State { p.mu.Lock(); defer p.mu.Unlock(); return p.latest }
func (p *pageReader) events() int         { p.mu.Lock(); defer p.mu.Unlock(); return p.count }
func (p *pageReader) size() int           { p.mu.Lock(); defer p.mu.Unlock(); return p.bytes }

// errUnseen is that the page did not show what was waited for.
var errUnseen = errors.New("the page did not show it")

// until waits until the page shows something, and returns when it came.
func (p *pageReader) until(ctx context.Context, bound time.Duration, shows func(*state.State) bool) (*state.State, time.Time, error) {
	late := time.NewTimer(bound)
	defer late.Stop()
	for {
		p.mu.Lock()
		s, at, news, failed := p.latest, p.at, p.news, p.failed
		p.mu.Unlock()
		switch {
		case failed != nil:
			return s, at, failed
		case shows(s):
			return s, at, nil
		}
		select {
		case <-ctx.Done():
			return s, at, context.Cause(ctx)
		case <-late.C:
			return s, at, fmt.Errorf("%w within %v", errUnseen, bound)
		case <-news:
		}
	}
}
