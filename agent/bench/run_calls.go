package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run/notify"
)

// A callKind is a system call, or several that belong together.
type callKind struct {
	name string
	what string
}

var (
	untrappedKinds = []callKind{
		{"walk", "a program that only makes system calls: reads all files of /etc"},
		{"write", "write(2) of a byte to a pipe and read(2) of it"},
		{"getppid", "getppid(2), the least that a call can be"},
	}
	trappedKinds = []callKind{
		{"connect", "connect(2) to elsewhere, trapped"},
		{"nameserver", "connect(2) to a nameserver, redirected"},
	}
)

// trapped measures connect(2), by the clock, in turn without and with lifeline run.
func (v *vpn) trapped(ctx context.Context) error {
	t := newTable("what a trapped call takes, the fastest of %d rounds of %d", v.rounds, v.runOptions.calls)
	times := fmt.Sprint(v.runOptions.calls)
	for _, kind := range trappedKinds {
		var bare, with, least time.Duration
		for range v.rounds {
			if err := errors.Join(
				v.call(ctx, &bare, false, "calls", kind.name, times),
				v.call(ctx, &with, true, "calls", kind.name, times),
				v.call(ctx, &least, false, "least", kind.name, times)); err != nil {
				return err
			}
		}
		t.row(kind.what, fmt.Sprintf("%v → %v", bare, with), "≤ "+trappedAim.String(), float64(with)/float64(trappedAim))
		t.row("  the least on this machine: told to another process that only lets it go on", least.String(), "-", 0)
	}
	return t.print()
}

// call runs what prints how long a call takes, and keeps the best.
func (v *vpn) call(ctx context.Context, best *time.Duration, with bool, args ...string) error {
	text, _, err := output(ctx, v.command(with, append([]string{v.file("bench"), "program"}, args...)...))
	each, bad := time.ParseDuration(text)
	if err != nil || bad != nil {
		return fmt.Errorf("%v: %w: %s", args, errors.Join(err, bad), text)
	}
	if *best == 0 || each < *best {
		*best = each
	}
	return nil
}

// slicesOfAPair are many, and short: what a program takes scatters more than what
// is looked for, and from one start of it to the next most of all.
const slicesOfAPair = 30

// untrapped measures the processor time of calls that are not trapped, of programs
// without and with lifeline run that take turns.
func (v *vpn) untrapped(ctx context.Context) error {
	t := newTable("processor time of calls that are not trapped, %d programs each way in %d turns each; in brackets, where the true median lies in 95 of 100 cases",
		v.pairs, slicesOfAPair)
	for _, kind := range untrappedKinds {
		var took [callWays][]float64
		var ratios, floors []float64
		for range v.pairs {
			if err := ctx.Err(); err != nil {
				return err
			}
			some, err := v.turns(kind.name)
			if err != nil {
				return fmt.Errorf("%s: %w", kind.name, err)
			}
			for way := range took {
				took[way] = append(took[way], some[way]...)
			}
		}
		for i, without := range took[bare] {
			ratios, floors = append(ratios, took[helped][i]/without), append(floors, took[filtered][i]/without)
		}
		ratio := middleOf(ratios)
		t.row(kind.what+": without", nanoseconds(middleOf(took[bare])), "-", 0)
		t.row("  with lifeline run", nanoseconds(middleOf(took[helped])), "-", 0)
		t.row("  beside that without, of each turn", times(ratio), fmt.Sprintf("≤ %.2f×", untrappedAim), ratio.at/untrappedAim)
		t.row("  the least on this machine: a filter that lets all calls by", times(middleOf(floors)), "-", 0)
	}
	return t.print()
}

// The ways in which a program makes calls that are not trapped.
const (
	bare     = iota
	helped   // by lifeline run
	filtered // by a filter that lets all go on
	callWays
)

// turns returns what a call took in each turn of programs of each way, in
// nanoseconds.
func (v *vpn) turns(kind string) (took [callWays][]float64, err error) {
	runtime.LockOSThread() // they end with the thread that starts them
	defer runtime.UnlockOSThread()
	var all [callWays]*slicer
	for way := range all {
		s, err := v.slicer(way, kind)
		if err != nil {
			return took, err
		}
		defer func() { err = errors.Join(err, s.end()) }()
		all[way] = s
	}
	for i := range slicesOfAPair {
		for way := range all {
			if err := all[(way+i)%callWays].slice(); err != nil {
				return took, err
			}
		}
	}
	for way, s := range all {
		took[way] = s.took
	}
	return took, nil
}

