//go:build linux && (amd64 || arm64)

package getaddrinfo

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// systemLoader returns the dynamic loader that this system's own programs name,
// because that is the one whose C library has the system's configuration. Where
// there is no such program, or only static ones, it looks where loaders are.
func systemLoader() (string, error) {
	for _, program := range []string{"/usr/bin/getent", "/bin/sh", "/usr/bin/env"} {
		if loader := interpreter(program); loader != "" {
			return loader, nil
		}
	}
	for _, pattern := range []string{glibcLoader, "/lib/ld-musl-*.so.1"} {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			return found[0], nil
		}
	}
	return "", errors.New("this system has no dynamic loader, neither glibc's nor musl's")
}

// interpreter returns the loader that a program for this machine names, empty
// where it names none.
func interpreter(program string) string {
	f, err := elf.Open(program)
	if err != nil {
		return ""
	}
	defer f.Close()
	if f.Machine != machine || f.Class != elf.ELFCLASS64 {
		return ""
	}
	for _, segment := range f.Progs {
		if segment.Type == elf.PT_INTERP && segment.Filesz <= 4096 {
			path := make([]byte, segment.Filesz)
			if _, err := segment.ReadAt(path, 0); err == nil {
				return strings.TrimRight(string(path), "\x00")
			}
		}
	}
	return ""
}

// sealed returns a file in memory with the program, which nobody can change any
// more. vm.memfd_noexec is obeyed: it is an administrator's wish that nothing is
// run from such files.
func sealed(program []byte) (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("lifeline-getaddrinfo", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 there is no such flag
		fd, err = unix.MemfdCreate("lifeline-getaddrinfo", flags)
	}
	switch {
	case errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("memfd_create: %w; vm.memfd_noexec forbids to run programs from memory", err)
	case err != nil:
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "lifeline-getaddrinfo")
	if _, err := f.Write(program); err != nil {
		f.Close()
		return nil, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, fmt.Errorf("sealing a memfd: %w", err)
	}
	return f, nil
}
