//go:build unix

package sshconf

import (
	"fmt"
	"os"
	"syscall"
)

// writableByOthers reports whether a file belongs to neither this user nor root,
// or others may write to it: then others could choose what is run.
func writableByOthers(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return info.Mode().Perm()&0o022 != 0 || ok && stat.Uid != 0 && int(stat.Uid) != os.Getuid()
}

// keptPrivate refuses a private key that others can read, as OpenSSH does.
func keptPrivate(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(stat.Uid) == os.Getuid() && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is left out because others can read it: chmod 600", path)
	}
	return nil
}
