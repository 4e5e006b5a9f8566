package fact

import "time"

// Process is a program that runs.
type Process struct {
	PID       int32
	Name      string        // comm, in full where the command line shows more than the kernel's 15 bytes
	Command   []string      // argv; nil when not looked at, empty for a kernel thread
	UID       uint32        // effective
	Started   time.Duration // age; 0 when not looked at
	Netns     uint32        // 0 = unknown
	Container string        // id of 64 hex digits as the runtime knows it; name of an lxc or systemd-nspawn container; "" = none
	Runtime   string        // docker, containerd, cri-o, podman, lxc, systemd-nspawn as the cgroup path says; "" = none or unknown
	Unit      string        // systemd unit, such as sshd.service; "" = none
	Cgroup    string        // path of its cgroup
	Files     Known[Files]
	Program   *Program // nil when not looked at or not readable
}

// Files is how many file descriptors a process has open and may have.
type Files struct {
	Open  int
	Limit uint64 // soft RLIMIT_NOFILE; math.MaxUint64 = unlimited
}

// Program is what an executable file says about itself.
type Program struct {
	Path    string
	Go      string // version of the toolchain, such as go1.26.8; "" = not a Go program
	Module  string // main module
	Version string // of the main module
	CGO     Known[bool]
	Tags    []string // build tags
	Static  bool     // no dynamic loader
}