// A slicer is a program that makes some calls whenever it is told to.
type slicer struct {
	cmd  *exec.Cmd
	ask  io.WriteCloser
	told *bufio.Scanner
	took []float64
}

func (v *vpn) slicer(way int, kind string) (*slicer, error) {
	what := map[int]string{bare: "slices", helped: "slices", filtered: "filtered"}[way]
	s := &slicer{cmd: v.command(way == helped, v.file("bench"), "program", what, kind)}
	s.cmd.Stderr = os.Stderr
	ask, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	tell, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.ask, s.told = ask, bufio.NewScanner(tell)
	return s, s.cmd.Start()
}

func (s *slicer) slice() error {
	if _, err := io.WriteString(s.ask, "\n"); err != nil {
		return err
	}
	if !s.told.Scan() {
		return errors.Join(s.told.Err(), io.ErrUnexpectedEOF)
	}
	each, err := strconv.ParseFloat(s.told.Text(), 64)
	s.took = append(s.took, each)
	return err
}

func (s *slicer) end() error { return errors.Join(s.ask.Close(), s.cmd.Wait()) }

// aSlice is for how long a program makes calls at a time.
const aSlice = 20 * time.Millisecond

// makeSlices prints, for each line that it is given, how much processor time a
// call takes, in nanoseconds.
func makeSlices(name string) error {
	call, err := callOf(name)
	if err != nil {
		return err
	}
	n, began := 0, time.Now()
	for ; n == 0 || time.Since(began) < 5*aSlice; n++ {
		if err := call(); err != nil {
			return err
		}
	}
	n = max(n/5, 1)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		runtime.GC()
		used := processorTime()
		for range n {
			if err := call(); err != nil {
				return err
			}
		}
		fmt.Println(strconv.FormatFloat(float64(processorTime()-used)/float64(n), 'f', 1, 64))
	}
	return nil
}

// makeFiltered is makeSlices under a filter that lets all calls by.
func makeFiltered(name string) error {
	runtime.LockOSThread() // the filter is this thread's, and what it becomes has it
	p := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return unix.Exec(self, []string{self, "program", "slices", name}, os.Environ())
}

// makeCalls prints how long one takes by the clock.
func makeCalls(name, times string) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	call, err := callOf(name)
	if err != nil {
		return err
	}
	for range n / 10 {
		_ = call()
	}
	began := time.Now()
	for range n {
		if err := call(); err != nil {
			return err
		}
	}
	fmt.Println(time.Since(began) / time.Duration(n))
	return nil
}

// callOf returns what makes the call, or the calls, of a name.
func callOf(name string) (func() error, error) {
	switch name {
	case "getppid":
		return func() error { unix.Getppid(); return nil }, nil
	case "write":
		var fds [2]int
		if err := unix.Pipe(fds[:]); err != nil {
			return nil, err
		}
		b := []byte{1}
		return func() error {
			_, err1 := unix.Write(fds[1], b)
			_, err2 := unix.Read(fds[0], b)
			return errors.Join(err1, err2)
		}, nil
	case "walk":
		return func() error { readAll("/etc"); return nil }, nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	to := &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}
	if name == "nameserver" {
		to = &unix.SockaddrInet4{Port: 53, Addr: [4]byte{10, 77, 53, 53}}
	}
	return func() error { return unix.Connect(fd, to) }, nil
}

// leastTrap prints how long a connect(2) takes that is told to another process,
// which only lets it go on: the least that a trapped one can take on this machine.
func leastTrap(name, times string) error {
	ended := make(chan error)
	go func() {
		runtime.LockOSThread() // and not unlocked: the filter stays on it
		listener, err := notify.Filter{}.Install()
		if err != nil {
			ended <- err
			return
		}
		_ = listener.Hasten()
		go func() {
			runtime.LockOSThread()
			for c := new(notify.Call); listener.Receive(c) == nil; {
				listener.Continue(c.ID)
			}
		}()
		self, err := os.Executable()
		if err != nil {
			ended <- err
			return
		}
		cmd := exec.Command(self, "program", "calls", name, times)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		ended <- cmd.Run()
	}()
	return <-ended
}

// readAll reads what there is to read below a directory, without a thought.
func readAll(dir string) {
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			_, _ = os.ReadFile(path)
		}
		return nil
	})
}
