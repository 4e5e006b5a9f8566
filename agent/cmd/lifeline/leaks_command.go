package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// command starts a program, watches it and all that it starts until it ends, and
// keeps its exit code. What it prints goes where it would without Lifeline; the
// report goes after it, to the same place unless that is a document.
func (w *leaksWatch) command(args []string) error {
	program := exec.Command(args[0], args[1:]...)
	program.Stdin, program.Stdout, program.Stderr = os.Stdin, w.cmd.OutOrStdout(), w.cmd.ErrOrStderr()
	if asJSON(w.cmd) {
		program.Stdout = w.cmd.ErrOrStderr()
	}
	program.Env = append(os.Environ(), ancestors(os.Getenv("GODEBUG")))
	if err := w.start(program); err != nil {
		return usageError{err}
	}
	ended := make(chan error, 1)
	go func() { ended <- program.Wait() }()
	stop := forward(program.Process)
	defer stop()
	last, err := w.follow(ended)
	var failed *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &failed):
		_ = program.Process.Signal(syscall.SIGTERM)
		return blindError{err}
	case last != nil:
		w.flags.all = true
		if err := w.report(context.WithoutCancel(w.cmd.Context()), last); err != nil {
			return blindError{err}
		}
	}
	if failed == nil {
		return nil
	}
	if status, ok := failed.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitCode(128 + int(status.Signal())) // as shells have it
	}
	return exitCode(failed.ExitCode())
}

// ancestors is the variable by which the Go runtime keeps who started each
// goroutine, beside what is set already.
func ancestors(set string) string {
	if strings.Contains(set, "tracebackancestors=") {
		return "GODEBUG=" + set
	}
	return "GODEBUG=" + strings.TrimPrefix(set+",tracebackancestors=10", ",")
}

// start starts a program and stops it before its first instruction, until it is
// known where its goroutines have what: its very first socket shall be told of in
// full.
func (w *leaksWatch) start(program *exec.Cmd) error {
	runtime.LockOSThread() // the thread that traces is the one that ends it
	defer runtime.UnlockOSThread()
	program.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := program.Start(); err != nil {
		return err
	}
	pid := program.Process.Pid
	w.child = int32(pid)
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("wait4", err)
		}
	}
	_ = w.openers.Follow(int32(pid)) // what it is, or why that is not known, is told with its sockets
	return os.NewSyscallError("ptrace", unix.PtraceDetach(pid))
}

// forward passes on what is meant to end the program; it returns what ends that.
func forward(p *os.Process) (stop func()) {
	signals, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		for {
			select {
			case s := <-signals:
				if s != os.Interrupt { // that one the terminal has sent to both
					_ = p.Signal(s)
				}
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}

// census asks once a second who is at the other ends of what may leak: when the
// program has ended, nobody can tell.
func (w *leaksWatch) census(o *fact.Openings) error {
	if time.Since(w.asked) < time.Second {
		return nil
	}
	w.asked = time.Now()
	return w.openers.Ends(context.WithoutCancel(w.cmd.Context()), o)
}

// settle is how long a program that closes sockets has to show that it is not
// about to end: the kernel closes all that it left before it is known to be gone.
const settle = 50 * time.Millisecond

// follow looks until the program has ended. It returns the last look before, and
// the error that it ended with.
func (w *leaksWatch) follow(ended <-chan error) (last *fact.Openings, _ error) {
	for {
		o, err := w.openers.Look(context.WithoutCancel(w.cmd.Context()))
		if err != nil {
			return nil, err
		}
		wait := time.Duration(0)
		if last != nil && len(o.Open) < len(last.Open) {
			wait = settle
		}
		select {
		case err := <-ended:
			return last, err
		case <-time.After(wait):
		}
		w.verdict.Look(o)
		if err := w.census(o); err != nil {
			return nil, err
		}
		last = o
		select {
		case err := <-ended:
			return last, err
		case <-time.After(w.tick()):
		}
	}
}
