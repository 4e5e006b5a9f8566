package sshconf

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// What is wrong with a host key, for errors.Is of a [HostKeyError]. The first
// three are those of package ssh.
var (
	// ErrUnknown: no known_hosts file has the host.
	ErrUnknown = ssh.ErrHostKeyUnknown
	// ErrChanged: the files have the host with other keys only. Either it was
	// installed anew, or somebody is in between.
	ErrChanged = ssh.ErrHostKeyChanged
	// ErrRevoked: the key is marked as one that must not be used any more.
	ErrRevoked = ssh.ErrHostKeyRevoked
	// ErrCertificate: the host shows a certificate of an authority that is known
	// for it, which is not valid for it.
	ErrCertificate = errors.New("the host certificate is not valid")
)

// HostKeyError says why a host key is not accepted.
type HostKeyError struct {
	Kind  error          // ErrUnknown, ErrChanged, ErrRevoked or ErrCertificate
	Name  string         // as known_hosts has it: host, or [host]:port
	Key   xssh.PublicKey // that the host shows
	Known []KnownKey     // what the files have: the keys of the host, or the one that revokes
	Err   error          // what more there is to say, or nil
}

// KnownKey is a key and the line it is in.
type KnownKey struct {
	At  Position
	Key xssh.PublicKey
}

func (e *HostKeyError) Error() string {
	text := fmt.Sprintf("%s: %v: it shows %s", e.Name, e.Kind, fingerprint(e.Key))
	for i, k := range e.Known {
		if i == 3 {
			text += fmt.Sprintf(", and %d more", len(e.Known)-i)
			break
		}
		text += fmt.Sprintf(", %v has %s", k.At, fingerprint(k.Key))
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	switch e.Kind {
	case ErrUnknown:
		text += "; compare it with the host's own (ssh-keygen -lf), then connect once with StrictHostKeyChecking=accept-new"
	case ErrChanged:
		text += fmt.Sprintf("; if the host was installed anew: ssh-keygen -f %s -R %s", quoted(e.Known[0].At.File), quoted(e.Name))
	}
	return text
}

// Unwrap returns Kind and Err.
func (e *HostKeyError) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

func fingerprint(key xssh.PublicKey) string { return key.Type() + " " + xssh.FingerprintSHA256(key) }

// quoted makes one word of a shell of text.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// largestKnownHosts is how many bytes of one file are read.
const largestKnownHosts = 256 << 20

// A knownLine is one line of a known_hosts file. Keys are parsed when their
// hosts are asked for: files may have many, and a connection wants one.
type knownLine struct {
	at     Position
	marker string // cert-authority, revoked or nothing
	hosts  string // patterns with commas, or one hash
	text   []byte // of the line; nil when there is the key
	key    xssh.PublicKey
}

// known returns the key, if it is of a kind that can be used here.
func (l knownLine) known() (KnownKey, bool) {
	if l.key == nil {
		_, _, key, _, _, err := xssh.ParseKnownHosts(l.text)
		if err != nil {
			return KnownKey{}, false
		}
		l.key = key
	}
	return KnownKey{l.at, l.key}, true
}

// A known is what known_hosts files have. Of the package knownhosts of x/crypto
// only what writes is used: it fails for all hosts when one line of a file is of
// a kind that it does not know.
type known []knownLine

// readKnown reads files; one that is not there has no lines.
func readKnown(files []string) (k known, err error) {
	for _, name := range files {
		text, err := readAtMost(name, largestKnownHosts)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := k.read(name, text); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func readAtMost(name string, most int64) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%s is larger than %d MiB", name, most>>20)
	}
	return text, err
}

// read takes the lines of a file. Those that make no sense are left out, as by
// OpenSSH; but not a marked one, which may be there to revoke a key: unless the
// key is of a kind that cannot be used here at all.
func (k *known) read(name string, text []byte) error {
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		l := knownLine{at: Position{name, number}, text: line}
		if line[0] == '@' {
			var err error
			if l, err = marked(l); err != nil {
				return err
			}
		} else if end := bytes.IndexAny(line, " \t"); end > 0 {
			l.hosts = string(line[:end])
		}
		if l.hosts != "" {
			*k = append(*k, l)
		}
	}
	return nil
}

// marked parses a line that has a marker. It is empty when its key is of no use
// here.
func marked(l knownLine) (knownLine, error) {
	marker, hosts, key, _, _, err := xssh.ParseKnownHosts(l.text)
	if err == nil && (marker == "cert-authority" || marker == "revoked") {
		return knownLine{at: l.at, marker: marker, hosts: strings.Join(hosts, ","), key: key}, nil
	}
	if words := strings.Fields(string(l.text)); len(words) < 4 || usable(words[2]) {
		return knownLine{}, fmt.Errorf("%v: a line with a marker cannot be understood, and it may revoke a key: repair or remove it", l.at)
	}
	return knownLine{}, nil
}

// usable reports whether x/crypto has keys of the kind.
func usable(kind string) bool {
	return kind == xssh.KeyAlgoRSA || slices.Contains(xssh.SupportedAlgorithms().HostKeys, kind) || slices.Contains(xssh.InsecureAlgorithms().HostKeys, kind)
}

