package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"slices"
	"sync"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"github.com/lifeline-go/lifeline/ssh"
)

// What commands on one connection aim at, as ratios of the rate.
const (
	rawAim    = 0.97 // of golang.org/x/crypto/ssh alone
	masterAim = 2    // of ssh with ControlMaster, a process for each command
)

// inTurn is how many commands one contender runs before it is another's turn: what
// a server has still to do for the last one is then mostly paid by the same.
const inTurn = 10

// oneConnection measures commands on one connection: one after the other, and
// more at a time than the server takes.
func oneConnection(ctx context.Context, s *servers, n int) error {
	addr := s.addrs[0]
	client, err := s.dial(ctx, addr, xssh.Config{})
	if err != nil {
		return err
	}
	defer client.Close()
	raw, err := s.dialRaw(ctx, addr)
	if err != nil {
		return err
	}
	defer raw.Close()
	master, socket, err := s.master(ctx, addr)
	if err != nil {
		return err
	}
	defer master()
	ways := []way{
		{"package ssh", func() error { return client.Command("true").Run(ctx) }},
		{"golang.org/x/crypto/ssh", func() error {
			session, err := raw.NewSession()
			if err != nil {
				return err
			}
			defer session.Close()
			return session.Run("true")
		}},
		{"ssh with ControlMaster", func() error {
			return exec.CommandContext(ctx, "ssh", "-F", s.file("config"), "-S", socket, addr, "true").Run()
		}},
	}
	each, err := inTurns(ctx, ways, n)
	if err != nil {
		return err
	}
	t := newTable("ssh: %d times true on one connection, one after the other", n)
	t.took(ways[0].name, each[0], 0)
	for i, aim := range []float64{rawAim, masterAim} {
		rate := ratio(each[i+1], each[0])
		t.took(ways[i+1].name, each[i+1], 0)
		t.row("  rate of package ssh beside it", fmt.Sprintf("%.3f", rate), fmt.Sprintf("≥ %v", aim), rate/aim)
	}
	if err := t.print(); err != nil {
		return err
	}
	return s.parallel(ctx, addr)
}

// way is one way to run a command.
type way struct {
	name string
	run  func() error
}

// inTurns returns what a command takes each way: the median of turns, which
// follow each other in an order of chance.
func inTurns(ctx context.Context, ways []way, n int) ([]time.Duration, error) {
	turns := max(1, n/inTurn)
	took := make([][]time.Duration, len(ways))
	for range turns {
		for _, i := range rand.Perm(len(ways)) {
			began := time.Now()
			for range inTurn {
				if err := ways[i].run(); err != nil {
					return nil, fmt.Errorf("%s: %w", ways[i].name, err)
				}
			}
			took[i] = append(took[i], time.Since(began)/inTurn)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	median := make([]time.Duration, len(ways))
	for i := range took {
		slices.Sort(took[i])
		median[i] = took[i][turns/2]
	}
	return median, nil
}

// parallel runs 64 commands at a time at a server that takes 10, and counts the
// refusals that reach the caller.
func (s *servers) parallel(ctx context.Context, addr string) error {
	const many, times = 64, 5
	t := newTable("ssh: %d commands at a time on one connection, %d times, at sshd's MaxSessions of 10", many, times)
	for _, sessions := range []int{0, many} {
		pool := &ssh.Pool{Sessions: sessions, Connect: func(ctx context.Context, host string) (*ssh.Client, error) { return s.dial(ctx, host, xssh.Config{}) }}
		refused, took := crowd(many, times, func() error {
			_, err := pool.Run(ctx, addr, "true")
			return err
		})
		if err := pool.Close(); err != nil {
			return err
		}
		name := "package ssh, Pool"
		if sessions > 0 {
			name = fmt.Sprintf("package ssh, Pool of %d sessions, which finds out", sessions)
		}
		t.row(name+": failed", fmt.Sprintf("%d of %d, %s", refused, many*times, short(took)), "0", 0)
	}
	raw, err := s.dialRaw(ctx, addr)
	if err != nil {
		return err
	}
	defer raw.Close()
	refused, took := crowd(many, times, func() error {
		session, err := raw.NewSession()
		if err != nil {
			return err
		}
		defer session.Close()
		return session.Run("true")
	})
	t.row("golang.org/x/crypto/ssh: failed", fmt.Sprintf("%d of %d, %s", refused, many*times, short(took)), "-", 0)
	return errors.Join(context.Cause(ctx), t.print())
}

// crowd calls run by many goroutines, some times each, and counts what failed.
func crowd(many, times int, run func() error) (failed int, took time.Duration) {
	began := time.Now()
	var wg sync.WaitGroup
	failures := make(chan error, many*times)
	for range many {
		wg.Go(func() {
			for range times {
				if err := run(); err != nil {
					failures <- err
				}
			}
		})
	}
	wg.Wait()
	return len(failures), time.Since(began)
}

func (s *servers) dial(ctx context.Context, addr string, protocol xssh.Config) (client *ssh.Client, err error) {
	config := ssh.Config{User: "root", Keys: []xssh.Signer{s.user}, HostKey: xssh.FixedHostKey(s.hostKey), Protocol: protocol}
	err = s.near.Do(func() error { // it is this thread that makes the socket
		client, err = ssh.Dial(ctx, addr, config)
		return err
	})
	return client, err
}

// dialRaw connects without Lifeline. Its calls end with the context, as they would
// not by themselves.
func (s *servers) dialRaw(ctx context.Context, addr string) (client *xssh.Client, err error) {
	err = s.near.Do(func() error {
		conn, err := net.DialTimeout("tcp", addr+":22", connectTimeout*time.Second)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { _ = conn.Close() })
		config := &xssh.ClientConfig{User: "root", Auth: []xssh.AuthMethod{xssh.PublicKeys(s.user)}, HostKeyCallback: xssh.FixedHostKey(s.hostKey)}
		c, channels, requests, err := xssh.NewClientConn(conn, addr, config)
		if err != nil {
			return errors.Join(err, conn.Close())
		}
		client = xssh.NewClient(c, channels, requests)
		return nil
	})
	return client, err
}

// master starts an ssh that others share, by a socket, and returns how to stop
// it.
func (s *servers) master(ctx context.Context, addr string) (stop func(), socket string, err error) {
	socket = s.file("master")
	cmd := s.near.Command("ssh", "-F", s.file("config"), "-M", "-N", "-S", socket, addr)
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	stop = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	for deadline := time.Now().Add(20 * time.Second); ; {
		if err = exec.CommandContext(ctx, "ssh", "-F", s.file("config"), "-S", socket, "-O", "check", addr).Run(); err == nil {
			return stop, socket, nil
		}
		if err = pause(ctx, 50*time.Millisecond); err == nil && time.Now().After(deadline) {
			err = errors.New("ssh -M does not come up within 20 s")
		}
		if err != nil {
			stop()
			return nil, "", err
		}
	}
}
