package ssh

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/skeema/knownhosts"
	xssh "golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"
)

// What was wrong with a host key, for errors.Is. All of them are [ErrHostKey].
var (
	// ErrHostKeyUnknown: no file has a key for this host.
	ErrHostKeyUnknown = errors.New("the host is not known")
	// ErrHostKeyChanged: the files have other keys for this host. Somebody may be
	// in between.
	ErrHostKeyChanged = errors.New("the host key has changed")
	// ErrHostKeyRevoked: a file says that the key is not to be used any more.
	ErrHostKeyRevoked = errors.New("the host key is revoked")
)

// KnownHosts accepts the host keys that are in files of OpenSSH's format, with
// hashed names, @cert-authority and @revoked. The zero value knows no host.
//
// A line that cannot be understood is an error for every host, because it might
// be one that revokes. A file that is not there is empty.
type KnownHosts struct {
	// Files are read, all of them, for each connection.
	Files []string
	// AcceptNew accepts the key of a host of which there is none, and writes it to
	// the first of Files. A changed key is never accepted.
	AcceptNew bool
	// Hash writes the names of new hosts as hashes.
	Hash bool
}

// load reads the files. The algorithms are those of the keys that are known for
// the host, so that a server with several keys shows one that can be checked.
func (k KnownHosts) load(host string) (check xssh.HostKeyCallback, algorithms []string, err error) {
	var there []string
	for _, file := range k.Files {
		if _, err := os.Stat(file); err == nil {
			there = append(there, file)
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, nil, err
		}
	}
	db, err := knownhosts.NewDB(there...)
	if err != nil {
		return nil, nil, err
	}
	return db.HostKeyCallback(), preferred(db.HostKeyAlgorithms(host)), nil
}

// preferred puts the algorithms of known keys before all others: a server that
// has none of them shows another key, and is found to have changed. Where an
// authority is known, any kind of certificate may be by it.
func preferred(known []string) (algorithms []string) {
	if len(known) == 0 {
		return nil
	}
	all := xssh.SupportedAlgorithms().HostKeys
	isCertificate := func(name string) bool { return strings.Contains(name, "-cert-v01@") }
	authority := slices.ContainsFunc(known, isCertificate)
	add := func(names []string, certificates bool) {
		for _, name := range names {
			if isCertificate(name) == certificates && slices.Contains(all, name) && !slices.Contains(algorithms, name) {
				algorithms = append(algorithms, name)
			}
		}
	}
	if authority {
		add(known, true)
		add(all, true)
	}
	add(known, false)
	add(all, false)
	return algorithms
}

// check checks a key; done ends the wait for others that write to the file.
func (k KnownHosts) check(known xssh.HostKeyCallback, host string, remote net.Addr, key xssh.PublicKey, done <-chan struct{}) error {
	if _, _, err := net.SplitHostPort(remote.String()); err != nil {
		remote = &net.TCPAddr{} // a connection without addresses; the name counts anyway
	}
	err := explained(known(host, remote, key), key)
	if !errors.Is(err, ErrHostKeyUnknown) || !k.AcceptNew {
		return err
	}
	if len(k.Files) == 0 {
		return errors.New("KnownHosts.AcceptNew needs a file in KnownHosts.Files to write to")
	}
	return k.add(host, remote, key, done)
}

// explained says what the error of a check means.
func explained(err error, key xssh.PublicKey) error {
	var revoked *xknownhosts.RevokedError
	var other *xknownhosts.KeyError
	shown := key.Type() + " " + xssh.FingerprintSHA256(key)
	switch {
	case errors.As(err, &revoked):
		return fmt.Errorf("%w, by %s:%d: %s: %w", ErrHostKeyRevoked, revoked.Revoked.Filename, revoked.Revoked.Line, shown, err)
	case errors.As(err, &other) && len(other.Want) > 0:
		want := other.Want[0]
		return fmt.Errorf("%w: it is %s, and %s:%d has %s; ask the server's administrator, then remove that line: %w",
			ErrHostKeyChanged, shown, want.Filename, want.Line, xssh.FingerprintSHA256(want.Key), err)
	case errors.As(err, &other):
		return fmt.Errorf("%w: its key is %s; compare it with the server's, then add it to known_hosts: %w", ErrHostKeyUnknown, shown, err)
	}
	return err
}

// add writes a new key to the first file, unless somebody else has done so
// since it was read.
func (k KnownHosts) add(host string, remote net.Addr, key xssh.PublicKey, done <-chan struct{}) (err error) {
	name := k.Files[0]
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }() // which ends the lock as well
	if err := lock(file, done); err != nil {
		return fmt.Errorf("locking %s: %w", name, err)
	}
	known, _, err := k.load(host)
	if err != nil {
		return err
	}
	if err := explained(known(host, remote, key), key); !errors.Is(err, ErrHostKeyUnknown) {
		return err
	}
	line, err := k.line(file, host, key)
	if err != nil {
		return err
	}
	_, err = file.WriteString(line) // at once, so that nobody who reads without the lock sees a part
	return err
}

func (k KnownHosts) line(file *os.File, host string, key xssh.PublicKey) (string, error) {
	name := xknownhosts.Normalize(host)
	if strings.ContainsAny(name, " \t\r\n,#*?!|") {
		return "", fmt.Errorf("%q cannot be written to known_hosts", host)
	}
	if k.Hash {
		name = xknownhosts.HashHostname(name)
	}
	line := name + " " + strings.TrimSuffix(string(xssh.MarshalAuthorizedKey(key)), "\n") + "\n"
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return line, err
	}
	last := make([]byte, 1)
	if _, err := file.ReadAt(last, info.Size()-1); err != nil {
		return "", err
	}
	if last[0] != '\n' {
		line = "\n" + line
	}
	return line, nil
}

// lockPause is how long to wait before trying again to lock a file.
const lockPause = 10 * time.Millisecond

// lock waits for the file to be nobody else's, until done.
func lock(file *os.File, done <-chan struct{}) error {
	for {
		locked, err := tryLock(file)
		if locked || err != nil {
			return err
		}
		select {
		case <-done:
			return errors.New("somebody else keeps it locked")
		case <-time.After(lockPause):
		}
	}
}
