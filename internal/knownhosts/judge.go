package knownhosts

import (
	"errors"
	"slices"
	"strings"

	xssh "golang.org/x/crypto/ssh"
)

// Verdict is what files say of the key of a host.
type Verdict struct {
	Kind Kind
	Keys []Key // that say so: all of the host where it has changed, or the one that revokes
	Err  error // what is wrong with a certificate
}

// Kind is which of the verdicts it is.
type Kind uint8

// The verdicts.
const (
	OK          Kind = iota
	Unknown          // no file has the host
	Changed          // the files have the host with other keys only
	Revoked          // the key must not be used any more
	Certificate      // a certificate of an authority that is known for the host is not valid for it
)

// Judge says what the files have against the key that the host shows.
func (k *Known) Judge(key xssh.PublicKey) Verdict {
	certificate, _ := key.(*xssh.Certificate)
	suspects := []xssh.PublicKey{key}
	if certificate != nil {
		suspects = append(suspects, certificate.SignatureKey)
	}
	for _, suspect := range suspects {
		if at := find(k.revoked, Plain(suspect)); at >= 0 {
			return Verdict{Kind: Revoked, Keys: k.revoked[at : at+1]}
		}
	}
	if certificate != nil && find(k.authorities, certificate.SignatureKey) >= 0 {
		if err := checkCertificate(certificate, k.host.Principal); err != nil {
			return Verdict{Kind: Certificate, Err: err}
		}
		return Verdict{}
	}
	switch {
	case find(k.keys, Plain(key)) >= 0:
		return Verdict{}
	case len(k.keys) > 0:
		return Verdict{Kind: Changed, Keys: k.keys}
	case find(k.portless, Plain(key)) >= 0: // check_host_key in sshconnect.c, "checking without port identifier"
		return Verdict{}
	}
	return Verdict{Kind: Unknown}
}

// find returns where a key is, -1 if it is not there.
func find(keys []Key, key xssh.PublicKey) int {
	return slices.IndexFunc(keys, func(k Key) bool { return Same(k.Key, key) })
}

func checkCertificate(certificate *xssh.Certificate, principal string) error {
	if certificate.CertType != xssh.HostCert {
		return errors.New("it is the certificate of a user")
	}
	return (&xssh.CertChecker{}).CheckCert(principal, certificate)
}

// Any reports whether there is a key or an authority for the host.
func (k *Known) Any() bool {
	return len(k.keys)+len(k.portless)+len(k.authorities) > 0
}

// Algorithms returns what a host is asked to show its key in: first what could
// be checked, then what else is allowed, so that a host that has only other keys
// is found to have changed and not to be incompatible.
func (k *Known) Algorithms(allowed []string) []string {
	keys, authority := slices.Concat(k.keys, k.portless), len(k.authorities) > 0
	var checkable, rest []string
	for _, algorithm := range allowed {
		first := slices.ContainsFunc(keys, func(k Key) bool { return kindOf(algorithm) == k.Key.Type() })
		if strings.Contains(algorithm, "-cert-v01@") {
			first = authority
		}
		if first {
			checkable = append(checkable, algorithm)
		} else {
			rest = append(rest, algorithm)
		}
	}
	return append(checkable, rest...)
}

// kindOf returns the kind of key that an algorithm signs with.
func kindOf(algorithm string) string {
	switch algorithm {
	case xssh.KeyAlgoRSASHA256, xssh.KeyAlgoRSASHA512:
		return xssh.KeyAlgoRSA
	}
	return algorithm
}
