//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Run is the way to a lab for a program: it calls f with an empty lab, takes
// the lab apart when f returns, and returns the error of f or of what could not
// be built or taken apart. What labs of dead processes left behind is removed
// first, so a program that is killed leaves nothing for longer than until the
// next one. An interrupt is for f to notice.
//
// f and those it calls must not call methods of the lab on other goroutines,
// except where they return an error: what cannot be built ends f by a panic,
// which Run recovers.
func Run(f func(*Lab) error) (err error) {
	if err := Missing(); err != nil {
		return err
	}
	p := &program{}
	defer func() { err = errors.Join(err, p.takeApart()) }()
	return caught(func() error { return f(empty(p)) })
}

// Missing returns an error that names all that this machine or its user lacks
// for a lab that also needs the given programs; nil if nothing is missing.
func Missing(also ...string) error {
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "root")
	}
	for _, name := range slices.Concat(programs, also) {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, "the program "+name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("the lab needs %s", strings.Join(missing, ", "))
}

// program is the T of a lab that belongs to no test.
type program struct{ cleanups []func() }

// failure is the panic that stands for testing.T's Goexit: a program has more
// to do after its lab.
type failure struct{ error }

func (p *program) Helper()                           {}
func (p *program) Skipf(format string, args ...any)  { p.Fatalf(format, args...) }
func (p *program) Fatalf(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }
func (p *program) Cleanup(f func())                  { p.cleanups = append(p.cleanups, f) }

// takeApart runs every clean-up, the last first, whether or not others fail.
func (p *program) takeApart() error {
	var errs []error
	for _, f := range slices.Backward(p.cleanups) {
		errs = append(errs, caught(func() error { f(); return nil }))
	}
	return errors.Join(errs...)
}

// caught calls f and returns its error, or the failure that ended it.
func caught(f func() error) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = r.error
		default:
			panic(r)
		}
	}()
	return f()
}
