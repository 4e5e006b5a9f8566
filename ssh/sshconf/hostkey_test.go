package sshconf

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	xssh "golang.org/x/crypto/ssh"
)

// newKey returns the key of a seed.
func newKey(t *testing.T, seed string) xssh.PublicKey {
	t.Helper()
	key, err := xssh.NewPublicKey(ed25519.NewKeyFromSeed([]byte(fmt.Sprintf("%32s", seed))).Public())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// What is wrong with a key is said in one line, with where that stands and what
// to do.
func TestHostKeyError(t *testing.T) {
	t.Parallel()
	mine, other := newKey(t, "mine"), newKey(t, "other")
	text := func(key xssh.PublicKey) string { return string(xssh.MarshalAuthorizedKey(key)) }
	file := filepath.Join(t.TempDir(), "known_hosts")
	err := os.WriteFile(file, []byte("# mine\n[tool]:2222 "+text(other)+"tool "+text(mine)+"cut ssh-ed25519 AAAA\n@revoked perhaps ssh-ed25519 AAAA\n"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		host     Host
		key      xssh.PublicKey
		kind     error
		says     []string
		warnings string
	}{
		{Host{Name: "tool", Port: 2222}, mine, ErrChanged, []string{file + ":2 has", xssh.FingerprintSHA256(mine), xssh.FingerprintSHA256(other), "ssh-keygen -f '" + file + "' -R '[tool]:2222'"}, ""},
		{Host{Name: "tool", Port: 2223}, mine, nil, nil, ""},
		{Host{Name: "x", Port: 22, HostKeyAlias: "tool"}, mine, nil, nil, ""},
		{Host{Name: "tool", Port: 22, HostKeyAlias: "x"}, mine, ErrUnknown, []string{"x: ", "accept-new"}, ""},
		{Host{Name: "cut", Port: 22}, mine, ErrUnknown, []string{file + ":4 makes no sense"}, file + ":4: "},
	} {
		row.host.KnownHosts = []string{file + ".none"}
		row.host.GlobalHosts = []string{file}
		check, err := newHostKeyCheck(&row.host, Login{})
		if err != nil {
			t.Fatal(err)
		}
		err = check.callback(t.Context())("", nil, row.key)
		if !errors.Is(err, row.kind) {
			t.Errorf("%v, want %v", err, row.kind)
		}
		for _, part := range row.says {
			if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v does not say %s", err, part)
			}
		}
		if warnings := check.warnings(); (len(warnings) > 0) != (row.warnings != "") || len(warnings) > 0 && !strings.HasPrefix(warnings[0].String(), row.warnings) {
			t.Errorf("%v", warnings)
		}
	}
	if _, err := newHostKeyCheck(&Host{Name: "perhaps", Port: 22, KnownHosts: []string{file}}, Login{}); err == nil || !strings.Contains(err.Error(), file+":5: ") {
		t.Errorf("it may be revoked: %v", err)
	}
}
