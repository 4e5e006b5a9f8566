//go:build unix

package sshconf_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/need"
	"github.com/lifeline-go/lifeline/internal/opensshd"
	"github.com/lifeline-go/lifeline/ssh"
	"github.com/lifeline-go/lifeline/ssh/sshconf"
	xssh "golang.org/x/crypto/ssh"
)

const s = time.Second

// says connects and runs a command.
func says(t testing.TB, h *sshconf.Host, login sshconf.Login) (client *ssh.Client, err error) {
	t.Helper()
	client, err = h.Connect(t.Context(), login)
	if err != nil {
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("more than a line: %v", err)
		}
		return nil, err
	}
	t.Cleanup(func() { client.Close() })
	if out, err := client.Command("echo it works").Output(t.Context()); err != nil || string(out) != "it works\n" {
		t.Errorf("%q, %v", out, err)
	}
	return client, nil
}

func TestHostKeys(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	other, _ := opensshd.Key(t, t.TempDir(), "other")
	name := fmt.Sprintf("[127.0.0.1]:%d", d.Port)
	host := func(policy sshconf.HostKeyPolicy) *sshconf.Host {
		h := hostOf(t, d.entry("web1"), "web1")
		h.HostKeys = policy
		return h
	}
	var shown *sshconf.HostKeyError
	d.know(t, "", other.PublicKey())
	for _, policy := range []sshconf.HostKeyPolicy{sshconf.Strict, sshconf.AcceptNew, sshconf.Ask} {
		_, err := says(t, host(policy), sshconf.Login{AcceptHostKey: func(context.Context, *sshconf.HostKeyError) error { t.Error("asked"); return nil }})
		if !errors.Is(err, sshconf.ErrChanged) || !errors.Is(err, ssh.ErrHostKey) || !errors.As(err, &shown) || shown.Name != name ||
			!strings.Contains(err.Error(), d.knownHosts()+":1 has "+xssh.KeyAlgoED25519+" "+xssh.FingerprintSHA256(other.PublicKey())) ||
			!strings.Contains(err.Error(), "ssh-keygen -f '"+d.knownHosts()+"' -R '"+name+"'") {
			t.Errorf("%s: %v", policy, err)
		}
		t.Log(err)
	}
	if _, err := says(t, host(sshconf.Insecure), sshconf.Login{}); err != nil {
		t.Error(err)
	}
	h := host(sshconf.Insecure)
	h.IdentityFiles = nil
	_, err := says(t, h, sshconf.Login{Password: func(context.Context, string) (string, error) { t.Error("a password was asked for"); return "", nil }})
	if !errors.Is(err, ssh.ErrAuthentication) || !strings.Contains(err.Error(), "so it is sent no password") {
		t.Error(err)
	}
	d.know(t, "@revoked ", d.Host.PublicKey())
	if _, err := says(t, host(sshconf.Insecure), sshconf.Login{}); !errors.Is(err, sshconf.ErrRevoked) || !strings.Contains(err.Error(), d.knownHosts()+":1") {
		t.Error(err)
	}
	var warned []sshconf.Warning
	write(t, d.knownHosts(), name+" ssh-ed25519 AAAA\n")
	_, err = says(t, host(sshconf.Strict), sshconf.Login{Warn: func(w sshconf.Warning) { warned = append(warned, w) }})
	if !errors.Is(err, sshconf.ErrUnknown) || len(warned) != 1 || !strings.HasPrefix(warned[0].String(), d.knownHosts()+":1: ") {
		t.Errorf("%v, and %v", err, warned)
	}
	write(t, d.knownHosts(), "")
	for _, policy := range []sshconf.HostKeyPolicy{sshconf.Strict, sshconf.Ask} {
		if _, err := says(t, host(policy), sshconf.Login{}); !errors.Is(err, sshconf.ErrUnknown) || !strings.Contains(err.Error(), "accept-new") {
			t.Errorf("%s: %v", policy, err)
		}
	}
	no := errors.New("I do not like it")
	if _, err := says(t, host(sshconf.Ask), sshconf.Login{AcceptHostKey: func(context.Context, *sshconf.HostKeyError) error { return no }}); !errors.Is(err, no) {
		t.Error(err)
	}
	yes := func(_ context.Context, e *sshconf.HostKeyError) error { shown = e; return nil }
	if _, err := says(t, host(sshconf.Ask), sshconf.Login{AcceptHostKey: yes}); err != nil || shown.Kind != sshconf.ErrUnknown {
		t.Error(err)
	}
	if _, err := says(t, host(sshconf.Strict), sshconf.Login{}); err != nil {
		t.Errorf("what was accepted is known: %v", err)
	}
	h = host(sshconf.Strict)
	h.RevokedHostKeys = filepath.Join(t.TempDir(), "revoked")
	write(t, h.RevokedHostKeys, string(xssh.MarshalAuthorizedKey(d.Host.PublicKey())))
	if _, err := says(t, h, sshconf.Login{}); !errors.Is(err, sshconf.ErrRevoked) {
		t.Error(err)
	}
}

