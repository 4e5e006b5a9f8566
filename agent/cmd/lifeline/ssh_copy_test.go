package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// random writes a file of random bytes.
func (d *sshd) random(t *testing.T, name string, size int) []byte {
	t.Helper()
	text := make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(size)})
	_, _ = source.Read(text)
	d.write(t, name, string(text))
	return text
}

func (d *sshd) read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(d.file(name))
	if err != nil {
		t.Error(err)
	}
	return text
}

// Files and trees go to many hosts and come back, each to a place of its own.
func TestSSHCopies(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	text := d.random(t, "app.tar", 3<<20)
	if err := os.MkdirAll(d.file("site/deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	d.write(t, "site/deep/page", "hello")
	if err := os.Symlink("deep/page", d.file("site/link")); err != nil {
		t.Fatal(err)
	}
	_, hosts := d.report(t, 0, "c[1-4]", "--put", d.file("app.tar"), "--put", d.file("site")+":www", "--put", d.file("site")+":~/www/")
	for i := range 4 {
		home := fmt.Sprintf("home%d/", i+1)
		if got := d.read(t, home+"app.tar"); !bytes.Equal(got, text) {
			t.Errorf("%d bytes", len(got))
		}
		for _, name := range []string{"www/link", "www/deep/page", "www/site/link"} {
			if got := d.read(t, home+name); string(got) != "hello" {
				t.Errorf("%s: %q", name, got)
			}
		}
		h := hosts[fmt.Sprintf("c%d", i+1)]
		if h.Phase == nil || *h.Phase != "copy" || h.Exit != nil || h.Copied == nil || h.Copied.Files != 3 || h.Copied.Bytes != 3<<20+10 {
			t.Errorf("%+v", h)
		}
	}
	_, errs, code := d.ssh(t, "c[1-4],dead", "--get", "app.tar:"+d.file("got"), "--get", "www:"+d.file("{host}-www"), "--connect-timeout", "5s")
	if !strings.HasPrefix(errs, "dead: unreachable while connecting: connection refused; at: --get app.tar\n5 hosts: 4 ok, 1 unreachable; 12 files, 12 MiB copied, in ") || code != exitBlind {
		t.Errorf("%q, %d", errs, code)
	}
	for _, host := range []string{"c1", "c2", "c3", "c4"} {
		if got := d.read(t, "got/"+host+"/app.tar"); !bytes.Equal(got, text) {
			t.Errorf("%d bytes", len(got))
		}
		if got := d.read(t, host+"-www/site/deep/page"); string(got) != "hello" {
			t.Errorf("%q", got)
		}
	}
	if left, _ := filepath.Glob(d.file("got/*/.*")); len(left) > 0 {
		t.Error(left)
	}
}

// A copy and a command are one after the other, over one connection.
func TestSSHCopyAndCommand(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	d.write(t, "a", "hello\n")
	out, errs, code := d.ssh(t, "web1", "--put", d.file("a")+":"+d.file("b"), "--get", d.file("c")+":"+d.file("{host}.c"), "--",
		"cat "+d.file("b")+"; echo $SSH_CONNECTION > "+d.file("c"))
	if out != "web1: hello\n" || !strings.HasPrefix(errs, "1 host: 1 ok; 2 files, ") || code != 0 {
		t.Errorf("%q, %q, %d", out, errs, code)
	}
	if got := string(d.read(t, "web1.c")); len(strings.Fields(got)) != 4 {
		t.Errorf("%q", got)
	}
	// What fails ends it: nothing is run that was to come after the copy.
	out, errs, code = d.ssh(t, "web1", "--put", d.file("a")+":/nowhere/b", "--", "echo never")
	if out != "" || !strings.HasPrefix(errs, "web1: it has no directory /nowhere; at: --put "+d.file("a")+"\n1 host: 1 failed; 0 files, ") || code != exitFindings {
		t.Errorf("%q, %q, %d", out, errs, code)
	}
	_, errs, code = d.ssh(t, "web1", "--get", "/nowhere:"+d.file("got"))
	if !strings.HasPrefix(errs, "web1: \"/nowhere\": the server says: no such file") || code != exitFindings {
		t.Errorf("%q, %d", errs, code)
	}
	if _, err := os.Lstat(d.file("got")); !os.IsNotExist(err) {
		t.Errorf("a copy that could not begin left a directory behind: %v", err)
	}
	_, errs, code = d.ssh(t, "c1", "--", "true") // it only copies
	if code != exitFindings && code != exitTimedOut {
		t.Errorf("%q, %d", errs, code)
	}
}

// valve passes connections on to an address, so many bytes of each, and then
// holds them as a frozen host would: its kernel acknowledges.
type valve struct {
	port  string
	most  atomic.Int64
	first atomic.Bool // only the next connection is held so
}

func newValve(t *testing.T, to string) *valve {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &valve{}
	_, v.port, _ = net.SplitHostPort(ln.Addr().String())
	var crew sync.WaitGroup
	over := make(chan struct{})
	crew.Go(func() {
		for {
			from, err := ln.Accept()
			if err != nil {
				return
			}
			crew.Go(func() {
				defer from.Close()
				host, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer host.Close()
				crew.Go(func() { _, _ = io.Copy(from, host); from.Close() })
				most := v.most.Load()
				if v.first.Load() {
					v.most.Store(1 << 40)
				}
				if n, _ := io.CopyN(host, from, most); n == most {
					<-over
				}
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		close(over)
		crew.Wait()
	})
	return v
}

// A host that freezes in the middle of a copy delays no other, and the copy goes
// on where it was.
func TestSSHCopyFrozen(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	text := d.random(t, "big", 24<<20)
	config := string(d.read(t, "ssh_config"))
	var port string
	if _, err := fmt.Sscanf(config[strings.Index(config, "Host c1\n Port "):], "Host c1\n Port %s", &port); err != nil {
		t.Fatal(err)
	}
	v := newValve(t, "127.0.0.4:"+port)
	d.write(t, "ssh_config", "Host slow\n Port "+v.port+"\n"+config)
	v.most.Store(10 << 20)
	_, hosts := d.report(t, exitBlind, "c[1-3],slow", "--silence", "3s", "--resume", "--put", d.file("big"))
	for _, host := range []string{"c1", "c2", "c3"} {
		if h := hosts[host]; h.Outcome != "ok" {
			t.Errorf("%+v", h)
		}
	}
	h := hosts["slow"]
	if h.Outcome != "unreachable" || *h.Phase != "copy" || !strings.Contains(*h.Reason, "silent, nothing heard for ") || h.Copied == nil {
		t.Errorf("%+v, %s", h, *h.Reason)
	}
	if _, err := os.Stat(d.file("home4/big")); err == nil {
		t.Error("there is a half")
	}
	v.most.Store(1 << 40)
	_, hosts = d.report(t, 0, "c[1-3],slow", "--resume", "--put", d.file("big"))
	if c := hosts["slow"].Copied; c == nil || c.Resumed < 1<<20 || c.Resumed+c.Bytes != int64(len(text)) {
		t.Errorf("%+v", c)
	}
	if c := hosts["c1"].Copied; c == nil || c.Bytes != 0 || c.Resumed != int64(len(text)) {
		t.Errorf("%+v", c)
	}
	for i := range 4 {
		if got := d.read(t, fmt.Sprintf("home%d/big", i+1)); !bytes.Equal(got, text) {
			t.Errorf("%d: %d bytes", i+1, len(got))
		}
	}
	// Without --resume, what --retry says is enough: nothing but a whole copy counts.
	v.most.Store(10 << 20)
	v.first.Store(true)
	_, hosts = d.report(t, 0, "slow", "--silence", "3s", "--retry", "2", "--put", d.file("big")+":again")
	if got := d.read(t, "home4/again"); !bytes.Equal(got, text) || hosts["slow"].Attempts < 2 {
		t.Errorf("%d bytes, %+v", len(got), hosts["slow"])
	}
	_, hosts = d.report(t, exitTimedOut, "c1", "--timeout", "1ms", "--put", d.file("big")+":late")
	if h := hosts["c1"]; h.Outcome != "timed_out" || *h.Reason != "the copy did not end within 1 ms" {
		t.Errorf("%+v", h)
	}
}

// What --put and --get mean.
func TestSSHCopyNames(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"a", "b", "c:d", "x*"} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir("tree", 0o700); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"a": "a a", "a:": "a a", "a:b": "a b", "a:/etc/": "a /etc/a", "a:~": "a a", "a:~/x": "a x", "a:~/x/": "a x/a", "a:/b c": "a /b c",
		`c\:d`: "c:d c:d", `c\:d:e\:f`: "c:d e:f", "tree:/srv/": "tree /srv/tree", "tree:/srv": "tree /srv", "./tree/:.": "./tree/ tree",
		"[ab]:/etc/": "a /etc/a, b /etc/b", "x*": "x* x*", "?": "a a, b b", "a:~user": "~user is not looked up", "a:b:c": "2 colons",
		"none": "no such file", "none*": "no name here matches", ":b": "LOCAL", "[ab]:c": "must be a directory", "/dev/null": "neither a file nor a directory", "/": "say what it is to be called",
	} {
		f := &sshFlags{put: []string{text}}
		steps, err := f.puts()
		var said []string
		for _, step := range steps {
			said = append(said, step.Copy.Local+" "+step.Copy.Remote)
		}
		if got := strings.Join(said, ", "); err == nil && got != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("--put %s: %q, %v", text, got, err)
		}
	}
	t.Setenv("HOME", "/me")
	for text, want := range map[string]string{
		"/var/log/app.log": "/var/log/app.log {host}/app.log", "/etc:in": "/etc in/{host}/etc", "/etc/:in/": "/etc in/{host}/etc", "a:{host}.a": "a {host}.a",
		"a:in/{host}-new/": "a in/{host}-new/a", "~/a:~/in": "a /me/in/{host}/a", `a\:b:c\:d`: "a:b c:d/{host}/a:b", `a\*`: "a* {host}/a*",
		"~:in": "say what it is to be called", "/:{host}": "/ {host}", "/var/log/*.log": "patterns", ":a": "REMOTE", "a:b:c": "2 colons",
	} {
		f := &sshFlags{get: []string{text}}
		steps, err := f.gets([]string{"web1"})
		got := ""
		if err == nil {
			got = steps[0].Copy.Remote + " " + steps[0].Copy.Local
		}
		if err == nil && got != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("--get %s: %q, %v", text, got, err)
		}
	}
	for _, f := range []*sshFlags{{put: []string{"a:x", "b:x"}}, {get: []string{"/a/x", "/b/x"}}} {
		_, err := f.puts()
		_, failed := f.gets(nil)
		if err == nil && failed == nil {
			t.Errorf("%v", f)
		}
	}
	if _, err := (&sshFlags{get: []string{"a"}}).gets([]string{".."}); err == nil {
		t.Error("a host led out of the directory")
	}
}
