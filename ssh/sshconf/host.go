package sshconf

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/internal/knownhosts"
)

// HostKeyPolicy is what becomes of a host key that is not known, as
// StrictHostKeyChecking says.
type HostKeyPolicy string

// The policies. A revoked key is refused by each of them.
const (
	Ask       HostKeyPolicy = "ask"        // [Login].AcceptHostKey decides, and where there is none it is refused
	Strict    HostKeyPolicy = "yes"        // it is refused
	AcceptNew HostKeyPolicy = "accept-new" // that of a new host is accepted when it could be written; a changed one is refused
	Insecure  HostKeyPolicy = "no"         // accepted, a changed one too; but then no password is sent
)

// Host is how to connect to one name. Its fields may be changed before
// [Host.Connect].
type Host struct {
	Alias string // the name that was asked for
	Name  string // HostName: where to connect to
	Port  int
	User  string

	Jumps        []*Host // ProxyJump: the first is the first to be connected to
	ProxyCommand string  // as it will be run, its tokens replaced; empty is none

	AddressFamily string // any, inet or inet6
	BindAddress   string

	IdentityFiles  []string
	Certificates   []string
	IdentitiesOnly bool
	Agent          string // the socket; empty is none
	// Methods are how to authenticate, the preferred first: publickey,
	// keyboard-interactive, password.
	Methods         []string
	PasswordPrompts int  // how often a password is asked for
	BatchMode       bool // nobody is asked anything

	HostKeys        HostKeyPolicy
	HostKeyAlias    string // by which the host is known; empty means Name
	KnownHosts      []string
	GlobalHosts     []string // of known hosts too, but never written
	RevokedHostKeys string   // a file of keys, one a line
	HashKnownHosts  bool

	// HostKeyAlgorithms, Ciphers, MACs and KeyExchanges are those of the
	// configuration that x/crypto/ssh has; nil means its own choice.
	HostKeyAlgorithms, Ciphers, MACs, KeyExchanges []string

	ConnectTimeout time.Duration // zero is as recommended
	AliveInterval  time.Duration // ServerAliveInterval; zero is as recommended
	AliveCountMax  int

	SendEnv []string // patterns of names
	SetEnv  []string // NAME=value

	// Warnings are what in the configuration is not followed: for all hosts, and
	// for this.
	Warnings []Warning

	knownFirst bool // the order of HostKeyAlgorithms may be changed for what is known
	shell      string
}

// Address returns Name and Port.
func (h *Host) Address() string { return net.JoinHostPort(h.Name, strconv.Itoa(h.Port)) }

// Env returns what to set in the environment of a command: SetEnv, and those
// variables of environ whose names SendEnv has. Servers refuse what their
// AcceptEnv does not have.
func (h *Host) Env(environ []string) (env []string) {
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		if slices.ContainsFunc(h.SendEnv, func(pattern string) bool { return knownhosts.Matches(pattern, name) }) {
			env = append(env, variable)
		}
	}
	return append(env, h.SetEnv...)
}

// deepestJump is how many jump hosts may have jump hosts of their own.
const deepestJump = 8

var errLoop = errors.New("jump hosts need jump hosts without an end; perhaps a jump host is its own: set ProxyJump none for it")

// resolve says how to connect to a destination, whose options come before what
// files say.
func (c *Config) resolve(d destination, set []statement) (*Host, error) {
	return c.resolveVia(d, set, nil, 0)
}