// A server with keys of several kinds shows the one that is known, whichever it
// prefers (golang/go#29286).
func TestHostKeyOfTheKnownKind(t *testing.T) {
	t.Parallel()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := xssh.MarshalPrivateKey(ec, "")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ec")
	write(t, file, string(pem.EncodeToMemory(block)))
	second, err := xssh.NewPublicKey(&ec.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	d := startSSHD(t, "HostKey "+file)
	for _, key := range []xssh.PublicKey{d.Host.PublicKey(), second} {
		d.know(t, "", key)
		if _, err := says(t, hostOf(t, d.entry("web1"), "web1"), sshconf.Login{}); err != nil {
			t.Error(err)
		}
	}
}

// Ten connections at once meet a new host.
func TestAcceptNew(t *testing.T) {
	t.Parallel()
	d := startSSHD(t, "MaxStartups 100")
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			h := hostOf(t, d.entry("web1"), "web1")
			h.HostKeys, h.HashKnownHosts = sshconf.AcceptNew, true
			if client, err := h.Connect(t.Context(), sshconf.Login{}); err != nil {
				t.Error(err)
			} else {
				_ = client.Close()
			}
		})
	}
	wg.Wait()
	text, err := os.ReadFile(d.knownHosts())
	if err != nil || strings.Count(string(text), "\n") != 1 || !strings.HasPrefix(string(text), "|1|") {
		t.Errorf("%q, %v", text, err)
	}
	// OpenSSH finds it too.
	cmd := exec.Command(need.Program(t, "ssh"), "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "UserKnownHostsFile="+d.knownHosts(), "-o", "IdentityAgent=none",
		"-o", "StrictHostKeyChecking=yes", "-i", d.MeFile, "-p", fmt.Sprint(d.Port), "root@127.0.0.1", "true")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	d.know(t, "", d.Host.PublicKey())
	dir := t.TempDir()
	secretFile := filepath.Join(dir, "secret") // decrypted in one round, so that nobody waits
	if out, err := exec.Command(need.Program(t, "ssh-keygen"), "-q", "-t", "ed25519", "-a", "1", "-N", "right", "-f", secretFile).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	secret, err := os.ReadFile(secretFile + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	_, strange := opensshd.Key(t, dir, "strange")
	authority, _ := opensshd.Key(t, dir, "authority")
	certified, certifiedFile := opensshd.Key(t, dir, "certified")
	certificate := &xssh.Certificate{Key: certified.PublicKey(), CertType: xssh.UserCert, ValidPrincipals: []string{"root"}, ValidBefore: xssh.CertTimeInfinity}
	if err := certificate.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	write(t, certifiedFile+"-cert.pub", string(xssh.MarshalAuthorizedKey(certificate)))
	authorized, err := os.ReadFile(filepath.Join(d.Dir, "authorized_keys"))
	if err != nil {
		t.Fatal(err)
	}
	rsaFile := filepath.Join(dir, "rsa")
	if out, err := exec.Command(need.Program(t, "ssh-keygen"), "-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-f", rsaFile).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	rsa, err := os.ReadFile(rsaFile + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	oldFile := filepath.Join(dir, "old") // of which the public half is in no file
	if out, err := exec.Command("sh", "-c", `cp "$0" "$1" && ssh-keygen -q -p -m PEM -P "" -N right -f "$1"`, rsaFile, oldFile).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	write(t, filepath.Join(d.Dir, "authorized_keys"), string(authorized)+string(secret)+string(rsa)+
		"cert-authority "+string(xssh.MarshalAuthorizedKey(authority.PublicKey())))
	open := filepath.Join(dir, "open")
	text, err := os.ReadFile(d.MeFile)
	if err != nil {
		t.Fatal(err)
	}
	write(t, open, string(text))
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	asked := 0
	passphrase := func(words ...string) func(context.Context, string) ([]byte, error) {
		asked = 0
		return func(_ context.Context, file string) ([]byte, error) {
			if file != secretFile && file != oldFile || asked == len(words) {
				return nil, fmt.Errorf("asked for %s", file)
			}
			asked++
			return []byte(words[asked-1]), nil
		}
	}
	for name, row := range map[string]struct {
		files []string
		words []string
		is    error
		says  string
		asked int
	}{
		"plain":              {files: []string{d.MeFile}},
		"after a strange":    {files: []string{strange, d.MeFile}},
		"the right word":     {files: []string{secretFile}, words: []string{"right"}, asked: 1},
		"the second word":    {files: []string{secretFile}, words: []string{"wrong", "right"}, asked: 2},
		"three wrong words":  {files: []string{secretFile}, words: []string{"a", "b", "c", "right"}, is: ssh.ErrPassphrase, says: secretFile, asked: 3},
		"then another key":   {files: []string{secretFile, d.MeFile}, words: []string{"a", "b", "c"}, asked: 3},
		"no need to ask":     {files: []string{d.MeFile, secretFile}, words: []string{"right"}},
		"nobody to ask":      {files: []string{secretFile}, is: ssh.ErrPassphrase, says: "ssh-add"},
		"certified":          {files: []string{certifiedFile}},
		"RSA":                {files: []string{rsaFile}},
		"as of old":          {files: []string{oldFile}, words: []string{"wrong", "right"}, asked: 2},
		"as of old, wrong":   {files: []string{oldFile}, words: []string{"wrong"}, is: ssh.ErrPassphrase, says: oldFile, asked: 1},
		"others can read it": {files: []string{open}, is: ssh.ErrAuthentication, says: "chmod 600"},
		"none":               {files: []string{filepath.Join(dir, "none")}, is: ssh.ErrAuthentication, says: "it takes publickey"},
	} {
		h := hostOf(t, d.entry("web1"), "web1")
		h.IdentityFiles = row.files
		h.Methods = []string{"publickey"}
		login := sshconf.Login{}
		if row.words != nil {
			login.Passphrase = passphrase(row.words...)
		}
		_, err := says(t, h, login)
		if !errors.Is(err, row.is) || row.is == nil && err != nil || err != nil && !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v", name, err)
		}
		if row.words != nil && asked != row.asked {
			t.Errorf("%s: asked %d times", name, asked)
		}
		if err != nil {
			t.Logf("%s: %v", name, err)
		}
	}
	// RSA by an agent; and an agent without keys.
	socket, _ := agentProcess(t, rsaFile, certifiedFile)
	h := hostOf(t, d.entry("web1"), "web1")
	h.Agent, h.IdentityFiles, h.Certificates = socket, []string{rsaFile + ".pub"}, nil
	if _, err := says(t, h, sshconf.Login{}); err != nil {
		t.Error(err)
	}
	socket, _ = agentProcess(t)
	h.Agent, h.IdentityFiles, h.Certificates = socket, []string{certifiedFile}, []string{certifiedFile + "-cert.pub"}
	if _, err := says(t, h, sshconf.Login{}); err != nil {
		t.Error(err)
	}
}

