package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/lifeline-go/lifeline/agent/lab"
)

// sshOptions is what is measured of SSH. Zero leaves a part out.
type sshOptions struct {
	lifeline string // the command
	commands int    // one after the other on one connection, by each contender
	hosts    int
	frozen   int // of the hosts
	window   int // hosts at a time
	rounds   int // over all hosts
	kex      string
	mib      int64  // to copy
	cipher   string // to copy by
}

// measureSSH measures commands on one connection and on many hosts, all with an
// sshd of its own in a network namespace.
func measureSSH(ctx context.Context, args []string) error {
	o := sshOptions{}
	flags := flag.NewFlagSet("ssh", flag.ContinueOnError)
	flags.StringVar(&o.lifeline, "lifeline", "bin/lifeline", "the command to measure")
	flags.IntVar(&o.commands, "commands", 1000, "commands on one connection; 0 leaves them out")
	flags.IntVar(&o.hosts, "hosts", 200, "hosts, each with an sshd of its own")
	flags.IntVar(&o.frozen, "frozen", 20, "how many of the hosts freeze, first before they are dialed, then in the middle of the command; 0 leaves it out")
	flags.IntVar(&o.window, "window", 64, "hosts at a time, for every program")
	flags.IntVar(&o.rounds, "rounds", 3, "times that each program goes over all hosts; 0 leaves out the hosts")
	flags.StringVar(&o.kex, "kex", "curve25519-sha256", "the key exchange of the servers, so that programs are compared and not what they prefer; empty leaves the choice to them: OpenSSH 9.2 takes one that costs it more than all the rest")
	flags.Int64Var(&o.mib, "copy", 1024, "MiB to copy by SFTP; 0 leaves it out")
	flags.StringVar(&o.cipher, "cipher", "aes128-gcm@openssh.com", "what encrypts the copies, of both programs")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lifeline-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return lab.Run(func(l *lab.Lab) error {
		s, err := startServers(ctx, l, dir, o)
		defer s.stop()
		if err != nil {
			return err
		}
		if o.commands > 0 {
			if err := oneConnection(ctx, s, o.commands); err != nil {
				return err
			}
		}
		if o.mib > 0 {
			if err := copies(ctx, s, o.mib, o.cipher); err != nil {
				return err
			}
		}
		if o.rounds > 0 {
			return manyHosts(ctx, s, o)
		}
		return nil
	})
}

// check completes the options, or says what is wrong with them.
func (o *sshOptions) check() (err error) {
	switch {
	case o.hosts < 1 || o.hosts > 250:
		return errors.New("-hosts: take 1 to 250")
	case o.frozen < 0 || o.frozen >= o.hosts:
		return errors.New("-frozen: take fewer than -hosts")
	case o.window < 1 || o.rounds < 0 || o.commands < 0 || o.mib < 0:
		return errors.New("-window must be more than 0, and -rounds, -commands and -copy no less")
	}
	if o.lifeline, err = filepath.Abs(o.lifeline); err != nil {
		return err
	}
	if o.rounds > 0 {
		if _, err := exec.LookPath(o.lifeline); err != nil {
			return fmt.Errorf("-lifeline: %w", err)
		}
	}
	return lab.Missing("ssh", "ssh-keygen")
}
