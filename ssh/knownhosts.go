package ssh

import (
	"context"
	"errors"
	"fmt"

	"github.com/lifeline-go/lifeline/internal/knownhosts"
	xssh "golang.org/x/crypto/ssh"
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
// A line that cannot be understood is left out, as by OpenSSH, unless it might
// be one that revokes: then it is an error for the hosts that it names, or for
// every host where that cannot be told. A file that is not there is empty.
type KnownHosts struct {
	// Files are read, all of them, for each connection.
	Files []string
	// AcceptNew accepts the key of a host of which there is none, and writes it to
	// the first of Files. A changed key is never accepted.
	AcceptNew bool
	// Hash writes the names of new hosts as hashes.
	Hash bool
}

// load reads what the files have of the host at an address. The algorithms are
// those of the keys that are known first, so that a server with several keys
// shows one that can be checked.
func (k KnownHosts) load(address string) (known *knownhosts.Known, algorithms []string, err error) {
	known, err = knownhosts.Lookup(knownhosts.At(address), k.Files...)
	if err == nil && known.Any() {
		algorithms = known.Algorithms(xssh.SupportedAlgorithms().HostKeys)
	}
	return known, algorithms, err
}

// check checks a key; done ends the wait for others that write to the file.
func (k KnownHosts) check(known *knownhosts.Known, key xssh.PublicKey, done <-chan struct{}) error {
	verdict := known.Judge(key)
	if verdict.Kind != knownhosts.Unknown || !k.AcceptNew {
		return explained(verdict, known, key)
	}
	if len(k.Files) == 0 {
		return errors.New("KnownHosts.AcceptNew needs a file in KnownHosts.Files to write to")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-done:
			cancel()
		case <-ctx.Done():
		}
	}()
	verdict, err := known.Remember(ctx, k.Files[0], key, k.Hash)
	if err != nil {
		return err
	}
	return explained(verdict, known, key)
}

// explained says what a verdict means. It is nil when nothing is wrong.
func explained(v knownhosts.Verdict, known *knownhosts.Known, key xssh.PublicKey) error {
	shown := knownhosts.Fingerprint(key)
	switch v.Kind {
	case knownhosts.OK:
		return nil
	case knownhosts.Revoked:
		return fmt.Errorf("%w, by %v: %s", ErrHostKeyRevoked, v.Keys[0].At, shown)
	case knownhosts.Changed:
		return fmt.Errorf("%w: it is %s, and %v has %s; ask the server's administrator, then remove that line",
			ErrHostKeyChanged, shown, v.Keys[0].At, knownhosts.Fingerprint(v.Keys[0].Key))
	case knownhosts.Certificate:
		return fmt.Errorf("the host certificate is not valid: %w", v.Err)
	}
	text := ""
	if skipped := known.Skipped; len(skipped) > 0 {
		text = fmt.Sprintf("; %v makes no sense and is left out", skipped[len(skipped)-1])
	}
	return fmt.Errorf("%w: its key is %s; compare it with the server's, then add it to known_hosts%s", ErrHostKeyUnknown, shown, text)
}
