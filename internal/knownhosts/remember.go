package knownhosts

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

// Remember writes the key of a new host to a file, which is one of those that
// [Lookup] read: one line, in one write, at the end, so that nobody who writes
// there without the lock, as OpenSSH does, loses a line, and nobody reads half
// of one. If the files have come to know the host since, nothing is written, and
// the verdict is theirs; else it is OK. It waits for others who have the file
// locked until the context ends, and no more than 10 s.
func (k *Known) Remember(ctx context.Context, file string, key xssh.PublicKey, hash bool) (v Verdict, err error) {
	line, err := k.host.line(key, hash)
	if err != nil {
		return Verdict{}, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return Verdict{}, err
	}
	locked, err := openLocked(ctx, file)
	if err != nil {
		return Verdict{}, fmt.Errorf("writing the key of a new host: %w", err)
	}
	defer func() { err = errors.Join(err, locked.Close()) }() // which ends the lock too
	now, err := Lookup(k.host, k.files...)
	if err != nil {
		return Verdict{}, err
	}
	if v := now.Judge(key); v.Kind != Unknown {
		return v, nil
	}
	if open, err := endsOpen(locked); err != nil {
		return Verdict{}, err
	} else if open {
		line = "\n" + line
	}
	_, err = locked.WriteString(line)
	return Verdict{}, err
}

func (h Host) line(key xssh.PublicKey, hash bool) (string, error) {
	name := strings.ToLower(h.Name)
	if name == "" || strings.ContainsAny(name, " \t\r\n,#*?!|@") {
		return "", fmt.Errorf("the name %q cannot be written to known_hosts", name)
	}
	if hash {
		name = knownhosts.HashHostname(name)
	}
	return name + " " + string(xssh.MarshalAuthorizedKey(Plain(key))), nil
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
