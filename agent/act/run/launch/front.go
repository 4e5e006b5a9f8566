//go:build linux

package launch

import (
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run/notify"
)

// Keeper is a process that waits to be told which program to keep. It ends with the
// process that began it.
type Keeper struct {
	Command []string // with which others like it are started
	Wire    Wire     // to it
	Apart   bool     // it has a process group of its own
	Nested  bool     // it was not started: another one, around this process, does its work
	Err     error    // why it could not be started
}

// Begin starts a keeper, as early as there are the arguments: it takes milliseconds to
// be ready. The arguments end in those of the program; command is an executable that
// calls [Keep], and the arguments before those that are added.
func Begin(command, args, env []string) *Keeper {
	k := &Keeper{Command: command, Nested: notify.Active()}
	if !k.Nested {
		k.Start(args, env)
	}
	return k
}

// Start starts a keeper that was not, also within another one.
func (k *Keeper) Start(args, env []string) {
	ours, theirs, err := NewWire()
	if err != nil {
		k.Err = err
		return
	}
	k.Wire, k.Apart = ours, links()
	_, k.Err = Spawn(k.Command, args, env, theirs, k.Apart)
	theirs.Close()
}

// links reports whether this process has its group know a shell, which can stop it
// and let it go on: its parent is in the same session and in another group. Then
// the keeper must do that in its place. Otherwise it must not: a group that nobody
// links is sent SIGHUP, if one in it is stopped, when the last who did has ended
// (setpgid(2), kill_orphaned_pgrp in kernel/exit.c). The leader of a session never
// does, and cannot leave its group.
func links() bool {
	session, _ := unix.Getsid(0)
	parent := unix.Getppid()
	theirs, err := unix.Getsid(parent)
	group, err2 := unix.Getpgid(parent)
	return err == nil && err2 == nil && session != unix.Getpid() && theirs == session && group != unix.Getpgrp()
}

// Spawn starts a keeper at the other end of a wire. It inherits all that this
// process has inherited, also descriptors, since the program must. Apart puts it
// into a process group of its own, out of the way of signals for the program.
func Spawn(command, args, env []string, w Wire, apart bool) (pid int, err error) {
	// Not by ExtraFiles: the program may have been given a descriptor 3.
	fd, err := unix.FcntlInt(uintptr(w.FD), unix.F_DUPFD, 3)
	if err != nil {
		return 0, os.NewSyscallError("fcntl", err)
	}
	defer unix.Close(fd)
	argv := slices.Concat([]string{"lifeline"}, command[1:], []string{strconv.Itoa(fd), "--"}, args)
	pid, err = syscall.ForkExec(command[0], argv, &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: apart}})
	return pid, os.NewSyscallError("exec", err)
}
