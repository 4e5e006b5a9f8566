//go:build linux

package getaddrinfo

import (
	"debug/elf"
	_ "embed"
)

// asker is the program that asks, built from the folder of that name.
//
//go:embed asker_amd64.elf
var asker []byte

// What this machine's programs look like.
const (
	machine     = elf.EM_X86_64
	glibcLoader = "/lib64/ld-linux-x86-64.so.2"
)
