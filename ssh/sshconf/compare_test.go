package sshconf_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
	"github.com/lifeline-go/lifeline/ssh/sshconf"
	xssh "golang.org/x/crypto/ssh"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// here is who ssh -G takes the test to be run by.
func here(t testing.TB) sshconf.Account {
	t.Helper()
	account, err := sshconf.Here(os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	return account
}

// asked are configurations, and the names that are asked for; what matters is
// that ssh -G says the same.
var asked = []struct {
	config string
	names  []string
}{
	{"", []string{"web1", "WEB1", "root@web1", "ssh://admin@web1:2222", "10.0.0.1", "::1", "ssh://web1/"}},
	{"Host WEB1\nPort 5", []string{"WEB1", "web1"}},
	{"Host web?\n Port 5\nHost *\n Port 6\n User u", []string{"web1", "web", "web12", "me@web1"}},
	{"Host !web1 web*\n Port 5", []string{"web1", "web2"}},
	{"Host web* !web1\n Port 5", []string{"web1", "web2"}},
	{"Host !web1\n Port 5", []string{"web2"}},
	{"Host a,b\n Port 5", []string{"a", "b"}},
	{"Host \"web1\" 'web2' # web3\n Port 5", []string{"web1", "web2", "web3"}},
	{"Match host web1\nPort 5", []string{"WEB1", "web1", "web2"}},
	{"Match host WEB1\nPort 5", []string{"WEB1", "web1"}},
	{"Match host web1,db* user \"a b,root\"\n Port 9", []string{"web1", "db7", "x@web1", "root@web1", "a\\ b@web1"}},
	{"Match host=web1\n Port 9", []string{"web1", "web2"}},
	{"Match !host web1\n Port 9", []string{"web1", "web2"}},
	{"Match host *,!web1\n Port 9", []string{"web1", "web2"}},
	{"Match originalhost web1\n Port 9\nHost web1\n HostName real.example\nMatch host real.example\n User u", []string{"web1", "real.example"}},
	{"Host web1\n HostName %h.example\n\nMatch host web1.example\n Port 7", []string{"web1", "web2"}},
	{"Match localuser root\n Port 7\nMatch localuser nobody\n User x", []string{"web1"}},
	{"Match user root\n Port 7\n", []string{"web1", "u@web1"}},
	{"Match final\n Port 7", []string{"web1"}},
	{"Match final all\n Port 7", []string{"web1"}},
	{"Match final host web1\n Port 7\nMatch all\nPort 8", []string{"web1", "web2"}},
	{"Match canonical\n Port 7", []string{"web1"}},
	{"Match !final\n Port 7\nMatch final\nPort 8\nUser f", []string{"web1"}},
	{"Match all\n Port 7", []string{"web1"}},
	{"HostName Foo%h.Example\nPort=9\nUser = \"x y\"", []string{"Web1"}},
	{"HostName 100%%h", []string{"web1"}},
	{"  Port\t5   # comment\n\tUser a#b\n#User c\n", []string{"web1"}},
	{"PORT 5\npOrT 6\r\nUser u\r\n", []string{"web1"}},
	{"ProxyCommand = nc \"%h\" %p # x", []string{"web1"}},
	{"Host j\nProxyJump none\nHost *\nProxyCommand none\nProxyJump j", []string{"web1"}},
	{"Host !j *\nProxyJump j\nProxyCommand nc", []string{"web1"}},
	{"ProxyJump none\nProxyCommand nc %h", []string{"web1"}},
	{"Host !a !c *\nProxyJump a,b@c:55", []string{"web1"}},
	{"SetEnv A=b C=\"d e\"\nSetEnv E=f\nSendEnv A B\nSendEnv C LC_* -LC_ALL", []string{"web1"}},
	{"ConnectTimeout 1m\nServerAliveInterval 1m30\nServerAliveCountMax 7", []string{"web1"}},
	{"ConnectTimeout none\nServerAliveInterval 1h1m1s", []string{"web1"}},
	{"IdentityFile ~/x\nIdentityFile /tmp/%h-%r-%p\nIdentityFile ~/x\nCertificateFile ~/%n\nIdentitiesOnly yes", []string{"web1", "u@web1"}},
	{"Host web*\n IdentityFile ~/a\nHost *1\n IdentityFile ~/b", []string{"web1", "web2", "x"}},
	{"UserKnownHostsFile ~/a %d/b \"/x y\"\nGlobalKnownHostsFile /g1 /g2\nHashKnownHosts yes", []string{"web1"}},
	{"UserKnownHostsFile /a-%h-%p-%r-%u-%i-%L-%l-%k-%n-%%", []string{"web1", "u@web1"}},
	{"StrictHostKeyChecking off\nHostKeyAlias alias", []string{"web1"}},
	{"StrictHostKeyChecking accept-new\nStrictHostKeyChecking no", []string{"web1"}},
	{"StrictHostKeyChecking yes\nBatchMode yes\nNumberOfPasswordPrompts 1", []string{"web1"}},
	{"Ciphers aes256-ctr,aes128-ctr\nMACs hmac-sha2-256\nKexAlgorithms curve25519-sha256\nHostKeyAlgorithms ssh-ed25519", []string{"web1"}},
	{"Ciphers ^aes256-ctr\nMACs ^hmac-sha2-512\nHostKeyAlgorithms ^rsa-sha2-256", []string{"web1"}},
	{"Ciphers -aes*\nMACs -*-etm@openssh.com", []string{"web1"}},
	{"AddressFamily inet6\nBindAddress 127.0.0.1", []string{"web1"}},
	{"PreferredAuthentications password,publickey\nPasswordAuthentication no", []string{"web1"}},
	{"KbdInteractiveAuthentication no\nPubkeyAuthentication no", []string{"web1"}},
	{"IdentityAgent none", []string{"web1"}},
	{"IdentityAgent /tmp/a-%h", []string{"web1"}},
	{"Include DIR/part*\nPort 99", []string{"web1", "in1", "in2"}},
	{"Host web1\n Include DIR/part1\nPort 98", []string{"web1", "in1", "in2"}},
	{"Host web1\n Include DIR/open\nHost *\nPort 98", []string{"web1", "web2"}},
	{"Include DIR/missing \"DIR/part1\" DIR/part2", []string{"in1", "in2"}},
	{"IgnoreUnknown Use*,x\nUseKeychain yes\nX 1\nPort 4", []string{"web1"}},
	{"LocalForward 8080 a:80\nControlMaster auto\nControlPath ~/.ssh/%C\nCompression yes\nForwardAgent yes\nPort 3", []string{"web1"}},
}

// told is what a Host says, in the words of ssh -G, as far as both say it.
func told(h *sshconf.Host) map[string]string {
	yes := func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}
	seconds := func(d int64, none string) string {
		if d == 0 {
			return none
		}
		return strconv.FormatInt(d, 10)
	}
	strict := map[sshconf.HostKeyPolicy]string{sshconf.Strict: "true", sshconf.Insecure: "false", sshconf.Ask: "ask", sshconf.AcceptNew: "accept-new"}
	all := map[string]string{
		"hostname": h.Name, "port": strconv.Itoa(h.Port), "user": h.User, "addressfamily": h.AddressFamily, "bindaddress": h.BindAddress,
		"identityfile": strings.Join(h.IdentityFiles, " "), "certificatefile": strings.Join(h.Certificates, " "),
		"identitiesonly": yes(h.IdentitiesOnly), "batchmode": yes(h.BatchMode), "numberofpasswordprompts": strconv.Itoa(h.PasswordPrompts),
		"stricthostkeychecking": strict[h.HostKeys], "hostkeyalias": h.HostKeyAlias, "hashknownhosts": yes(h.HashKnownHosts),
		"userknownhostsfile": strings.Join(h.KnownHosts, " "), "globalknownhostsfile": strings.Join(h.GlobalHosts, " "),
		"connecttimeout": seconds(int64(h.ConnectTimeout.Seconds()), "none"), "serveraliveinterval": seconds(int64(h.AliveInterval.Seconds()), "0"),
		"serveralivecountmax": strconv.Itoa(h.AliveCountMax), "sendenv": strings.Join(h.SendEnv, " "), "setenv": strings.Join(h.SetEnv, " "),
		"proxycommand": h.ProxyCommand,
	}
	return all
}

