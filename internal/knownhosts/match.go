package knownhosts

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"strings"
)

// in reports whether hosts, patterns with commas between them or one hash, have
// a host by its name, or else by that without a port.
func (h Host) in(hosts string) (own, portless bool) {
	fits := func(string) bool { return false }
	if !strings.HasPrefix(hosts, "|") {
		patterns := strings.Split(strings.ToLower(hosts), ",")
		fits = func(name string) bool { return MatchesAny(patterns, name) }
	} else if salt, want, ok := parseHash(hosts); ok {
		fits = func(name string) bool { return hmac.Equal(hashed(salt, name), want) }
	}
	own = fits(strings.ToLower(h.Name))
	return own, h.Portless != "" && !own && fits(strings.ToLower(h.Portless))
}

// whole reports whether hosts are what [Host.in] can answer for.
func whole(hosts string) bool {
	if !strings.HasPrefix(hosts, "|") {
		return !strings.HasPrefix(hosts, "@")
	}
	_, _, ok := parseHash(hosts)
	return ok
}

// parseHash parses |1|salt|HMAC-SHA1, as host_hash of OpenSSH's hostfile.c
// writes it.
func parseHash(hash string) (salt, mac []byte, ok bool) {
	parts := strings.Split(hash, "|")
	if len(parts) != 4 || parts[1] != "1" {
		return nil, nil, false
	}
	salt, err := base64.StdEncoding.DecodeString(parts[2])
	mac, err2 := base64.StdEncoding.DecodeString(parts[3])
	return salt, mac, err == nil && err2 == nil && len(mac) == sha1.Size
}

func hashed(salt []byte, name string) []byte {
	mac := hmac.New(sha1.New, salt)
	mac.Write([]byte(name))
	return mac.Sum(nil)
}

// Matches reports whether all of text fits a pattern, in which * stands for any
// characters and ? for one. It takes no more than the product of their lengths.
func Matches(pattern, text string) bool {
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(text) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, mark = i, j
			i++
		case i < len(pattern) && (pattern[i] == '?' || pattern[i] == text[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[i:], "*") == ""
}

// MatchesAny reports whether text fits one of the patterns and none of those that
// begin with an exclamation mark.
func MatchesAny(patterns []string, text string) bool {
	found := false
	for _, pattern := range patterns {
		wanted, negated := strings.CutPrefix(pattern, "!")
		if !Matches(wanted, text) {
			continue
		}
		if negated {
			return false
		}
		found = true
	}
	return found
}
