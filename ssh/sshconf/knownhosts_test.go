package sshconf

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/need"
	xssh "golang.org/x/crypto/ssh"
)

func newKey(t testing.TB) xssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := xssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func line(key xssh.PublicKey) string { return string(xssh.MarshalAuthorizedKey(key)) }

func TestJudge(t *testing.T) {
	t.Parallel()
	mine, other, authority, revoked := newKey(t), newKey(t), newKey(t), newKey(t)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := xssh.NewPublicKey(&ecKey.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(key xssh.PublicKey, by xssh.Signer, kind uint32, until time.Duration, principals ...string) xssh.PublicKey {
		c := &xssh.Certificate{Key: key, CertType: kind, ValidPrincipals: principals, ValidBefore: uint64(time.Now().Add(until).Unix())}
		if err := c.SignCert(rand.Reader, by); err != nil {
			t.Fatal(err)
		}
		return c
	}
	const host uint32 = xssh.HostCert
	file := filepath.Join(t.TempDir(), "known_hosts")
	text := "# comment\n\nnonsense\nfuture future-key AAAA\n@cert-authority *.ca future-key AAAA\n" +
		"web,[web]:2222 " + line(mine.PublicKey()) +
		"*.wild,!not.wild " + line(mine.PublicKey()) +
		"[tool]:2222 " + line(other.PublicKey()) +
		"tool " + line(mine.PublicKey()) +
		"two " + line(mine.PublicKey()) + "two " + line(ec) +
		"@revoked * " + line(revoked.PublicKey()) +
		"gone " + line(revoked.PublicKey()) +
		"@cert-authority *.ca " + line(authority.PublicKey())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := readKnown([]string{file, file + ".none"})
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		host string
		port int
		key  xssh.PublicKey
		want error
	}{
		"known":                    {"web", 22, mine.PublicKey(), nil},
		"in capitals":              {"WEB", 22, mine.PublicKey(), nil},
		"at another port":          {"web", 2222, mine.PublicKey(), nil},
		"at the wrong port":        {"web", 2223, mine.PublicKey(), nil}, // as OpenSSH: the key is that of the host at 22
		"wrong port, wrong key":    {"web", 2223, other.PublicKey(), ErrUnknown},
		"changed":                  {"web", 22, other.PublicKey(), ErrChanged},
		"another kind":             {"web", 22, ec, ErrChanged},
		"port has its own":         {"tool", 2222, mine.PublicKey(), ErrChanged},
		"several":                  {"two", 22, ec, nil},
		"wild":                     {"a.wild", 22, mine.PublicKey(), nil},
		"wild at a port":           {"a.wild", 222, mine.PublicKey(), nil},
		"not wild":                 {"not.wild", 22, mine.PublicKey(), ErrUnknown},
		"unknown":                  {"who", 22, mine.PublicKey(), ErrUnknown},
		"revoked":                  {"gone", 22, revoked.PublicKey(), ErrRevoked},
		"revoked elsewhere":        {"web", 22, revoked.PublicKey(), ErrRevoked},
		"certified":                {"a.ca", 22, certificate(mine.PublicKey(), authority, host, time.Hour, "a.ca"), nil},
		"certified at a port":      {"a.ca", 99, certificate(mine.PublicKey(), authority, host, time.Hour, "a.ca"), nil},
		"certified for another":    {"b.ca", 22, certificate(mine.PublicKey(), authority, host, time.Hour, "a.ca"), ErrCertificate},
		"certified in the past":    {"a.ca", 22, certificate(mine.PublicKey(), authority, host, -time.Hour, "a.ca"), ErrCertificate},
		"certified as a user":      {"a.ca", 22, certificate(mine.PublicKey(), authority, xssh.UserCert, time.Hour, "a.ca"), ErrCertificate},
		"by another authority":     {"a.ca", 22, certificate(mine.PublicKey(), other, host, time.Hour, "a.ca"), ErrUnknown},
		"its plain key is known":   {"web", 22, certificate(mine.PublicKey(), other, host, time.Hour, "web"), nil},
		"certified, but revoked":   {"a.ca", 22, certificate(revoked.PublicKey(), authority, host, time.Hour, "a.ca"), ErrRevoked},
		"by a revoked authority":   {"a.ca", 22, certificate(mine.PublicKey(), revoked, host, time.Hour, "a.ca"), ErrRevoked},
		"the key of the authority": {"a.ca", 22, authority.PublicKey(), ErrUnknown},
	} {
		h := &Host{Name: strings.ToLower(row.host), Port: row.port}
		err := k.judge(h.identity(), row.key)
		if !errors.Is(err, row.want) || (row.want == nil) != (err == nil) {
			t.Errorf("%s: %v, not %v", name, err, row.want)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: more than a line: %v", name, err)
		}
	}
	err = k.judge((&Host{Name: "tool", Port: 2222}).identity(), mine.PublicKey())
	t.Log(err)
	for _, want := range []string{file + ":8 has", xssh.FingerprintSHA256(mine.PublicKey()), xssh.FingerprintSHA256(other.PublicKey()), "ssh-keygen -f '" + file + "' -R '[tool]:2222'"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
	usual := xssh.SupportedAlgorithms().HostKeys
	for name, want := range map[string]string{"web": xssh.KeyAlgoED25519, "two": xssh.KeyAlgoECDSA256, "a.ca": usual[0], "who": usual[0]} {
		got := k.algorithms((&Host{Name: name, Port: 22}).identity(), usual)
		if got[0] != want || len(got) != len(usual) {
			t.Errorf("%s: %v", name, got)
		}
	}
	for _, bad := range []string{"@revoked * ssh-ed25519 AAAA\n", "@revoked *\n", "@frob * " + line(mine.PublicKey())} {
		if err := (&known{}).read("f", []byte("\n"+bad)); err == nil || !strings.HasPrefix(err.Error(), "f:2: ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestRevokedHostKeys(t *testing.T) {
	t.Parallel()
	key, dir := newKey(t), t.TempDir()
	for text, want := range map[string]string{
		"# x\n\n" + line(key.PublicKey()): "", "future-key AAAA\n": "", "ssh-ed25519 AAAA\n": ":1:", "SSHKRL\n\x00xx": "KRL", "nonsense": ":1:",
	} {
		file := filepath.Join(dir, "revoked")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var k known
		err := k.revoke(file)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
		if _, revoked := k.revoked(key.PublicKey()); revoked != strings.HasPrefix(text, "#") {
			t.Errorf("%q: %v", text, revoked)
		}
	}
	if err := (&known{}).revoke(filepath.Join(dir, "none")); err == nil {
		t.Error("a list that is not there revokes nothing")
	}
}

// TestRemember adds hosts from many goroutines, while another takes lines away
// as ssh-keygen does.
func TestRemember(t *testing.T) {
	t.Parallel()
	for _, hash := range []bool{false, true} {
		dir := t.TempDir()
		file := filepath.Join(dir, "new", "known_hosts")
		key, other := newKey(t).PublicKey(), newKey(t).PublicKey()
		of := func(i int) *Host {
			return &Host{Name: fmt.Sprintf("host%d", i), Port: 22 + i%2, KnownHosts: []string{file}, HashKnownHosts: hash}
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("# mine\nkept "+strings.TrimSpace(line(other))), 0o600); err != nil { // no end of line
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 50 {
			for range 2 {
				wg.Go(func() {
					if err := of(i).remember(context.Background(), key); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(string(text), "\n"); lines != 52 || !strings.HasPrefix(string(text), "# mine\nkept ") || strings.Contains(string(text), "host7") == hash {
			t.Errorf("%d lines:\n%s", lines, text)
		}
		k, err := readKnown([]string{file})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			if err := k.judge(of(i).identity(), key); err != nil {
				t.Error(err)
			}
			if err := of(i).remember(t.Context(), other); !errors.Is(err, ErrChanged) {
				t.Errorf("somebody else was first: %v", err)
			}
		}
		// ssh-keygen agrees on what is known.
		out, err := exec.Command(need.Program(t, "ssh-keygen"), "-f", file, "-F", "[host7]:23").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "found") {
			t.Errorf("%v: %s", err, out)
		}
	}
}

// A lock that somebody keeps is waited for, not for ever.
func TestRememberLocked(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "known_hosts")
	held, err := openLocked(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	h := &Host{Name: "a", Port: 22, KnownHosts: []string{file}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := h.remember(ctx, newKey(t).PublicKey()); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	done := make(chan error)
	go func() { done <- h.remember(context.Background(), newKey(t).PublicKey()) }()
	if err := os.Rename(file, file+".old"); err != nil { // another file comes in its place, as by ssh-keygen -R
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("# another\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	held.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(file); err != nil || strings.Count(string(text), "\n") != 2 {
		t.Errorf("%q, %v", text, err)
	}
	if err := (&Host{Name: "a*", Port: 22, KnownHosts: []string{file}}).remember(t.Context(), newKey(t).PublicKey()); err == nil {
		t.Error("a pattern was written")
	}
}

func FuzzKnownHosts(f *testing.F) {
	f.Add([]byte("a,b ssh-ed25519 AAAA\n@revoked * x y"), "a")
	f.Add([]byte("|1|AAAA|AAAA ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJDRnVyOYEMMUj6xdNu3l1yEeZaA2nOI2UJ5UHkgmT2\n"), "a")
	f.Add([]byte("*,!a ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJDRnVyOYEMMUj6xdNu3l1yEeZaA2nOI2UJ5UHkgmT2\n"), "b")
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		var k known
		if err := k.read("f", text); err != nil {
			return
		}
		keys, _ := k.of(name)
		for _, key := range keys {
			if err := k.judge(identity{name: name}, key.Key); err != nil && !errors.Is(err, ErrRevoked) {
				t.Error(err)
			}
		}
		k.algorithms(identity{name: name}, xssh.SupportedAlgorithms().HostKeys)
	})
}

func BenchmarkKnownHosts(b *testing.B) {
	key := line(newKey(b).PublicKey())
	var text strings.Builder
	for i := range 10000 {
		fmt.Fprintf(&text, "host%d %s", i, key)
	}
	h := &Host{Name: "host5000", Port: 22}
	for b.Loop() {
		var k known
		if err := k.read("f", []byte(text.String())); err != nil {
			b.Fatal(err)
		}
		if keys, _ := k.of(h.identity().name); len(keys) != 1 {
			b.Fatal(len(keys))
		}
	}
}