// of returns the keys of a host, and the authorities for it.
func (k known) of(name string) (keys, authorities []KnownKey) {
	name = strings.ToLower(name)
	for _, line := range k {
		if line.marker == "revoked" || !line.matches(name) {
			continue
		}
		key, usable := line.known()
		switch {
		case !usable:
		case line.marker == "":
			keys = append(keys, key)
		default:
			authorities = append(authorities, key)
		}
	}
	return keys, authorities
}

func (l knownLine) matches(name string) bool {
	if strings.HasPrefix(l.hosts, "|") {
		return matchesHash(l.hosts, name)
	}
	return matchesAny(strings.Split(strings.ToLower(l.hosts), ","), name)
}

// matchesHash reports whether a name has the hash |1|salt|HMAC-SHA1, as in
// host_hash of OpenSSH's hostfile.c.
func matchesHash(hash, name string) bool {
	parts := strings.Split(hash, "|")
	if len(parts) != 4 || parts[1] != "1" {
		return false
	}
	salt, err := base64.StdEncoding.DecodeString(parts[2])
	want, err2 := base64.StdEncoding.DecodeString(parts[3])
	if err != nil || err2 != nil {
		return false
	}
	mac := hmac.New(sha1.New, salt)
	mac.Write([]byte(name))
	return hmac.Equal(mac.Sum(nil), want)
}

// revoked returns the line that revokes a key, for whichever hosts it does.
func (k known) revoked(key xssh.PublicKey) (KnownKey, bool) {
	for _, line := range k {
		if line.marker == "revoked" && sameKey(plain(line.key), plain(key)) {
			return KnownKey{line.at, line.key}, true
		}
	}
	return KnownKey{}, false
}

func sameKey(a, b xssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }

// plain returns the key in a certificate, and another as it is.
func plain(key xssh.PublicKey) xssh.PublicKey {
	if certificate, ok := key.(*xssh.Certificate); ok {
		return certificate.Key
	}
	return key
}

// An identity is by which names a host is known.
type identity struct {
	name      string // as in known_hosts
	portless  string // accepted too when it has the very key; empty if the port is 22
	principal string // as in certificates
}

func (h *Host) identity() identity {
	if h.HostKeyAlias != "" {
		return identity{name: h.HostKeyAlias, principal: h.HostKeyAlias}
	}
	id := identity{name: knownhosts.Normalize(h.Address()), principal: h.Name}
	if id.name != h.Name {
		id.portless = h.Name
	}
	return id
}

// judge says what is wrong with the key of a host.
func (k known) judge(id identity, key xssh.PublicKey) error {
	wrong := &HostKeyError{Name: id.name, Key: key}
	certificate, _ := key.(*xssh.Certificate)
	suspects := []xssh.PublicKey{key}
	if certificate != nil {
		suspects = append(suspects, certificate.SignatureKey)
	}
	for _, suspect := range suspects {
		if line, ok := k.revoked(suspect); ok {
			wrong.Kind, wrong.Known = ErrRevoked, []KnownKey{line}
			return wrong
		}
	}
	keys, authorities := k.of(id.name)
	is := func(other xssh.PublicKey) func(KnownKey) bool {
		return func(k KnownKey) bool { return sameKey(k.Key, other) }
	}
	var portless, portlessAuthorities []KnownKey
	if id.portless != "" {
		portless, portlessAuthorities = k.of(id.portless)
	}
	if certificate != nil && slices.ContainsFunc(append(authorities, portlessAuthorities...), is(certificate.SignatureKey)) {
		if err := checkCertificate(certificate, id.principal); err != nil {
			wrong.Kind, wrong.Err = ErrCertificate, err
			return wrong
		}
		return nil
	}
	switch {
	case slices.ContainsFunc(keys, is(plain(key))):
		return nil
	case len(keys) > 0:
		wrong.Kind, wrong.Known = ErrChanged, keys
	case slices.ContainsFunc(portless, is(plain(key))): // check_host_key in sshconnect.c, "checking without port identifier"
		return nil
	default:
		wrong.Kind = ErrUnknown
	}
	return wrong
}

func checkCertificate(certificate *xssh.Certificate, principal string) error {
	if certificate.CertType != xssh.HostCert {
		return errors.New("it is the certificate of a user")
	}
	return (&xssh.CertChecker{}).CheckCert(principal, certificate)
}

// algorithms returns what a host is asked to show its key in: first what could
// be checked, then what else is allowed, so that a host that has only other keys
// is found to have changed and not to be incompatible.
func (k known) algorithms(id identity, allowed []string) []string {
	keys, authorities := k.of(id.name)
	if id.portless != "" {
		others, otherAuthorities := k.of(id.portless)
		keys, authorities = append(keys, others...), append(authorities, otherAuthorities...)
	}
	first := func(algorithm string) bool {
		if strings.Contains(algorithm, "-cert-v01@") {
			return len(authorities) > 0
		}
		return slices.ContainsFunc(keys, func(k KnownKey) bool { return keyKind(algorithm) == k.Key.Type() })
	}
	var checkable, rest []string
	for _, algorithm := range allowed {
		if first(algorithm) {
			checkable = append(checkable, algorithm)
		} else {
			rest = append(rest, algorithm)
		}
	}
	return append(checkable, rest...)
}

// keyKind returns the kind of key that an algorithm signs with.
func keyKind(algorithm string) string {
	switch algorithm {
	case xssh.KeyAlgoRSASHA256, xssh.KeyAlgoRSASHA512:
		return xssh.KeyAlgoRSA
	}
	return algorithm
}
