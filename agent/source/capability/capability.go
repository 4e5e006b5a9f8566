// Package capability tells which capabilities(7) this thread holds, so that a
// source that was refused something can name what would let it see.
package capability

import "golang.org/x/sys/unix"

// Policy is what stands in the way of somebody who holds every capability that
// the kernel asks for.
const Policy = "a security policy that allows it: the capabilities are held"

// Held reports whether this thread may use a capability, such as
// unix.CAP_SYS_PTRACE, in its user namespace.
func Held(capability uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // the second half is for capabilities from 32 on
	err := unix.Capget(&header, &data[0])
	return err == nil && data[capability/32].Effective&(1<<(capability%32)) != 0
}

// Missing returns what is needed after a refusal: needs, which names the given
// capabilities, or [Policy] where all of them are held already.
func Missing(needs string, capabilities ...uint) string {
	for _, c := range capabilities {
		if !Held(c) {
			return needs
		}
	}
	return Policy
}

// Program returns what is needed after a refusal to look into a program of somebody
// else, or at its file: the first right that is missing, or [Policy].
func Program() string {
	needs := Missing("CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE)
	if needs == Policy { // a file that its user alone may read
		needs = Missing("CAP_DAC_READ_SEARCH", unix.CAP_DAC_READ_SEARCH)
	}
	return needs
}
