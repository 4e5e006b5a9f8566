package sshconf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

const (
	lockPause    = 10 * time.Millisecond // between two tries to lock a file
	lockPatience = 10 * time.Second      // for somebody else who has it locked
)

// remember writes the key of a new host to the first of the user's files: one
// line, in one write, at the end, so that nobody who writes there without the
// lock, as OpenSSH does, loses a line, and nobody reads half of one. If the host
// has become known since, that counts.
func (h *Host) remember(ctx context.Context, key xssh.PublicKey) (err error) {
	if len(h.KnownHosts) == 0 {
		return nil // UserKnownHostsFile none
	}
	name := h.KnownHosts[0]
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	file, err := openLocked(ctx, name)
	if err != nil {
		return fmt.Errorf("writing the key of a new host: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }() // which ends the lock too
	now, err := h.known()
	if err != nil {
		return err
	}
	if err := now.judge(h.identity(), key); !errors.Is(err, ErrUnknown) {
		return err
	}
	line, err := h.knownLine(key)
	if err != nil {
		return err
	}
	if open, err := endsOpen(file); err != nil {
		return err
	} else if open {
		line = "\n" + line
	}
	_, err = file.WriteString(line)
	return err
}

// known reads all files of known hosts.
func (h *Host) known() (known, error) {
	return readKnown(append(append([]string(nil), h.KnownHosts...), h.GlobalHosts...))
}

func (h *Host) knownLine(key xssh.PublicKey) (string, error) {
	name := strings.ToLower(h.identity().name)
	if strings.ContainsAny(name, " \t\r\n,#*?!|@") {
		return "", fmt.Errorf("the name %q cannot be written to known_hosts", name)
	}
	if h.HashKnownHosts {
		name = knownhosts.HashHostname(name)
	}
	return name + " " + string(xssh.MarshalAuthorizedKey(plain(key))), nil
}

// openLocked opens a file to add to it and locks it. While it waited for the
// lock, ssh-keygen may have put another file in its place: then that is taken.
func openLocked(ctx context.Context, name string) (*os.File, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lockPatience, fmt.Errorf("%s is locked by somebody else for more than %v", name, lockPatience))
	defer cancel()
	for {
		file, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		locked, err := tryLock(file)
		if err == nil && locked {
			mine, err := file.Stat()
			there, err2 := os.Stat(name)
			if err == nil && err2 == nil && os.SameFile(mine, there) {
				return file, nil
			}
		}
		_ = file.Close()
		if err != nil {
			return nil, fmt.Errorf("locking %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(lockPause):
		}
	}
}

// endsOpen reports whether the last line of a file has no end.
func endsOpen(file *os.File) (bool, error) {
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return false, err
	}
	last := make([]byte, 1)
	_, err = file.ReadAt(last, info.Size()-1)
	return last[0] != '\n', err
}
