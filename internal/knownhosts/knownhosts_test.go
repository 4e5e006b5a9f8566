package knownhosts

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
	xssh "golang.org/x/crypto/ssh"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

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
	lookup := func(host string, port int) *Known {
		k, err := Lookup(At(net.JoinHostPort(host, strconv.Itoa(port))), file, file+".none")
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	for name, row := range map[string]struct {
		host string
		port int
		key  xssh.PublicKey
		want Kind
	}{
		"known":                    {"web", 22, mine.PublicKey(), OK},
		"in capitals":              {"WEB", 22, mine.PublicKey(), OK},
		"at another port":          {"web", 2222, mine.PublicKey(), OK},
		"at the wrong port":        {"web", 2223, mine.PublicKey(), OK}, // as OpenSSH: the key is that of the host at 22
		"wrong port, wrong key":    {"web", 2223, other.PublicKey(), Unknown},
		"changed":                  {"web", 22, other.PublicKey(), Changed},
		"another kind":             {"web", 22, ec, Changed},
		"port has its own":         {"tool", 2222, mine.PublicKey(), Changed},
		"several":                  {"two", 22, ec, OK},
		"wild":                     {"a.wild", 22, mine.PublicKey(), OK},
		"wild at a port":           {"a.wild", 222, mine.PublicKey(), OK},
		"not wild":                 {"not.wild", 22, mine.PublicKey(), Unknown},
		"unknown":                  {"who", 22, mine.PublicKey(), Unknown},
		"revoked":                  {"gone", 22, revoked.PublicKey(), Revoked},
		"revoked elsewhere":        {"web", 22, revoked.PublicKey(), Revoked},
		"certified":                {"a.ca", 22, certificate(mine.PublicKey(), authority, host, time.Hour, "a.ca"), OK},
		"certified at a port":      {"a.ca", 99, certificate(mine.PublicKey(), authority, host, time.Hour, "a.ca"), OK},
		"certified for another":    {"b.ca", 22, certificate(mine.PublicKey(), authority, host, time.Hour, "a.ca"), Certificate},
		"certified in the past":    {"a.ca", 22, certificate(mine.PublicKey(), authority, host, -time.Hour, "a.ca"), Certificate},
		"certified as a user":      {"a.ca", 22, certificate(mine.PublicKey(), authority, xssh.UserCert, time.Hour, "a.ca"), Certificate},
		"by another authority":     {"a.ca", 22, certificate(mine.PublicKey(), other, host, time.Hour, "a.ca"), Unknown},
		"its plain key is known":   {"web", 22, certificate(mine.PublicKey(), other, host, time.Hour, "web"), OK},
		"certified, but revoked":   {"a.ca", 22, certificate(revoked.PublicKey(), authority, host, time.Hour, "a.ca"), Revoked},
		"by a revoked authority":   {"a.ca", 22, certificate(mine.PublicKey(), revoked, host, time.Hour, "a.ca"), Revoked},
		"the key of the authority": {"a.ca", 22, authority.PublicKey(), Unknown},
	} {
		v := lookup(row.host, row.port).Judge(row.key)
		if v.Kind != row.want {
			t.Errorf("%s: %v, not %v", name, v, row.want)
		}
		if (v.Kind == Changed || v.Kind == Revoked) == (len(v.Keys) == 0) || (v.Kind == Certificate) != (v.Err != nil) {
			t.Errorf("%s: %v does not say why", name, v)
		}
	}
	if v := lookup("tool", 2222).Judge(mine.PublicKey()); v.Keys[0].At != (Position{file, 8}) || !Same(v.Keys[0].Key, other.PublicKey()) {
		t.Errorf("%v", v)
	}
	if k, err := Lookup(Alias("web"), file); err != nil || k.Judge(mine.PublicKey()).Kind != OK {
		t.Errorf("by its alias: %v, %v", k, err)
	}
	usual := xssh.SupportedAlgorithms().HostKeys
	for name, want := range map[string]string{"web": xssh.KeyAlgoED25519, "two": xssh.KeyAlgoECDSA256, "a.ca": usual[0], "who": usual[0]} {
		k := lookup(name, 22)
		if got := k.Algorithms(usual); got[0] != want || len(got) != len(usual) || k.Any() != (name != "who") {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// What makes no sense is left out, but nothing that may revoke is.
func TestBadLines(t *testing.T) {
	t.Parallel()
	key := newKey(t).PublicKey()
	good := line(key)
	hash := strings.Fields(mustLine(t, Host{Name: "web"}, key))[0]
	for bad, want := range map[string]struct{ web, db string }{
		"nonsense":                             {"skipped", "skipped"},
		"web":                                  {"skipped", "skipped"},
		"web ssh-ed25519":                      {"skipped", ""},
		"web ssh-ed25519 AAAA":                 {"skipped", ""},
		"w* ssh-ed22519 " + good[12:]:          {"skipped", ""},
		"web 1024 35 1234":                     {"skipped", ""},
		hash + " ssh-ed25519 AAAA":             {"skipped", ""},
		"@cert-authority web":                  {"skipped", ""},
		"@cert-authority web ssh-rsa AAAA":     {"skipped", ""},
		"@cert-authority":                      {"skipped", "skipped"},
		"web future-key " + future:             {"", ""},
		"@revoked web future-key " + future:    {"", ""},
		"@revoked * ssh-ed25519 AAAA":          {"error", "error"},
		"@revoked web ssh-ed25519 AAAA":        {"error", ""},
		"@revoked WEB,x ssh-ed25519 nonsense":  {"error", ""},
		"@revoked *,!db ssh-ed25519 AAAA":      {"error", ""},
		"@revoked " + hash + " ssh-rsa AAAA":   {"error", ""},
		"@revoked |1|x|y ssh-rsa AAAA":         {"error", "error"},
		"@revoked [web]:22 ssh-rsa AAAA":       {"", ""}, // which is nobody's name, to OpenSSH neither
		"@revoked web":                         {"error", "error"},
		"@revoked":                             {"error", "error"},
		"@revoked web, x " + good:              {"error", "error"},
		"@revoked " + good:                     {"error", "error"},
		"@revoked web ssh-ed22519 AAAA":        {"error", "error"},
		"@revoked web future-key AAAA":         {"error", "error"},
		"@Revoked web " + good:                 {"error", ""},
		"@frob web " + good:                    {"error", ""},
		"@cert-authority @revoked web " + good: {"error", "error"},
		"@revoked\u00a0web " + good:            {"error", ""},
	} {
		for host, want := range map[string]string{"web": want.web, "db": want.db} {
			k := &Known{host: At(host + ":22")}
			err := eachLine("f", strings.NewReader("\n"+strings.TrimSpace(bad)+"\n"+host+" "+good), k.take)
			got := ""
			switch {
			case err != nil:
				got = "error"
				if !strings.HasPrefix(err.Error(), "f:2: ") || strings.Contains(err.Error(), "\n") {
					t.Errorf("%q: %v", bad, err)
				}
			case k.Judge(key).Kind != OK:
				t.Errorf("%q, for %s: the next line is lost", bad, host)
			case len(k.Skipped) == 1 && k.Skipped[0] == Position{"f", 2}:
				got = "skipped"
			case len(k.Skipped) > 0:
				t.Errorf("%q: %v", bad, k.Skipped)
			}
			if got != want {
				t.Errorf("%q, for %s: %q, want %q (%v)", bad, host, got, want, err)
			}
		}
	}
	// What has no end of line, is very long, or is behind what is too long.
	for text, want := range map[string]string{
		"web " + strings.TrimSpace(good): "", "\ufeffweb " + good: "", "# x\r\nweb " + strings.TrimSpace(good) + "\r\n": "",
		"web " + good + "x" + strings.Repeat(" ", longestLine) + "\n": "f:2 is longer",
	} {
		k := &Known{host: At("web:22")}
		err := eachLine("f", strings.NewReader(text), k.take)
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) || k.Judge(key).Kind != OK {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}

// future is a key of a kind that nobody has yet.
var future = base64.StdEncoding.EncodeToString([]byte("\x00\x00\x00\x0afuture-key\x00\x00\x00\x01x"))

func mustLine(t *testing.T, host Host, key xssh.PublicKey) string {
	t.Helper()
	text, err := host.line(key, true)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestRevokedHostKeys(t *testing.T) {
	t.Parallel()
	key, dir := newKey(t), t.TempDir()
	for text, want := range map[string]string{
		"# x\n\n" + line(key.PublicKey()): "", "future-key " + future + "\n": "", "future-key AAAA\n": ":1:", "ssh-ed25519 AAAA\n": ":1:", "SSHKRL\n\x00xx": "KRL", "nonsense": ":1:",
	} {
		file := filepath.Join(dir, "revoked")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var k Known
		err := k.Revoke(file)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
		if revoked := k.Judge(key.PublicKey()).Kind == Revoked; revoked != strings.HasPrefix(text, "#") {
			t.Errorf("%q: %v", text, revoked)
		}
	}
	if err := (&Known{}).Revoke(filepath.Join(dir, "none")); err == nil {
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
		of := func(i int) *Known {
			k, err := Lookup(At(fmt.Sprintf("host%d:%d", i, 22+i%2)), file)
			if err != nil {
				t.Error(err)
			}
			return k
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
					if v, err := of(i).Remember(context.Background(), file, key, hash); err != nil || v.Kind != OK {
						t.Error(v, err)
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
		for i := range 50 {
			if v := of(i).Judge(key); v.Kind != OK {
				t.Error(v)
			}
			if v, err := of(i).Remember(t.Context(), file, other, hash); err != nil || v.Kind != Changed {
				t.Errorf("somebody else was first: %v, %v", v, err)
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
	k := &Known{host: At("a:22"), files: []string{file}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := k.Remember(ctx, file, newKey(t).PublicKey(), false); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	done := make(chan error)
	key := newKey(t).PublicKey()
	go func() {
		_, err := k.Remember(context.Background(), file, key, false)
		done <- err
	}()
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
	for _, name := range []string{"a*", "a b", "a,b", "@a", "a\nb", ""} {
		k := &Known{host: Alias(name), files: []string{file}}
		if _, err := k.Remember(t.Context(), file, key, true); err == nil {
			t.Errorf("%q was written", name)
		}
	}
}

func FuzzKnownHosts(f *testing.F) {
	f.Add([]byte("a,b ssh-ed25519 AAAA\n@revoked * x y"), "a")
	f.Add([]byte("|1|AAAA|AAAA ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJDRnVyOYEMMUj6xdNu3l1yEeZaA2nOI2UJ5UHkgmT2\n"), "a")
	f.Add([]byte("*,!a ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJDRnVyOYEMMUj6xdNu3l1yEeZaA2nOI2UJ5UHkgmT2\n"), "b")
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		k := &Known{host: Alias(name)}
		if err := eachLine("f", bytes.NewReader(text), k.take); err != nil {
			return
		}
		for _, key := range k.keys {
			if v := k.Judge(key.Key); v.Kind != OK && v.Kind != Revoked {
				t.Error(v)
			}
		}
		k.Algorithms(xssh.SupportedAlgorithms().HostKeys)
	})
}

func BenchmarkKnownHosts(b *testing.B) {
	key := line(newKey(b).PublicKey())
	var text strings.Builder
	for i := range 10000 {
		fmt.Fprintf(&text, "host%d %s", i, key)
	}
	for b.Loop() {
		k := &Known{host: At("host5000:22")}
		if err := eachLine("f", strings.NewReader(text.String()), k.take); err != nil {
			b.Fatal(err)
		}
		if len(k.keys) != 1 {
			b.Fatal(len(k.keys))
		}
	}
}