// want is what ssh -G says, with what it leaves to be replaced later replaced.
func want(t *testing.T, account sshconf.Account, file, name string) map[string]string {
	t.Helper()
	cmd := exec.Command(need.Program(t, "ssh"), "-G", "-T", "-F", file, name)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("ssh -G %s: %v: %s", name, err, out)
	}
	all := map[string]string{}
	lists := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		keyword, value, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		lists[strings.ToLower(keyword)] = append(lists[strings.ToLower(keyword)], value)
	}
	for keyword, values := range lists {
		all[keyword] = strings.Join(values, " ")
	}
	for _, keyword := range []string{"identityfile", "certificatefile", "proxycommand"} {
		var expanded []string
		for _, value := range lists[keyword] {
			if strings.HasPrefix(value, "~/") {
				value = account.Home + value[1:]
			}
			r := strings.NewReplacer("%h", all["hostname"], "%p", all["port"], "%r", all["user"], "%n", name[strings.LastIndexByte(name, '@')+1:], "%%", "%")
			if value = r.Replace(value); !strings.HasSuffix(value, "/id_xmss") && !strings.HasSuffix(value, "/id_dsa") {
				expanded = append(expanded, value)
			}
		}
		all[keyword] = strings.Join(expanded, " ")
	}
	if all["proxycommand"] == "none" {
		all["proxycommand"] = ""
	}
	return all
}