// resolveVia does so; via replaces the jump hosts that the configuration has.
func (c *Config) resolveVia(d destination, set []statement, via []*Host, depth int) (*Host, error) {
	if depth > deepestJump {
		return nil, errLoop
	}
	r := c.evaluate(d, set)
	if r.err != nil {
		return nil, r.err
	}
	h := &Host{Alias: d.host, Jumps: via, shell: c.account.Shell, Warnings: append(slices.Clone(c.warnings), r.warnings...)}
	s := settings{host: h, config: c, values: r.values}
	if err := s.identify(); err != nil {
		return nil, err
	}
	s.plain()
	for _, f := range []func() error{s.files, s.proxy, s.algorithms, s.environment} {
		if err := f(); err != nil {
			return nil, err
		}
	}
	if jump := r.values.one("proxyjump"); via == nil && jump != "" && !strings.EqualFold(jump, "none") {
		jumps, err := c.jumps(s.tokens, jump, depth)
		if errors.Is(err, errLoop) {
			return nil, fmt.Errorf("ProxyJump %s: %w", jump, errLoop)
		}
		if err != nil {
			return nil, fmt.Errorf("ProxyJump %s: %w", jump, err)
		}
		h.Jumps = jumps
	}
	return h, nil
}

// jumps resolves the hosts of a ProxyJump, of which only the first may have jump
// hosts of its own, as ssh runs itself with -J for the others.
func (c *Config) jumps(tokens tokens, text string, depth int) (hosts []*Host, err error) {
	text, err = tokens.expand(text, "hnpr")
	if err != nil {
		return nil, err
	}
	for i, part := range strings.Split(text, ",") {
		part = strings.TrimSpace(part)
		d := destination{}
		rest, isURI := strings.CutPrefix(part, "ssh://")
		if isURI {
			rest = strings.TrimSuffix(rest, "/")
		}
		if at := strings.LastIndexByte(rest, '@'); at >= 0 {
			d.user, rest = rest[:at], rest[at+1:]
		}
		if d.host, d.port, err = splitPort(rest); err != nil {
			return nil, err
		}
		if err := errors.Join(checkHost(d.host), checkUser(d.user)); err != nil {
			return nil, err
		}
		var via []*Host
		if i > 0 {
			via = slices.Clone(hosts)
		}
		h, err := c.resolveVia(d, nil, via, depth+1)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part, err)
		}
		if i == 0 {
			hosts = append(hosts, h.Jumps...)
		}
		h.Jumps = nil // they are in the list
		hosts = append(hosts, h)
	}
	return hosts, nil
}

// settings makes a Host of what was read.
type settings struct {
	host   *Host
	config *Config
	values values
	tokens tokens
}

// identify finds out who is meant: the host, its port and user.
func (s *settings) identify() error {
	h, v := s.host, s.values
	h.Name, h.Port, h.User = strings.ToLower(h.Alias), 22, s.config.account.User
	if name := v.one("hostname"); name != "" {
		expanded, err := tokens{host: h.Alias}.expand(name, "h")
		if err != nil {
			return fmt.Errorf("HostName %s: %w", name, err)
		}
		h.Name = strings.ToLower(expanded)
		if err := checkHost(h.Name); err != nil {
			return err
		}
	}
	if port := v.one("port"); port != "" {
		h.Port, _ = strconv.Atoi(port) // checked when it was read
	}
	if user := v.one("user"); user != "" {
		h.User = user
	}
	if h.User == "" {
		return errors.New("nothing says whom to log in as: set User")
	}
	h.HostKeyAlias = v.one("hostkeyalias")
	s.tokens = newTokens(s.config.account, h)
	return nil
}

