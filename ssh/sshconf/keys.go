package sshconf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/lifeline-go/lifeline/internal/knownhosts"
	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
)

// ErrPassphrase: a key is encrypted, and the passphrase is missing or wrong. It
// is that of package ssh.
var ErrPassphrase = ssh.ErrPassphrase

const largestKey = 1 << 20 // of a file with a key, in bytes

// A fileKey is an identity file. It is shown to the server by its public half;
// the passphrase is asked for when the server has said that it would do.
type fileKey struct {
	path   string
	public xssh.PublicKey // nil when it is encrypted and there is no file with it
	text   []byte         // the private key; nil when there is only the public one
	ask    func(file string) ([]byte, error)
	tries  int

	mu     sync.Mutex
	signer xssh.Signer // when it is open
}

// readKey reads an identity file, and what lies beside it.
func readKey(path string) (*fileKey, error) {
	k := &fileKey{path: path}
	text, err := readSmall(path)
	if errors.Is(err, os.ErrNotExist) {
		if k.public, _ = readPublic(path + ".pub"); k.public != nil {
			return k, nil
		}
	}
	if err != nil {
		return nil, err
	}
	if public, _, _, _, err := xssh.ParseAuthorizedKey(text); err == nil {
		k.public = public
		return k, nil
	}
	if err := keptPrivate(path); err != nil {
		return nil, err
	}
	k.text = text
	k.signer, err = xssh.ParsePrivateKey(text)
	var encrypted *xssh.PassphraseMissingError
	switch {
	case err == nil:
		k.public = k.signer.PublicKey()
	case errors.As(err, &encrypted):
		if k.public = encrypted.PublicKey; k.public == nil {
			k.public, _ = readPublic(path + ".pub")
		}
	default:
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// readSmall reads a file with a key.
func readSmall(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, largestKey+1))
	if err == nil && len(text) > largestKey {
		err = fmt.Errorf("%s is larger than %d MiB", name, largestKey>>20)
	}
	return text, err
}

func readPublic(path string) (xssh.PublicKey, error) {
	text, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	key, _, _, _, err := xssh.ParseAuthorizedKey(text)
	return key, err
}

// readCertificate reads what ssh-keygen -s has written.
func readCertificate(path string) (*xssh.Certificate, error) {
	key, err := readPublic(path)
	if err != nil {
		return nil, err
	}
	certificate, ok := key.(*xssh.Certificate)
	if !ok {
		return nil, fmt.Errorf("%s is no certificate", path)
	}
	return certificate, nil
}

// open decrypts the key, if that is still to be done.
func (k *fileKey) open() (xssh.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.signer != nil {
		return k.signer, nil
	}
	if k.ask == nil {
		return nil, &lockedError{k.path + " is encrypted, and nobody can be asked for its passphrase: ssh-add it to an agent", nil}
	}
	for try := 0; try < max(k.tries, 1); try++ {
		passphrase, err := k.ask(k.path)
		if err != nil {
			return nil, &lockedError{k.path + " is encrypted, and there is no passphrase: " + err.Error(), err}
		}
		signer, err := xssh.ParsePrivateKeyWithPassphrase(k.text, passphrase)
		if err != nil {
			continue // x/crypto tells a wrong one in several ways
		}
		if k.public != nil && !knownhosts.Same(signer.PublicKey(), knownhosts.Plain(k.public)) {
			return nil, fmt.Errorf("%s is not the private half of %s.pub", k.path, k.path)
		}
		k.signer = signer
		return signer, nil
	}
	return nil, &lockedError{k.path + ": the passphrase is wrong", nil}
}

// lockedError is ErrPassphrase in better words.
type lockedError struct {
	text  string
	cause error
}

func (e *lockedError) Error() string        { return e.text }
func (e *lockedError) Unwrap() error        { return e.cause }
func (e *lockedError) Is(target error) bool { return target == ErrPassphrase }

func (k *fileKey) PublicKey() xssh.PublicKey { return k.public }

func (k *fileKey) Sign(rand io.Reader, data []byte) (*xssh.Signature, error) {
	return k.SignWithAlgorithm(rand, data, "")
}

