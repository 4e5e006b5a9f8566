package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/lifeline-go/lifeline/agent/fleet"
)

// puts returns what --put says. What cannot be read here is found out before any
// host is asked.
func (f *sshFlags) puts() (steps []fleet.Step, err error) {
	targets := make(map[string]string)
	for _, text := range f.put {
		local, remote, err := atColon(text)
		if err == nil && local == "" {
			err = errors.New("it is LOCAL, or LOCAL:REMOTE")
		}
		if err == nil {
			remote, err = remotePath(remote)
		}
		if err != nil {
			return nil, fmt.Errorf("--put %s: %w", text, err)
		}
		names, err := found(local)
		if err != nil {
			return nil, fmt.Errorf("--put %s: %w", text, err)
		}
		if len(names) > 1 && !isDirectory(remote) {
			return nil, fmt.Errorf("--put %s: %d names match, so REMOTE must be a directory: end it with /", text, len(names))
		}
		for _, name := range names {
			target := remote
			if isDirectory(remote) {
				base, err := baseOf(name)
				if err != nil {
					return nil, fmt.Errorf("--put %s: %w", text, err)
				}
				target = path.Join(remote, base)
			}
			if other, twice := targets[target]; twice {
				return nil, fmt.Errorf("--put: %s and %s would both become %s: give each a name of its own, as in %s:NAME", other, name, target, name)
			}
			targets[target] = name
			how := f.how
			how.Tree = true
			steps = append(steps, fleet.Step{Copy: &fleet.Copy{Local: name, Remote: target, How: how}})
		}
	}
	return steps, nil
}

// gets returns what --get says: each host has names of its own here.
func (f *sshFlags) gets(hosts []string) (steps []fleet.Step, err error) {
	targets := make(map[string]string)
	for _, text := range f.get {
		remote, local, err := atColon(text)
		if err == nil && remote == "" {
			err = errors.New("it is REMOTE, or REMOTE:LOCAL")
		}
		if err == nil && strings.ContainsAny(plain(remote), "*?[") {
			err = errors.New(`patterns are not looked up on hosts: name the file, or its directory, which is copied whole (\* is the character)`)
		}
		if err == nil {
			remote, err = remotePath(remote)
		}
		if err == nil {
			local, err = hostPath(unescape(local), remote)
		}
		if err != nil {
			return nil, fmt.Errorf("--get %s: %w", text, err)
		}
		if other, twice := targets[local]; twice {
			return nil, fmt.Errorf("--get: %s and %s would both become %s: give each a place of its own, as in %s:DIRECTORY", other, remote, local, remote)
		}
		targets[local] = remote
		how := f.how
		how.Tree = true
		steps = append(steps, fleet.Step{Copy: &fleet.Copy{Get: true, Local: local, Remote: path.Clean(remote), How: how}})
	}
	for _, host := range hosts {
		if len(steps) > 0 && (host == "." || host == "..") {
			return nil, fmt.Errorf("--get: %q is no name of a directory", host)
		}
	}
	return steps, nil
}

// hostPath returns where what is copied from a host goes: each has its own.
func hostPath(local, remote string) (string, error) {
	if rest, ok := strings.CutPrefix(local, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		local = home + "/" + rest
	}
	switch {
	case local == "":
		local = fleet.HostName + "/"
	case !strings.Contains(local, fleet.HostName):
		local += "/" + fleet.HostName + "/"
	case !strings.HasSuffix(local, "/"):
		return filepath.Clean(local), nil
	}
	base := path.Base(remote)
	if base == "." || base == ".." || base == "/" {
		return "", errors.New("say what it is to be called, as in :{host}/NAME")
	}
	return filepath.Join(local, base), nil
}

// remotePath takes a path as people write it; relative ones begin in the home
// directory, for which ~ is another word.
func remotePath(text string) (string, error) {
	text = unescape(text)
	rest, inHome := strings.CutPrefix(text, "~")
	switch {
	case !inHome:
		return text, nil
	case rest == "" || rest == "/":
		return "", nil
	case rest[0] == '/':
		return strings.TrimLeft(rest, "/"), nil
	}
	return "", fmt.Errorf("%s is not looked up: write the whole path (./~ is the character)", text)
}

// isDirectory says whether a target names a directory to copy into.
func isDirectory(remote string) bool {
	base := path.Base(remote)
	return remote == "" || strings.HasSuffix(remote, "/") || base == "." || base == ".."
}

// found returns the files and trees that are meant here.
func found(text string) ([]string, error) {
	name := unescape(text)
	_, err := os.Stat(name)
	names := []string{name}
	if err != nil && strings.ContainsAny(plain(text), "*?[") {
		names, _ = filepath.Glob(strings.ReplaceAll(text, `\:`, ":"))
	} else if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, errors.New("no name here matches")
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() && !info.Mode().IsRegular() { // before it is opened: a pipe waits for another
			return nil, fmt.Errorf("%s is neither a file nor a directory", name)
		}
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		file.Close()
	}
	return names, nil
}

// baseOf returns what a file or tree here is called.
func baseOf(name string) (string, error) {
	whole, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	if whole == "/" {
		return "", errors.New("say what it is to be called")
	}
	return filepath.Base(whole), nil
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// special are the characters that a backslash makes plain ones.
const special = `:*?[\`

// atColon takes apart what is before and behind the one colon. Both are still
// escaped.
func atColon(text string) (from, to string, err error) {
	from, to = text, ""
	colons := 0
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == 0:
			return "", "", errNul
		case text[i] == '\\' && i+1 < len(text) && strings.IndexByte(special, text[i+1]) >= 0:
			i++
		case text[i] == ':':
			if colons++; colons == 1 {
				from, to = text[:i], text[i+1:]
			}
		}
	}
	if colons > 1 {
		return "", "", fmt.Errorf(`it has %d colons: write \: for those that belong to a name`, colons)
	}
	return from, to, nil
}

// plain returns a text without what is escaped in it.
func plain(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) && strings.IndexByte(special, text[i+1]) >= 0 {
			i++
			continue
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// unescape returns a text as it is meant.
func unescape(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) && strings.IndexByte(special, text[i+1]) >= 0 {
			i++
		}
		b.WriteByte(text[i])
	}
	return b.String()
}
