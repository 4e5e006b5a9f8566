package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// What is wrong with a host, a key or a configuration is one clear line, fails
// only whom it concerns, and nothing is run that was not asked for.
func TestSSHTrust(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	host, me := string(d.read(t, "host.pub")), string(d.read(t, "me"))
	config := string(d.read(t, "ssh_config"))
	d.write(t, "changed", "fleet "+string(d.read(t, "me.pub")))
	d.write(t, "revoked", "@revoked * "+host)
	d.write(t, "empty", "")
	d.write(t, "locked", me)
	if out, err := exec.Command("ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", d.file("locked")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pwned := d.file("pwned")
	d.write(t, "ssh_config", "Frobnicate yes\nHost evil\n HostName \"a;touch "+pwned+"\"\nHost at3\n Port nonsense\nHost locked\n Hostname 127.0.0.1\n IdentityFile "+d.file("locked")+"\n"+
		strings.Replace(config, "Host web*", "Host web* locked", 1))
	for _, c := range []struct {
		args []string
		want string // all that is said, but for the count
		code int
	}{
		{[]string{"web1", "-o", "UserKnownHostsFile=" + d.file("changed")}, "the host key was not accepted: fleet: the host key has changed: ", exitBlind},
		{[]string{"web1", "-o", "UserKnownHostsFile=" + d.file("revoked")}, "the host key was not accepted: fleet: the host key is revoked: ", exitBlind},
		{[]string{"web1", "-o", "UserKnownHostsFile=" + d.file("empty")}, "the host key was not accepted: fleet: the host is not known: ", exitBlind},
		{[]string{"web1", "-o", "UserKnownHostsFile=" + d.file("empty"), "-o", "StrictHostKeyChecking=accept-new"}, "", 0},
		{[]string{"web1", "-o", "UserKnownHostsFile=" + d.file("empty")}, "", 0}, // it is known now
		{[]string{"locked", "-o", "IdentitiesOnly=yes"}, "locked is encrypted, and nobody can be asked for its passphrase: ssh-add it to an agent", exitBlind},
		{[]string{"at3,web1"}, "at3: unreachable while connecting: sshconf: at3: " + d.file("ssh_config") + ":5: port: \"nonsense\" is no port", exitBlind},
		{[]string{"evil"}, "which a shell could act on", exitBlind},
	} {
		if c.args[0] == "locked" {
			c.args = append(c.args, "-o", "IdentityFile="+d.file("locked"), "-F", d.only(t, "locked"))
		}
		_, errs, code := d.ssh(t, append(c.args, "--", "true")...)
		var said []string
		for line := range strings.Lines(errs) {
			if !strings.HasPrefix(line, "lifeline ssh: "+d.dir) { // warnings of the two bad lines
				said = append(said, line)
			}
		}
		if code != c.code || !strings.Contains(said[0], c.want) || len(said) != min(len(c.want), 1)+1 {
			t.Errorf("%v: code %d: %s", c.args, code, errs)
		}
	}
	_, errs, _ := d.ssh(t, "web1", "--", "true")
	if strings.Count(errs, `:1: unknown directive "frobnicate"`) != 1 {
		t.Errorf("%q", errs)
	}
	if _, err := os.Stat(pwned); err == nil {
		t.Error("a host name was run")
	}
}

// only writes a configuration in which no other key is named.
func (d *sshd) only(t *testing.T, key string) string {
	t.Helper()
	text := strings.ReplaceAll(string(d.read(t, "ssh_config")), " IdentityFile "+d.file("me")+"\n", "")
	d.write(t, "only", strings.TrimPrefix(text, "Frobnicate yes\n"))
	return d.file("only")
}

// The options that OpenSSH has mean what they mean there, and a host takes of
// SendEnv and SetEnv what it wants.
func TestSSHOptions(t *testing.T) {
	d := startSSHD(t)
	t.Setenv("LIFELINE_SENT", "sent")
	t.Setenv("SECRET", "kept")
	config := string(d.read(t, "ssh_config"))
	port := strings.Fields(config)[3]
	d.write(t, "mine", "HostKeyAlias fleet\nIdentityAgent none\nUserKnownHostsFile "+d.file("known_hosts")+"\nGlobalKnownHostsFile none\n")
	stdout, errs, code := lifeline(t, "ssh", "127.0.0.1", "-F", d.file("mine"), "-p", port, "-i", d.file("me"), "-l", "root",
		"-o", "SendEnv=LIFELINE_* SECRET", "-o", "SetEnv=LIFELINE_SET=set OTHER=1", "--", "echo $USER $LIFELINE_SENT $LIFELINE_SET $SECRET $OTHER.")
	if stdout != "127.0.0.1: root sent set .\n" || code != 0 {
		t.Errorf("%q, %q, %d", stdout, errs, code)
	}
	stdout, _, code = d.ssh(t, "--json", "web1", "--", "true")
	var r struct{ Hosts []map[string]any }
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 0 {
		t.Fatalf("%v, %d", err, code)
	}
	for _, key := range []string{"host", "outcome", "exit", "phase", "reason", "started", "ms", "stdout", "stderr", "truncated"} {
		if _, there := r.Hosts[0][key]; !there {
			t.Errorf("no %s in %v", key, r.Hosts[0])
		}
	}
}
