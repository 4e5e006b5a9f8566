package sshconf

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
)

// Account is who connects: what OpenSSH takes from its user and its environment.
type Account struct {
	User     string // who runs this: %u, and whom to log in as where nothing else says so
	ID       string // the user's number: %i
	Home     string // ~ and %d
	Hostname string // of this machine: %l
	Agent    string // the socket of the ssh-agent, as in SSH_AUTH_SOCK; empty means none
	Shell    string // what runs a ProxyCommand; empty means /bin/sh

	// Getenv looks ${NAME} in a value up. Without it such a value is an error.
	Getenv func(name string) (string, bool)
}

// Here returns the account of the user who runs this process. The environment is
// read by what it is given, mostly [os.LookupEnv].
func Here(getenv func(name string) (string, bool)) (Account, error) {
	who, err := user.Current()
	if err != nil {
		return Account{}, fmt.Errorf("sshconf: who runs this: %w", err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		return Account{}, fmt.Errorf("sshconf: the name of this machine: %w", err)
	}
	agent, _ := getenv("SSH_AUTH_SOCK")
	return Account{User: who.Username, ID: who.Uid, Home: who.HomeDir, Hostname: hostname, Agent: agent, Getenv: getenv}, nil
}

// Options says what to read. The zero value, but for Account, is what ssh reads
// without options.
type Options struct {
	Account Account
	// File is what -F gives: it is read instead of the user's and the system's;
	// "none" means that no file is read. Empty means the user's, .ssh/config, and
	// then System.
	File string
	// System is the system's file. Empty means /etc/ssh/ssh_config.
	System string
	// Set are options as -o gives them, "Port=2222". They are for the host and
	// not for the jump hosts on the way, and come before what files say. The
	// options -l, -p, -i and -J are User, Port, IdentityFile and ProxyJump.
	Set []string
}

// Config is a configuration that was read. Its methods may be called by many
// goroutines.
type Config struct {
	account  Account
	set      []statement
	files    [][]statement
	warnings []Warning
}

// Load reads the files once, with all that they include. Lines are judged when a
// host is asked for; what is an error here is a file that cannot be read, or that
// others may write.
func Load(o Options) (*Config, error) {
	c := &Config{account: o.Account}
	for _, option := range o.Set {
		keyword, rest := keywordOf(option)
		if keyword == "" {
			return nil, fmt.Errorf("sshconf: the option %q is empty", option)
		}
		s := newStatement(Position{File: "-o " + option}, keyword, rest)
		switch {
		case s.err != nil:
			return nil, fmt.Errorf("sshconf: the option %q: %w", option, s.err)
		case !s.known:
			return nil, fmt.Errorf("sshconf: the option %q: there is no directive %q that goes here", option, keyword)
		}
		c.set = append(c.set, s)
	}
	user := reader{home: o.Account.Home, folder: filepath.Join(o.Account.Home, ".ssh")}
	if o.File != "" {
		if strings.EqualFold(o.File, "none") {
			return c, nil
		}
		return c, c.read(&user, o.File, false)
	}
	if o.Account.Home != "" {
		user.careful = true
		if err := c.read(&user, filepath.Join(o.Account.Home, ".ssh", "config"), true); err != nil {
			return nil, err
		}
	}
	if o.System == "" {
		o.System = "/etc/ssh/ssh_config"
	}
	system := reader{home: o.Account.Home, folder: filepath.Dir(o.System), system: true}
	return c, c.read(&system, o.System, true)
}

func (c *Config) read(r *reader, name string, mayMiss bool) error {
	statements, err := r.file(name, 0)
	if err != nil && !(mayMiss && errors.Is(err, os.ErrNotExist)) {
		return fmt.Errorf("sshconf: %w", err)
	}
	c.files = append(c.files, statements)
	c.warnings = append(c.warnings, r.warnings...)
	return nil
}

// Host says how to connect to a name, which may be user@name and
// ssh://user@name:port too. It reads nothing more.
func (c *Config) Host(name string) (*Host, error) {
	given, err := parseDestination(name)
	if err != nil {
		return nil, fmt.Errorf("sshconf: %w", err)
	}
	host, err := c.resolve(given, c.set)
	if err != nil {
		return nil, fmt.Errorf("sshconf: %s: %w", name, err)
	}
	return host, nil
}

// A destination is what is typed to say where to.
type destination struct {
	user, host string
	port       string // empty when it was not said
}

// parseDestination parses [user@]host and ssh://[user@]host[:port].
func parseDestination(text string) (d destination, err error) {
	rest, isURI := strings.CutPrefix(text, "ssh://")
	if isURI {
		rest = strings.TrimSuffix(rest, "/")
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		d.user, rest = rest[:at], rest[at+1:]
		if d.user == "" {
			return d, fmt.Errorf("%q has no user before its @", text)
		}
	}
	d.host = rest
	if inner, ok := strings.CutPrefix(rest, "["); ok && strings.HasSuffix(inner, "]") {
		d.host = strings.TrimSuffix(inner, "]")
	}
	if isURI {
		if d.host, d.port, err = splitPort(rest); err != nil {
			return d, err
		}
	}
	if err := checkHost(d.host); err != nil {
		return d, err
	}
	return d, checkUser(d.user)
}

// splitPort parses host, host:port, [address] and [address]:port.
func splitPort(text string) (host, port string, err error) {
	if inner, ok := strings.CutPrefix(text, "["); ok {
		host, rest, ok := strings.Cut(inner, "]")
		port, hasPort := strings.CutPrefix(rest, ":")
		if !ok || rest != "" && !hasPort || hasPort && port == "" {
			return "", "", fmt.Errorf("%q is neither [address] nor [address]:port", text)
		}
		return host, port, nil
	}
	host, port, found := strings.Cut(text, ":")
	if found && (port == "" || strings.Contains(port, ":")) {
		return "", "", fmt.Errorf("%q is neither host nor host:port; an IPv6 address goes in [ ]", text)
	}
	return host, port, nil
}

// checkHost refuses names that a shell might take for more than a name, as
// valid_hostname in OpenSSH's ssh.c does since 9.6.
func checkHost(name string) error {
	if name == "" {
		return errors.New("the host name is empty")
	}
	if name[0] == '-' {
		return fmt.Errorf("the host name %q begins with a dash", name)
	}
	if at := strings.IndexFunc(name, special("'`\"$\\;&<>|(){},")); at >= 0 {
		return fmt.Errorf("the host name %q has the character %q, which a shell could act on", name, name[at])
	}
	return nil
}

// checkUser does the same for the user, as valid_ruser does: a backslash may be
// in it (DOMAIN\user), though not at the end.
func checkUser(name string) error {
	if name == "" {
		return nil
	}
	blanks := strings.NewReplacer(" ", "", "\t", "") // they are for expandForShell to refuse
	at := strings.IndexFunc(blanks.Replace(name), special("'`\";&<>|(){}$"))
	if at < 0 && name[0] != '-' && !strings.Contains(name, " -") && !strings.Contains(name, "\t-") && !strings.HasSuffix(name, `\`) {
		return nil
	}
	return fmt.Errorf("the user name %q has characters which a shell could act on, or begins with a dash", name)
}

// special is true for the characters given, blanks and control characters.
func special(characters string) func(rune) bool {
	return func(r rune) bool {
		return r <= ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || strings.ContainsRune(characters, r)
	}
}
