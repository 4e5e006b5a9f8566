//go:build linux

package getaddrinfo

import (
	"debug/elf"
	_ "embed"
)

// asker is the program that asks, built from the folder of that name.
//
//go:embed asker_arm64.elf
var asker []byte

// What this machine's programs look like.
const (
	machine     = elf.EM_AARCH64
	glibcLoader = "/lib/ld-linux-aarch64.so.1"
)