func (k *fileKey) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*xssh.Signature, error) {
	signer, err := k.open()
	if err != nil {
		return nil, err
	}
	if with, ok := signer.(xssh.AlgorithmSigner); ok && algorithm != "" {
		return with.SignWithAlgorithm(rand, data, algorithm)
	}
	return signer.Sign(rand, data)
}

// A keyring is the keys of one attempt, and why others are not among them.
type keyring struct {
	host  *Host
	agent *agentSocket // nil for none
	ask   func(file string) ([]byte, error)
	notes []error
}

// signers returns the keys in the order of pubkey_prepare in OpenSSH's
// sshconnect2.c: certificates; keys of the agent that are in the configuration,
// in its order; other keys of the agent; keys that are only in files.
func (r *keyring) signers(ctx context.Context) []xssh.Signer {
	files := r.files()
	var held []*agentKey
	if r.agent != nil {
		held = r.held(ctx, files)
	}
	var chosen, others, alone []xssh.Signer
	for _, f := range files {
		if at := slices.IndexFunc(held, func(k *agentKey) bool { return f.public != nil && knownhosts.Same(k.public, f.public) }); at >= 0 {
			if f.text != nil {
				held[at].file = f
			}
			chosen = append(chosen, held[at])
			held = slices.Delete(held, at, at+1)
		} else if f.text != nil {
			alone = append(alone, f)
		}
	}
	for _, k := range held {
		others = append(others, k)
	}
	certified := r.certified(append(slices.Concat(chosen, others), alone...))
	if r.host.IdentitiesOnly {
		others = nil
	}
	all := slices.Concat(certified, chosen, others, alone)
	return slices.DeleteFunc(all, func(s xssh.Signer) bool {
		f, lazy := s.(*fileKey)
		return lazy && !r.showable(f)
	})
}

// showable opens a key whose public half is known only then.
func (r *keyring) showable(f *fileKey) bool {
	if f.public != nil {
		return true
	}
	signer, err := f.open()
	if err != nil {
		r.notes = append(r.notes, err)
		return false
	}
	f.public = signer.PublicKey()
	return true
}

// files reads the identity files. That one is missing is worth no word: those
// that are tried by default mostly are.
func (r *keyring) files() (keys []*fileKey) {
	for _, path := range r.host.IdentityFiles {
		k, err := readKey(path)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				r.notes = append(r.notes, err)
			}
			continue
		}
		k.ask, k.tries = r.ask, r.host.PasswordPrompts
		keys = append(keys, k)
	}
	return keys
}

// held asks the agent for its keys.
func (r *keyring) held(ctx context.Context, files []*fileKey) (keys []*agentKey) {
	listed, err := r.agent.keys(ctx)
	if err != nil {
		r.notes = append(r.notes, err)
	}
	for _, key := range listed {
		public, err := xssh.ParsePublicKey(key.Blob)
		if err != nil {
			continue // of a kind that cannot be used here
		}
		k := &agentKey{agent: r.agent, public: public}
		k.sign = func(request agentRequest) error { return k.agent.ask(ctx, agentSign, request) }
		keys = append(keys, k)
	}
	return keys
}

// certified pairs the certificates of the configuration, and those that lie
// beside identity files, with keys.
func (r *keyring) certified(keys []xssh.Signer) (signers []xssh.Signer) {
	paths := slices.Clone(r.host.Certificates)
	for _, path := range r.host.IdentityFiles {
		paths = append(paths, strings.TrimSuffix(path, ".pub")+"-cert.pub")
	}
	for i, path := range paths {
		certificate, err := readCertificate(path)
		if err != nil {
			if i < len(r.host.Certificates) || !errors.Is(err, os.ErrNotExist) {
				r.notes = append(r.notes, err)
			}
			continue
		}
		for _, key := range keys {
			if key.PublicKey() == nil || !knownhosts.Same(key.PublicKey(), certificate.Key) {
				continue
			}
			if signer, err := xssh.NewCertSigner(certificate, key); err == nil {
				signers = append(signers, signer)
			} else {
				r.notes = append(r.notes, fmt.Errorf("%s: %w", path, err))
			}
			break
		}
	}
	return signers
}
