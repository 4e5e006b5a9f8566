//go:build linux

package dnsconf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

var (
	errTooLong    = errors.New("too long")
	errNotRegular = errors.New("not a regular file")
)

// readFile reads a regular file below root, and no more than most bytes of it.
// When it has more, what was read is returned with errTooLong.
func readFile(root, path string, most int) ([]byte, error) {
	f, err := open(root, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s, %w", kind(info.Mode()), errNotRegular)
	}
	text, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err != nil {
		return nil, err
	}
	if len(text) > most {
		return text[:most], fmt.Errorf("%w: only the first %d bytes were read", errTooLong, most)
	}
	return text, nil
}

// open opens without waiting for a writer, should it be a FIFO. Links in the
// root of a container are the container's: they must not lead out of it.
func open(root, path string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	if root == "" || filepath.Clean(root) == "/" {
		return opened(unix.Open("/"+path, flags, 0))
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", root, noRoot(err))
	}
	defer unix.Close(dir)
	return opened(unix.Openat2(dir, path, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_IN_ROOT}))
}

func opened(fd int, err error) (*os.File, error) {
	if err != nil {
		return nil, err // an ENOSYS is an errors.ErrUnsupported
	}
	return os.NewFile(uintptr(fd), ""), nil
}

// noRoot keeps a root that is gone, as /proc/PID/root is when the process ends,
// from looking like a file that is not in it.
func noRoot(err error) error {
	if err == unix.ENOENT {
		return errors.New("no such directory")
	}
	return err
}

// kind says what a file is that is not regular.
func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeDevice != 0:
		return "a device"
	default:
		return mode.String()
	}
}