func TestAgent(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	d.know(t, "", d.Host.PublicKey())
	dir := t.TempDir()
	_, strange := opensshd.Key(t, dir, "strange")
	me, err := os.ReadFile(d.MeFile)
	if err != nil {
		t.Fatal(err)
	}
	held := filepath.Join(dir, "held")
	write(t, held, string(me))
	socket, process := agentProcess(t, strange, held)
	host := func(files ...string) *sshconf.Host {
		h := hostOf(t, d.entry("web1"), "web1")
		h.Agent, h.IdentityFiles, h.Methods = socket, files, []string{"publickey"}
		return h
	}
	if _, err := says(t, host(), sshconf.Login{}); err != nil {
		t.Error(err)
	}
	h := host()
	h.IdentitiesOnly = true
	if _, err := says(t, h, sshconf.Login{}); !errors.Is(err, ssh.ErrAuthentication) {
		t.Error(err)
	}
	signer, err := xssh.ParsePrivateKey(me)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "chosen.pub"), string(xssh.MarshalAuthorizedKey(signer.PublicKey())))
	for _, file := range []string{"chosen", "chosen.pub"} { // the private half is the agent's
		h = host(filepath.Join(dir, file))
		h.IdentitiesOnly = true
		if _, err := says(t, h, sshconf.Login{}); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	// An agent that is stopped is left out when its time is over.
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Signal(syscall.SIGCONT) })
	began := time.Now()
	if _, err := says(t, host(d.MeFile), sshconf.Login{AgentTimeout: s}); err != nil {
		t.Error(err)
	}
	took := time.Since(began)
	t.Logf("with a stopped agent: %v, of 1 s", took)
	if took < s || took > 30*s {
		t.Error(took)
	}
	_, err = says(t, host(), sshconf.Login{AgentTimeout: s / 2})
	if !errors.Is(err, sshconf.ErrAgent) || !errors.Is(err, ssh.ErrAuthentication) || !strings.Contains(err.Error(), socket+" has not answered for 500ms") {
		t.Error(err)
	}
	t.Log(err)
	h = host(d.MeFile)
	h.Agent = filepath.Join(dir, "nothing")
	if _, err := says(t, h, sshconf.Login{}); err != nil {
		t.Error(err)
	}
}