// plain takes what needs no more than its word.
func (s *settings) plain() {
	h, v := s.host, s.values
	orElse := func(keyword, otherwise string) string {
		if value := v.one(keyword); value != "" {
			return value
		}
		return otherwise
	}
	h.AddressFamily = strings.ToLower(orElse("addressfamily", "any"))
	h.BindAddress = v.one("bindaddress")
	h.BatchMode = isYes(v.one("batchmode"))
	h.IdentitiesOnly = isYes(v.one("identitiesonly"))
	h.HashKnownHosts = isYes(v.one("hashknownhosts"))
	h.PasswordPrompts, _ = strconv.Atoi(orElse("numberofpasswordprompts", "3"))
	h.ConnectTimeout, _ = parseTime(orElse("connecttimeout", "none"))
	h.AliveInterval, _ = parseTime(orElse("serveraliveinterval", "none"))
	h.AliveCountMax, _ = strconv.Atoi(orElse("serveralivecountmax", "3"))
	switch strings.ToLower(orElse("stricthostkeychecking", "ask")) {
	case "yes", "true":
		h.HostKeys = Strict
	case "accept-new":
		h.HostKeys = AcceptNew
	case "no", "off", "false":
		h.HostKeys = Insecure
	default:
		h.HostKeys = Ask
	}
	allowed := map[string]bool{
		"publickey":            !strings.EqualFold(v.one("pubkeyauthentication"), "no") && !strings.EqualFold(v.one("pubkeyauthentication"), "false"),
		"keyboard-interactive": isYes(orElse("kbdinteractiveauthentication", "yes")),
		"password":             isYes(orElse("passwordauthentication", "yes")),
	}
	for _, method := range strings.Split(orElse("preferredauthentications", "publickey,keyboard-interactive,password"), ",") {
		if allowed[method] && !slices.Contains(h.Methods, method) {
			h.Methods = append(h.Methods, method)
		}
	}
}

// defaultKeys are the files that are tried where none is set.
var defaultKeys = []string{"id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"}

// files takes names of files, with their tokens.
func (s *settings) files() error {
	h, v, home := s.host, s.values, s.config.account.Home
	below := func(names ...string) (paths []string) {
		for _, name := range names {
			paths = append(paths, filepath.Join(home, ".ssh", name))
		}
		return paths
	}
	var err error
	take := func(into *[]string, keyword string, otherwise []string) {
		names, set := v[keyword]
		if !set {
			*into = otherwise
			return
		}
		for _, name := range names {
			if strings.EqualFold(name, "none") || err != nil {
				continue
			}
			path, failed := s.tokens.path(name)
			if failed != nil {
				err = fmt.Errorf("%s %s: %w", keyword, name, failed)
			}
			*into = append(*into, path)
		}
	}
	take(&h.IdentityFiles, "identityfile", below(defaultKeys...))
	take(&h.Certificates, "certificatefile", nil)
	take(&h.KnownHosts, "userknownhostsfile", below("known_hosts", "known_hosts2"))
	take(&h.GlobalHosts, "globalknownhostsfile", []string{"/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"})
	if revoked := v.one("revokedhostkeys"); err == nil && revoked != "" && !strings.EqualFold(revoked, "none") {
		h.RevokedHostKeys, err = s.tokens.path(revoked)
	}
	if err != nil {
		return err
	}
	h.Agent = s.config.account.Agent
	switch agent := v.one("identityagent"); {
	case agent == "" || agent == "SSH_AUTH_SOCK":
	case strings.EqualFold(agent, "none"):
		h.Agent = ""
	case agent[0] == '$' && !strings.HasPrefix(agent, "${"):
		h.Agent, err = s.tokens.variable(agent[1:])
	default:
		h.Agent, err = s.tokens.path(agent)
	}
	return err
}

// proxy takes ProxyCommand.
func (s *settings) proxy() (err error) {
	command := s.values.one("proxycommand")
	if command == "" || strings.EqualFold(command, "none") {
		return nil
	}
	s.host.ProxyCommand, err = s.tokens.expandForShell(command)
	if err != nil {
		return fmt.Errorf("ProxyCommand: %w", err)
	}
	return nil
}

// environment takes SendEnv and SetEnv.
func (s *settings) environment() error {
	s.host.SendEnv = s.values["sendenv"]
	for _, variable := range s.values["setenv"] {
		if name, _, ok := strings.Cut(variable, "="); !ok || name == "" {
			return fmt.Errorf("SetEnv %q is not NAME=value", variable)
		}
		s.host.SetEnv = append(s.host.SetEnv, variable)
	}
	return nil
}
