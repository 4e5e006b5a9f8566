// Package knownhosts reads and writes files of known hosts as OpenSSH does, for
// one host at a time: keys with and without ports, hashed names, authorities
// and revoked keys.
//
// A line that makes no sense is left out, as by OpenSSH, and told of; but one
// that may be there to revoke a key is an error for the hosts that it names, or
// for all where that cannot be told. OpenSSH skips that one too, and what was
// revoked would be accepted again.
package knownhosts

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"

	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

const (
	largestFile = 256 << 20 // in bytes; a larger one is an error, as what is behind might revoke a key
	longestLine = 1 << 20   // in bytes; likewise
)

// Host is by which names a host is known.
type Host struct {
	Name      string // as the files have it: host, or [host]:port
	Portless  string // accepted too when it has the very key; empty if the port is 22
	Principal string // as certificates have it
}

// At returns the host at an address, host:port.
func At(address string) Host {
	h := Host{Name: knownhosts.Normalize(address), Principal: address}
	if host, _, err := net.SplitHostPort(address); err == nil {
		h.Principal = host
	}
	if h.Principal != h.Name {
		h.Portless = h.Principal
	}
	return h
}

// Alias returns a host that is known by a name of its own, whatever its address.
func Alias(name string) Host { return Host{Name: name, Principal: name} }

// Position is a line in a file.
type Position struct {
	File string
	Line int
}

func (p Position) String() string { return fmt.Sprintf("%s:%d", p.File, p.Line) }

// Key is a key and the line it is in.
type Key struct {
	At  Position
	Key xssh.PublicKey
}

// Known is what files have of one host.
type Known struct {
	// Skipped are the lines that make no sense and name the host, or nobody.
	Skipped []Position

	host        Host
	files       []string
	keys        []Key
	portless    []Key // of the host by its name without the port alone
	authorities []Key
	revoked     []Key // of whichever host
}

// Lookup reads what files have of a host. One that is not there is empty.
func Lookup(host Host, files ...string) (*Known, error) {
	k := &Known{host: host, files: files}
	for _, name := range files {
		if err := readLines(name, k.take); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return k, nil
}

// Revoke takes the keys of a file, one a line, as revoked. It is an error if the
// file is not there: nobody can tell what it revoked.
func (k *Known) Revoke(file string) error {
	return readLines(file, func(at Position, line []byte) error {
		if at.Line == 1 && string(line) == "SSHKRL" {
			return fmt.Errorf("%s: a binary list (KRL) is not supported: list the keys, one a line", at.File)
		}
		key, _, _, _, err := xssh.ParseAuthorizedKey(line)
		switch {
		case err == nil:
			k.revoked = append(k.revoked, Key{at, Plain(key)})
		case !foreign(line):
			return fmt.Errorf("%v: %w", at, err)
		}
		return nil
	})
}

// readLines calls f with every line of a file that is neither empty nor a
// comment. The line is valid until f returns.
func readLines(name string, f func(Position, []byte) error) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	return eachLine(name, file, f)
}

func eachLine(name string, r io.Reader, f func(Position, []byte) error) error {
	limited := &io.LimitedReader{R: r, N: largestFile + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(nil, longestLine)
	at := Position{File: name}
	for lines.Scan() {
		at.Line++
		line := lines.Bytes()
		if at.Line == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff")) // of some editors; behind it, a marker would not be seen
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if err := f(at, line); err != nil {
			return err
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("%s:%d is longer than %d KiB", name, at.Line+1, longestLine>>10)
	case err != nil:
		return fmt.Errorf("reading %s: %w", name, err)
	case limited.N == 0:
		return fmt.Errorf("%s is larger than %d MiB", name, largestFile>>20)
	}
	return nil
}

// take keeps a line if the host is concerned. Only then is its key parsed: files
// may have many.
func (k *Known) take(at Position, line []byte) error {
	marker, hosts := "", word(line)
	if hosts[0] == '@' {
		marker = string(hosts)
		hosts = word(bytes.TrimLeft(line[len(hosts):], blank))
	}
	if marker != "" && marker != "@cert-authority" || bytes.HasPrefix(hosts, []byte("@")) {
		return k.takeRevoked(at, marker, line)
	}
	own, portless := k.host.in(string(hosts))
	if len(hosts) == 0 || len(hosts) == len(line) {
		own = true // there is no more than one word: who knows whether it is a host
	}
	if !own && !portless {
		return nil
	}
	_, _, key, _, _, err := xssh.ParseKnownHosts(line)
	if err != nil {
		if !foreign(afterHosts(line)) {
			k.Skipped = append(k.Skipped, at)
		}
		return nil
	}
	into := &k.authorities
	switch {
	case marker == "" && own:
		into = &k.keys
	case marker == "":
		into = &k.portless
	}
	*into = append(*into, Key{at, key})
	return nil
}

// takeRevoked keeps a line that is marked as revoked, or in a way that nobody
// knows: that may be a slip of who wanted to revoke.
func (k *Known) takeRevoked(at Position, marker string, line []byte) error {
	_, _, key, _, _, err := xssh.ParseKnownHosts(line)
	if err == nil && marker == "@revoked" {
		k.revoked = append(k.revoked, Key{at, Plain(key)})
		return nil
	}
	if foreign(afterHosts(line)) {
		return nil
	}
	if words := bytes.Fields(line); len(words) > 2 && usable(string(words[2])) && whole(string(words[1])) {
		if own, portless := k.host.in(string(words[1])); !own && !portless {
			return nil
		}
	}
	return fmt.Errorf("%v: a line with a marker cannot be understood, and it may revoke a key: repair or remove it", at)
}

const blank = " \t"

// word returns the word with which text begins.
func word(text []byte) []byte {
	if end := bytes.IndexAny(text, blank); end >= 0 {
		return text[:end]
	}
	return text
}

// afterHosts returns a line without its marker and hosts.
func afterHosts(line []byte) []byte {
	words := bytes.Fields(line)
	skip := 1
	if words[0][0] == '@' {
		skip = 2
	}
	return bytes.Join(words[min(skip, len(words)):], []byte(" "))
}

// foreign reports whether text is a key of a kind that x/crypto does not have.
// No host can show such a key, so its line matters to nobody here; that the key
// itself names the same kind tells it from a slip.
func foreign(text []byte) bool {
	words := bytes.Fields(text)
	if len(words) < 2 || usable(string(words[0])) {
		return false
	}
	blob, err := base64.StdEncoding.DecodeString(string(words[1]))
	if err != nil || len(blob) < 4 {
		return false
	}
	length, rest := binary.BigEndian.Uint32(blob), blob[4:]
	return uint64(length) < uint64(len(rest)) && bytes.Equal(rest[:length], words[0])
}

// usable reports whether x/crypto has keys of the kind.
func usable(kind string) bool {
	return kind == xssh.KeyAlgoRSA || slices.Contains(xssh.SupportedAlgorithms().HostKeys, kind) || slices.Contains(xssh.InsecureAlgorithms().HostKeys, kind)
}

// Same reports whether two keys are one.
func Same(a, b xssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }

// Plain returns the key in a certificate, and another as it is.
func Plain(key xssh.PublicKey) xssh.PublicKey {
	if certificate, ok := key.(*xssh.Certificate); ok {
		return certificate.Key
	}
	return key
}

// Fingerprint returns the kind of a key and its hash as ssh-keygen -l has it: of
// a certificate, that of its key.
func Fingerprint(key xssh.PublicKey) string {
	return key.Type() + " " + xssh.FingerprintSHA256(Plain(key))
}
