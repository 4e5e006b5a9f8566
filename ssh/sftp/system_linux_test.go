package sftp_test

import "golang.org/x/sys/unix"

func mount(dir, options string) error { return unix.Mount("none", dir, "tmpfs", 0, options) }
func unmount(dir string) error        { return unix.Unmount(dir, unix.MNT_DETACH) }

func fifo(path string) error { return unix.Mkfifo(path, 0o644) }