// An agent that names its keys and gets stuck when it is to sign: the same key
// in a file is used, and where there is none another key.
func TestAgentStuckSigning(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	d.know(t, "", d.Host.PublicKey())
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	me, err := os.ReadFile(d.MeFile)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := xssh.ParsePrivateKey(me)
	if err != nil {
		t.Fatal(err)
	}
	second, secondFile := opensshd.Key(t, t.TempDir(), "second")
	write(t, filepath.Join(d.Dir, "authorized_keys"), string(xssh.MarshalAuthorizedKey(signer.PublicKey()))+string(xssh.MarshalAuthorizedKey(second.PublicKey())))
	socket := filepath.Join(dir, "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { stuckAgent(conn, signer.PublicKey()) })
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	for _, file := range []string{d.MeFile, secondFile} {
		h := hostOf(t, d.entry("web1"), "web1")
		h.Agent, h.IdentityFiles = socket, []string{file}
		began := time.Now()
		if _, err := says(t, h, sshconf.Login{AgentTimeout: s / 2}); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < s/2 || took > 30*s {
			t.Error(took)
		}
	}
}

// stuckAgent answers the request for its keys, and no other.
func stuckAgent(conn net.Conn, key xssh.PublicKey) {
	defer conn.Close()
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	for err == nil && n > 4 && buf[4] == 11 { // SSH_AGENTC_REQUEST_IDENTITIES
		answer := xssh.Marshal(struct {
			Count uint32 `sshtype:"12"`
			Blob  []byte
			Name  string
		}{Count: 1, Blob: key.Marshal(), Name: "stuck"})
		if _, err = conn.Write(append([]byte{0, 0, 0, byte(len(answer))}, answer...)); err == nil {
			n, err = conn.Read(buf)
		}
	}
	for err == nil {
		_, err = conn.Read(buf)
	}
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	server := passwordServer(t)
	for name, row := range map[string]struct {
		methods []string
		words   []string
		err     string
		asked   int
	}{
		"right":       {[]string{"password"}, []string{"right"}, "", 1},
		"third":       {[]string{"password"}, []string{"a", "b", "right"}, "", 3},
		"wrong":       {[]string{"password"}, []string{"a", "b", "c", "right"}, "and no password", 3},
		"interactive": {[]string{"keyboard-interactive", "password"}, []string{"a", "right"}, "", 2},
		"none":        {[]string{"password"}, nil, "password: out of words", 0},
	} {
		h := hostOf(t, fmt.Sprintf("HostName 127.0.0.1\nPort %d\nUserKnownHostsFile none\nStrictHostKeyChecking no\nIdentityFile none\n", server), "u@web1")
		h.Methods = row.methods
		asked := 0
		client, err := h.Connect(t.Context(), sshconf.Login{Password: func(_ context.Context, who string) (string, error) {
			if who != "u@web1" {
				t.Error(who)
			}
			if asked == len(row.words) {
				return "", errors.New("out of words")
			}
			asked++
			return row.words[asked-1], nil
		}})
		if err == nil {
			_ = client.Close()
		}
		if (err == nil) != (row.err == "") || err != nil && !strings.Contains(err.Error(), row.err) || asked != row.asked {
			t.Errorf("%s: %v, asked %d times", name, err, asked)
		}
		h.BatchMode = true
		if _, err := h.Connect(t.Context(), sshconf.Login{Password: func(context.Context, string) (string, error) { t.Error("asked"); return "", nil }}); err == nil {
			t.Error("BatchMode")
		}
	}
}

// What a server asks is answered by whoever can.
func TestInteractive(t *testing.T) {
	t.Parallel()
	h := hostOf(t, fmt.Sprintf("HostName 127.0.0.1\nPort %d\nUserKnownHostsFile none\nStrictHostKeyChecking no\nIdentityFile none\n", passwordServer(t)), "u@web1")
	h.Methods = []string{"keyboard-interactive"}
	client, err := h.Connect(t.Context(), sshconf.Login{Interactive: func(_ context.Context, who, _ string, questions []string, echo []bool) ([]string, error) {
		if who != "u@web1" || len(questions) != 1 || questions[0] != "Password: " || echo[0] {
			t.Error(who, questions, echo)
		}
		return []string{"right"}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
	no := errors.New("nobody is here")
	if _, err := h.Connect(t.Context(), sshconf.Login{Password: func(context.Context, string) (string, error) { return "", no }}); !errors.Is(err, no) {
		t.Error(err)
	}
}

// passwordServer lets in whoever says right.
func passwordServer(t *testing.T) (port int) {
	t.Helper()
	host, _ := opensshd.Key(t, t.TempDir(), "host")
	config := &xssh.ServerConfig{
		MaxAuthTries: 10,
		PasswordCallback: func(_ xssh.ConnMetadata, password []byte) (*xssh.Permissions, error) {
			if string(password) != "right" {
				return nil, errors.New("wrong")
			}
			return nil, nil
		},
		KeyboardInteractiveCallback: func(_ xssh.ConnMetadata, ask xssh.KeyboardInteractiveChallenge) (*xssh.Permissions, error) {
			answers, err := ask("", "", []string{"Password: "}, []bool{false})
			if err != nil || len(answers) != 1 || answers[0] != "right" {
				return nil, errors.New("wrong")
			}
			return nil, nil
		},
	}
	config.AddHostKey(host)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				server, channels, requests, err := xssh.NewServerConn(conn, config)
				if err != nil {
					return
				}
				go xssh.DiscardRequests(requests)
				go func() {
					for channel := range channels {
						_ = channel.Reject(xssh.Prohibited, "")
					}
				}()
				_ = server.Wait()
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}
