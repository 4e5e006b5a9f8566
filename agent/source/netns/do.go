package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/procfs/bounded"
)

// ErrGone means that the namespace is not there any more, or that the process
// that led to it is in another one now.
var ErrGone = errors.New("it is gone")

// errEnded is what becomes of a function that ended its goroutine.
var errEnded = errors.New("netns: the function ended its goroutine instead of returning")

// Error says that a namespace could not be entered. Err is [ErrGone], or
// matches fs.ErrPermission, or is what the kernel said.
type Error struct {
	Namespace fact.Namespace
	Err       error
}

func (e *Error) Error() string {
	name := fmt.Sprint("network namespace ", e.Namespace.Inode)
	switch {
	case e.Namespace.Name != "":
		name += " (" + e.Namespace.Name + ")"
	case e.Namespace.PID != 0:
		name += fmt.Sprint(" (of process ", e.Namespace.PID, ")")
	}
	return name + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Blindness tells as a fact of the named source that err kept it from looking.
func Blindness(source string, err error) fact.Blind {
	blind := fact.Blind{Source: source, Error: err.Error()}
	var entering *Error
	if errors.As(err, &entering) && errors.Is(entering.Err, fs.ErrPermission) {
		blind.Needs = "CAP_SYS_ADMIN and CAP_SYS_PTRACE"
	}
	return blind
}

// Do runs fn in a namespace and returns what fn returns, or an [*Error] when
// the namespace could not be entered; fn has not run then.
//
// In the namespace that the caller is in already, fn simply runs. Elsewhere it
// runs on a thread of its own that is thrown away afterwards, so no other part
// of the program ever finds itself in the wrong namespace. It follows that fn
// must do its work itself: goroutines that it starts are not in the namespace;
// programs that it starts are.
//
// Do waits for fn as long as fn takes.
func Do(ns fact.Namespace, fn func() error) error {
	current, err := inode("/proc/thread-self/ns/net")
	if err != nil {
		return &Error{Namespace: ns, Err: err}
	}
	if current == ns.Inode {
		return fn()
	}
	file, err := open(ns)
	if err != nil {
		return &Error{Namespace: ns, Err: err}
	}
	defer file.Close()
	return apart(func() error {
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			return &Error{Namespace: ns, Err: os.NewSyscallError("setns", err)}
		}
		return fn()
	})
}

// apart runs fn on a thread that nothing else will run on, and that is not the
// first of the process: that one cannot be thrown away, and /proc/self and all
// that reads it would be in its namespace from then on.
func apart(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errEnded
		defer func() { done <- err }()
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			err = apart(fn) // on another thread, as this goroutine holds this one
			return
		}
		err = fn() // and never unlocked: the thread ends with this goroutine
	}()
	return <-done
}

// open opens the namespace. It may have changed hands
// since it was listed, so what was opened is looked at, not believed.
func open(ns fact.Namespace) (*os.File, error) {
	failed := ErrGone
	try := func(path string, open func(string) (*os.File, error)) (file *os.File, ok bool) {
		file, err := open(path)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
			return nil, false
		}
		if err != nil {
			failed = &os.PathError{Op: "open", Path: path, Err: err}
			return nil, false
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(file.Fd()), &st); err == nil && st.Ino == uint64(ns.Inode) {
			return file, true
		}
		file.Close()
		return nil, false
	}
	if ns.PID != 0 {
		if file, ok := try(fmt.Sprintf("/proc/%d/ns/net", ns.PID), openNow); ok {
			return file, nil
		}
	}
	mounted, err := mounts()
	if err != nil {
		return nil, err
	}
	for _, m := range mounted {
		if m.inode != ns.Inode {
			continue
		}
		if file, ok := try(m.path, openBounded); ok {
			return file, nil
		}
	}
	return nil, failed
}

// hangs are the paths of namespaces that lie behind a file server that is gone.
var hangs bounded.Calls

// openBounded opens what may lie anywhere. A file that comes too late is closed
// when it is collected.
func openBounded(path string) (*os.File, error) {
	return bounded.Do(&hangs, path, func() (*os.File, error) { return openNow(path) })
}

// openNow opens what may stand for a namespace, and starts nothing that it opens.
func openNow(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}
