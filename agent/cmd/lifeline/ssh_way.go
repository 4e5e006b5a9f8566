package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/lifeline-go/lifeline/agent/fleet"
	"github.com/lifeline-go/lifeline/ssh"
	"github.com/lifeline-go/lifeline/ssh/sshconf"
)

// wayFlags say how to connect, by OpenSSH's names.
type wayFlags struct {
	config, user, jump string
	identities         []string
	options            []string
	port               int
	silence            time.Duration
}

func (f *wayFlags) add(flags *pflag.FlagSet) {
	flags.StringVarP(&f.config, "config", "F", "", "the ssh_config `file` instead of yours and the system's; none reads no file")
	flags.StringArrayVarP(&f.identities, "identity", "i", nil, "a private key `file` to log in with")
	flags.StringVarP(&f.user, "login", "l", "", "the `user` to log in as")
	flags.IntVarP(&f.port, "port", "p", 0, "the `port` to connect to")
	flags.StringVarP(&f.jump, "jump", "J", "", "go by way of these `hosts`, as ssh does")
	flags.StringArrayVarP(&f.options, "option", "o", nil, "an `option` of ssh_config, such as StrictHostKeyChecking=accept-new")
	flags.DurationVar(&f.silence, "silence", 0, "how `long` a host may answer nothing before it is given up (default 20s, or what ServerAliveInterval says)")
}

// settings are the flags as options of ssh_config.
func (f *wayFlags) settings() (set []string, err error) {
	add := func(name, value string) {
		if value != "" {
			set = append(set, name+"="+value)
		}
	}
	if f.port < 0 || f.port > 65535 {
		return nil, fmt.Errorf("-p %d is no port: take one from 1 to 65535", f.port)
	}
	add("User", f.user)
	if f.port != 0 {
		add("Port", fmt.Sprint(f.port))
	}
	for _, file := range f.identities {
		add("IdentityFile", file)
	}
	add("ProxyJump", f.jump)
	return append(set, f.options...), nil
}

// connector is how to connect to a host by its name, as ssh would. Nobody is asked
// anything: there are too many hosts for that.
type connector struct {
	config *sshconf.Config
	login  sshconf.Login
	jumps  *jumps
	warn   func(string)
}

// connector returns what connects; limit is what a jump host may take for it,
// and each part of connecting where it was asked for.
func (f *wayFlags) connector(limit time.Duration, asked bool, warn func(string)) (*connector, error) {
	if f.silence < 0 {
		return nil, errors.New("--silence must be longer than nothing: take 20s")
	}
	set, err := f.settings()
	if err != nil {
		return nil, err
	}
	account, err := sshconf.Here(os.LookupEnv)
	if err != nil {
		return nil, err
	}
	config, err := sshconf.Load(sshconf.Options{Account: account, File: f.config, Set: set})
	if err != nil {
		return nil, err
	}
	login := sshconf.Login{Base: ssh.Config{Liveness: ssh.Liveness{Silence: f.silence}}}
	if asked {
		login.Base.Budgets = ssh.Budgets{Connect: limit, Handshake: limit, Authentication: limit}
	}
	way := login // given up before what lies behind it is, so that it is named
	way.Base.Liveness.Silence = f.silence * 2 / 3
	jumps := newJumps(limit, way)
	login.Way = jumps.to
	return &connector{config: config, login: login, jumps: jumps, warn: warn}, nil
}

func (c *connector) close() { c.jumps.close() }

// dial is fleet.Plan's Dial.
func (c *connector) dial(ctx context.Context, name string) (*fleet.Conn, error) {
	host, err := c.config.Host(destination(name))
	if err != nil {
		return nil, err
	}
	for _, w := range host.Warnings {
		c.warn(w.String())
	}
	client, err := host.Connect(ctx, c.login)
	if err == nil {
		return &fleet.Conn{Client: client, Env: host.Env(os.Environ())}, nil
	}
	var failed, before *sshconf.Error
	if errors.As(err, &failed) && failed.Hop != failed.Host {
		if errors.As(failed.Err, &before) { // on the way to the last jump host
			failed = before
		}
		return nil, &fleet.WayError{Way: failed.Hop, Err: failed.Err}
	}
	return nil, err
}

// destination writes a name with a port as ssh takes it.
func destination(name string) string {
	user, host := "", name
	if at := strings.LastIndexByte(name, '@'); at >= 0 {
		user, host = name[:at+1], name[at+1:]
	}
	if _, _, err := net.SplitHostPort(host); err == nil {
		return "ssh://" + name
	}
	if inner, ok := strings.CutPrefix(host, "["); ok { // an address without a port
		return user + strings.TrimSuffix(inner, "]")
	}
	return name
}
