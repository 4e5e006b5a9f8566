package sshconf_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/ssh/sshconf"
)

// nobody is an account with a home of its own.
func nobody(t testing.TB) sshconf.Account {
	t.Helper()
	return sshconf.Account{User: "me", ID: "7", Home: t.TempDir(), Hostname: "here.example", Getenv: func(name string) (string, bool) {
		return "/from/env", name == "DIR"
	}}
}

// load reads a configuration as ~/.ssh/config.
func load(t testing.TB, account sshconf.Account, text string, set ...string) *sshconf.Config {
	t.Helper()
	write(t, filepath.Join(account.Home, ".ssh", "config"), text)
	config, err := sshconf.Load(sshconf.Options{Account: account, System: filepath.Join(account.Home, "system"), Set: set})
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func resolve(t testing.TB, config *sshconf.Config, name string) *sshconf.Host {
	t.Helper()
	host, err := config.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// What nobody can make sense of is a warning with its line; it is an error only
// for the hosts that it is meant for.
func TestBadLines(t *testing.T) {
	t.Parallel()
	account := nobody(t)
	config := load(t, account, strings.Join([]string{
		"Frobnicate yes",              // 1
		"Host bad",                    // 2
		" Port none",                  // 3
		"Host worse",                  // 4
		" User \"open",                // 5
		"Match exec \"touch /tmp/x\"", // 6
		" User exec",                  // 7
		"Match frob x",                // 8
		" User frob",                  // 9
		"Match",                       // 10
		" User nothing",               // 11
		"Host",                        // 12
		" User none",                  // 13
		"Host *",                      // 14
		" CanonicalizeHostname yes",   // 15
		" VerifyHostKeyDNS no",        // 16
		" Port",                       // 17 for everybody: but good has one
		"Host good",
		" Port 5",
	}, "\n"))
	if _, err := config.Host("bad"); err == nil || !strings.Contains(err.Error(), "config:3: port:") || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
	if _, err := config.Host("worse"); err == nil || !strings.Contains(err.Error(), "config:5: user: a quotation mark") {
		t.Error(err)
	}
	if _, err := config.Host("good"); err == nil || !strings.Contains(err.Error(), "config:17:") {
		t.Error(err)
	}
	config = load(t, account, strings.ReplaceAll("Frobnicate yes\nHost bad\n Port none\nMatch exec \"touch x\"\n User e\nMatch frob\n User f\nMatch\nHost\n User h\nHost *\n CanonicalizeHostname yes\n VerifyHostKeyDNS no\nHost good\n Port 5", "\r", ""))
	host := resolve(t, config, "good")
	var lines []int
	for _, w := range host.Warnings {
		t.Log(w)
		lines = append(lines, w.At.Line)
	}
	if !slices.Equal(lines, []int{1, 3, 4, 6, 8, 9, 12}) || host.Port != 5 || host.User != "me" {
		t.Errorf("%v, %+v", lines, host)
	}
}

// A name that a shell could act on goes nowhere.
func TestShellCharacters(t *testing.T) {
	t.Parallel()
	account := nobody(t)
	config := load(t, account, "ProxyCommand touch %h")
	for _, name := range []string{
		"", "-oProxyCommand=x", "a;b", "$(touch x)", "`x`", "a b", "a\nb", "a|b", "a&b", "a>b", "a<b", "'a", `"a"`, "a\\b", "{a}", "a,b",
		"x@", "@a", "-l@a", "$(x)@a", "u;x@a", "ssh://a;b", "ssh://a:99:9", "ssh://a:", "ssh://a:99999", "ssh://a:x", "a\x00b", "a\u0085b",
	} {
		if host, err := config.Host(name); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %+v, %v", name, host, err)
		}
	}
	for text, want := range map[string]string{
		"ProxyCommand x %h\nHostName a;b":      "character ';'",
		"ProxyCommand x %r\nUser $(id)":        "could act on",
		"ProxyCommand x %r\nUser -oX":          "dash",
		"ProxyCommand x %k\nHostKeyAlias a`b`": "character '`'",
		"ProxyCommand x %n %u":                 "%u means nothing here",
		"ProxyCommand x %":                     "ends with a %",
		"ProxyCommand":                         "has no value",
		"ProxyJump a;b":                        "character ';'",
		"Host web1\nProxyJump a,,b":            "empty",
		"ProxyJump a:b:c":                      "neither host nor host:port",
		"ProxyJump -x":                         "dash",
		"IdentityFile ~other/x":                "~user",
		"IdentityFile ${NO}/x":                 "no NO",
		"IdentityFile ${NO":                    "not closed",
		"IdentityFile %Q":                      "%Q means nothing",
		"SetEnv A":                             "NAME=value",
		"Ciphers none":                         "leaves nothing",
		"ConnectTimeout 1x":                    "no time",
		"ConnectTimeout 99999999999":           "no time",
		"ConnectTimeout 2000w":                 "more than a year",
		"StrictHostKeyChecking maybe":          "none of",
		"NumberOfPasswordPrompts -1":           "no number",
		"Port 0":                               "no port",
		"User a b":                             "more than one value",
		"Host *\nProxyJump j":                  "jump host is its own",
	} {
		_, err := load(t, account, text).Host("web1")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", text, err)
		}
	}
	host := resolve(t, load(t, account, `ProxyCommand nc %h %p; echo "%%$HOME" %n %r %k`), "u@web-1_x.example")
	if host.ProxyCommand != `nc web-1_x.example 22; echo "%$HOME" web-1_x.example u web-1_x.example` {
		t.Error(host.ProxyCommand)
	}
	for name, want := range map[string]string{"::1": "[::1]:22", "u@[::1]": "[::1]:22", "ssh://[::1]:99": "[::1]:99", "ssh://[::1]/": "[::1]:22"} {
		if host := resolve(t, load(t, account, ""), name); host.Address() != want {
			t.Errorf("%s: %s", name, host.Address())
		}
	}
	if host := resolve(t, load(t, account, "ProxyCommand nc %h %p"), "fe80::1"); host.ProxyCommand != "nc fe80::1 22" {
		t.Error(host.ProxyCommand)
	}
}