func TestAsOpenSSH(t *testing.T) {
	t.Parallel()
	account := here(t)
	for i, row := range asked {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "part1"), "Host in1\n Port 11\nHost in2 web1\n User two\n")
			write(t, filepath.Join(dir, "part2"), "Host in*\n Port 12\n")
			write(t, filepath.Join(dir, "open"), "User open\n")
			file := filepath.Join(dir, "config")
			write(t, file, strings.ReplaceAll(row.config, "DIR", dir))
			config, err := sshconf.Load(sshconf.Options{Account: account, File: file})
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range row.names {
				host, err := config.Host(name)
				if err != nil {
					t.Errorf("%s in %q: %v", name, row.config, err)
					continue
				}
				if len(host.Warnings) > 0 && !strings.Contains(row.config, "Ciphers") && !strings.Contains(row.config, "Match") {
					t.Errorf("%s in %q: %v", name, row.config, host.Warnings)
				}
				theirs := want(t, account, file, name)
				for keyword, got := range told(host) {
					if keyword == "serveraliveinterval" && host.BatchMode {
						continue // Debian's ssh has one of its own then
					}
					if theirs[keyword] != got {
						t.Errorf("%s in %q: %s is %q, and OpenSSH says %q", name, row.config, keyword, got, theirs[keyword])
					}
				}
				compareLists(t, host, theirs, row.config)
				if jumps := theirs["proxyjump"]; jumps != "none" && len(host.Jumps) != len(strings.FieldsFunc(jumps, func(r rune) bool { return r == ',' })) {
					t.Errorf("%s in %q: %d jump hosts, and OpenSSH says %s", name, row.config, len(host.Jumps), jumps)
				}
			}
		})
	}
}

// compareLists compares algorithms that both have, and in their order where the
// configuration gives one.
func compareLists(t *testing.T, h *sshconf.Host, theirs map[string]string, config string) {
	t.Helper()
	supported := xssh.SupportedAlgorithms()
	for keyword, lists := range map[string][2][]string{
		"ciphers": {h.Ciphers, supported.Ciphers}, "macs": {h.MACs, supported.MACs},
		"kexalgorithms": {h.KeyExchanges, supported.KeyExchanges}, "hostkeyalgorithms": {h.HostKeyAlgorithms, supported.HostKeys},
	} {
		if lists[0] == nil {
			continue
		}
		their := strings.Split(theirs[keyword], ",")
		ours := slices.DeleteFunc(slices.Clone(lists[0]), func(a string) bool { return !slices.Contains(their, a) })
		their = slices.DeleteFunc(their, func(a string) bool { return !slices.Contains(lists[1], a) })
		if strings.ContainsAny(config, "+-^") && strings.Contains(config, "Ciphers ") && strings.ContainsAny(config[:20], "^-") {
			if ours[0] != their[0] {
				t.Errorf("%s begins with %s, and OpenSSH's with %s", keyword, ours[0], their[0])
			}
			slices.Sort(ours)
			slices.Sort(their)
		}
		if !slices.Equal(ours, their) {
			t.Errorf("%s in %q: %v, and OpenSSH says %v", keyword, config, ours, their)
		}
	}
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
