//go:build unix

package ssh

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// own makes the program the first of a group of processes.
func own(program *exec.Cmd) {
	if program.SysProcAttr == nil {
		program.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
}

// kill ends the program, and its group where it has one. It must be called
// before Wait, after which the number may be another's.
func kill(program *exec.Cmd) {
	if program.SysProcAttr.Setpgid && program.SysProcAttr.Pgid == 0 {
		_ = unix.Kill(-program.Process.Pid, unix.SIGKILL)
	}
	_ = program.Process.Kill()
}