func TestOptionsAndFiles(t *testing.T) {
	t.Parallel()
	account := nobody(t)
	account.Agent = "/run/agent"
	write(t, filepath.Join(account.Home, "system"), "User sys\nPort 7\nInclude more\nInclude system\n")
	write(t, filepath.Join(account.Home, "more"), "ServerAliveInterval 9")
	write(t, filepath.Join(account.Home, ".ssh", "conf.d", "a"), "IdentityFile ${DIR}/%d-%l-%L-%i\nIdentityAgent $DIR")
	config := load(t, account, "Include conf.d/*\nPort 6\nHost j\n User jump\nMatch tagged t\n BatchMode yes", "Port=5", "ProxyJump j,x@k:8", "Tag t")
	host := resolve(t, config, "u@web1")
	if host.Port != 5 || host.User != "u" || host.AliveInterval != 9*time.Second || !host.BatchMode || host.Agent != "/from/env" ||
		host.IdentityFiles[0] != "/from/env/"+account.Home+"-here.example-here-7" {
		t.Errorf("%+v", host)
	}
	if len(host.Jumps) != 2 || host.Jumps[0].User != "jump" || host.Jumps[0].Port != 6 || host.Jumps[1].Port != 8 || host.Jumps[1].User != "x" || host.Jumps[0].BatchMode {
		t.Errorf("%+v", host.Jumps)
	}
	if len(host.Warnings) == 0 || !strings.Contains(host.Warnings[0].Text, "includes itself") {
		t.Error(host.Warnings)
	}
	host = resolve(t, load(t, account, "SendEnv L* X -X\nSetEnv A=1"), "h")
	if got := host.Env([]string{"LANG=C", "X=1", "HOME=/"}); !slices.Equal(got, []string{"LANG=C", "A=1"}) {
		t.Error(got)
	}
	if _, err := sshconf.Load(sshconf.Options{Account: account, File: filepath.Join(account.Home, "none")}); err == nil {
		t.Error("a file that is not there")
	}
	config, err := sshconf.Load(sshconf.Options{Account: account, File: "none"})
	if err != nil || resolve(t, config, "web1").Port != 22 {
		t.Error(err)
	}
	file := filepath.Join(account.Home, ".ssh", "config")
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := sshconf.Load(sshconf.Options{Account: account}); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Error(err)
	}
	for _, option := range []string{" ", "Port", "Port=x", "Prot=22", "Host=x"} {
		if _, err := sshconf.Load(sshconf.Options{Account: account, File: "none", Set: []string{option}}); err == nil || !strings.Contains(err.Error(), option) {
			t.Errorf("%q: %v", option, err)
		}
	}
}

// Jump hosts of the first jump host come first.
func TestJumpsOfJumps(t *testing.T) {
	t.Parallel()
	config := load(t, nobody(t), "Host web\n ProxyJump b,c\nHost b\n ProxyJump a\nHost c\n ProxyJump nowhere\n ProxyCommand x")
	var names []string
	for _, jump := range resolve(t, config, "web").Jumps {
		names = append(names, jump.Alias)
		if jump.ProxyCommand != "" {
			t.Errorf("%s has a ProxyCommand", jump.Alias)
		}
	}
	if !slices.Equal(names, []string{"a", "b", "c"}) {
		t.Error(names)
	}
}

func TestManyHosts(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&text, "Host h%d\n Port %d\n", i, i+1)
	}
	config := load(t, nobody(t), text.String())
	began := time.Now()
	for i := range 200 {
		if host := resolve(t, config, fmt.Sprintf("h%d", i*10)); host.Port != i*10+1 {
			t.Fatal(host.Port)
		}
	}
	t.Logf("200 names in a file of 2000 hosts: %v", time.Since(began))
}

func FuzzConfig(f *testing.F) {
	for _, row := range asked {
		f.Add(row.config, row.names[0])
	}
	f.Add("Match host \"a\nHost=\\\nProxyJump %%,%h", "$(x)")
	account := sshconf.Account{User: "me", Home: f.TempDir()}
	f.Fuzz(func(t *testing.T, text, name string) {
		if strings.Contains(strings.ToLower(text), "include") {
			return // it would read other files
		}
		file := filepath.Join(account.Home, "config")
		write(t, file, text)
		config, err := sshconf.Load(sshconf.Options{Account: account, File: file})
		if err != nil {
			return
		}
		host, err := config.Host(name)
		if err != nil {
			return
		}
		if host.Port < 1 || host.Port > 65535 || host.User == "" || host.Name == "" || strings.ContainsAny(host.Name, "$;`\n ") {
			t.Errorf("%+v", host)
		}
	})
}
