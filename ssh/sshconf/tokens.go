package sshconf

import (
	"cmp"
	"crypto/sha1"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// tokens are what % sequences stand for.
type tokens struct {
	account    Account
	host       string // %h
	name       string // %n: as it was typed
	port, user string // %p, %r
	alias      string // %k
	jumps      string // %j
}

func newTokens(account Account, h *Host) tokens {
	return tokens{account: account, host: h.Name, name: h.Alias, port: strconv.Itoa(h.Port), user: h.User, alias: cmp.Or(h.HostKeyAlias, h.Alias)}
}

// inFiles are the sequences that names of files may have.
const inFiles = "CLdhijklnpru"

func (t tokens) value(sequence byte) string {
	short, _, _ := strings.Cut(t.account.Hostname, ".")
	switch sequence {
	case 'C':
		return fmt.Sprintf("%x", sha1.Sum([]byte(t.account.Hostname+t.host+t.port+t.user+t.jumps)))
	case 'L':
		return short
	case 'd':
		return t.account.Home
	case 'h':
		return t.host
	case 'i':
		return t.account.ID
	case 'j':
		return t.jumps
	case 'k':
		return t.alias
	case 'l':
		return t.account.Hostname
	case 'n':
		return t.name
	case 'p':
		return t.port
	case 'r':
		return t.user
	default:
		return t.account.User
	}
}

// expand replaces the sequences that may be in text, of which %% is always one.
func (t tokens) expand(text, allowed string) (string, error) {
	return t.expandChecked(text, allowed, func(string) error { return nil })
}

func (t tokens) expandChecked(text, allowed string, check func(string) error) (string, error) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			b.WriteByte(text[i])
			continue
		}
		i++
		switch {
		case i < len(text) && text[i] == '%':
			b.WriteByte('%')
		case i < len(text) && strings.IndexByte(allowed, text[i]) >= 0:
			value := t.value(text[i])
			if err := check(value); err != nil {
				return "", fmt.Errorf("%%%c: %w", text[i], err)
			}
			b.WriteString(value)
		case i < len(text):
			return "", fmt.Errorf("%%%c means nothing here; these do: %%%s", text[i], strings.Join(strings.Split("%"+allowed, ""), " %"))
		default:
			return "", errors.New("ends with a %; write %%")
		}
	}
	return b.String(), nil
}

// expandForShell replaces the sequences of a ProxyCommand, and refuses what a
// shell would take for more than a word (CVE-2023-51385).
func (t tokens) expandForShell(command string) (string, error) {
	return t.expandChecked(command, "hknpr", func(value string) error {
		if at := strings.IndexFunc(value, special("'`\"$\\;&<>|(){}*?[]#!~")); at >= 0 && !isIPv6(value) {
			return fmt.Errorf("%q has the character %q, which a shell could act on", value, value[at])
		}
		if strings.HasPrefix(value, "-") {
			return fmt.Errorf("%q begins with a dash", value)
		}
		return nil
	})
}

func isIPv6(value string) bool { return strings.Trim(value, "0123456789abcdefABCDEF:.") == "" }

// variable returns ${name} of the environment.
func (t tokens) variable(name string) (string, error) {
	if t.account.Getenv != nil {
		if value, ok := t.account.Getenv(name); ok {
			return value, nil
		}
	}
	return "", fmt.Errorf("the environment has no %s", name)
}

// path returns the file that a value names: with ~, ${variables} and tokens
// replaced.
func (t tokens) path(text string) (string, error) {
	if text == "~" || strings.HasPrefix(text, "~/") {
		text = strings.ReplaceAll(t.account.Home, "%", "%%") + text[1:]
	} else if strings.HasPrefix(text, "~") {
		return "", errors.New("~user is not supported: write the path")
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "${")
		expanded, err := t.expand(before, inFiles)
		if err != nil {
			return "", err
		}
		b.WriteString(expanded)
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", errors.New("${ is not closed by }")
		}
		value, err := t.variable(name)
		if err != nil {
			return "", err
		}
		b.WriteString(value)
		text = after
	}
	return b.String(), nil
}
