package sshconf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/ssh"
)

// Error says which host on the way could not be connected to.
type Error struct {
	Host string // that was asked for
	Hop  string // that failed: Host itself, or a jump host
	Err  error  // mostly an [*ssh.Error]; it names the hop
}

func (e *Error) Error() string {
	if e.Hop != e.Host {
		return fmt.Sprintf("%s: its jump host: %v", e.Host, e.Err)
	}
	return e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

const (
	silence     = 20 * time.Second // what [ssh.Liveness] recommends
	answerDelay = 2 * time.Second  // what an answer to a keepalive may take before a hop is suspected
)

// Connect connects by way of the jump hosts or the ProxyCommand, checks the host
// keys and logs in. It returns within the context, and for each host within its
// budgets; the error, an [*Error], names the host that failed.
//
// The client owns what it goes by, but for [Login].Way: with it, the connections
// to the jump hosts and the ProxyCommand end, and when one of them ends, so does
// the client. A jump
// host is given up a little sooner than what lies behind it, so that a frozen
// one is named and not the host behind: of the n hosts on a way, the k-th has
// (n-1+k)/(2n-1) of Liveness.Silence.
func (h *Host) Connect(ctx context.Context, login Login) (*ssh.Client, error) {
	chain := append(slices.Clone(h.Jumps), h)
	var made []hop
	if login.Way != nil && len(h.Jumps) > 0 {
		last := h.Jumps[len(h.Jumps)-1]
		client, err := login.Way(ctx, h.Jumps)
		if err != nil {
			return nil, &Error{Host: h.Alias, Hop: last.Alias, Err: err}
		}
		made = append(made, hop{host: last, client: client, interval: client.Bound().Silence / 4, shared: true})
	}
	return h.follow(ctx, login, chain, made)
}

// A hop is a host on the way that is connected to.
type hop struct {
	host     *Host
	client   *ssh.Client
	interval time.Duration // within which it is asked whether it lives
	shared   bool          // by the caller, who keeps it
}

// follow connects to what is left of a chain.
func (h *Host) follow(ctx context.Context, login Login, chain []*Host, made []hop) (*ssh.Client, error) {
	first := 0
	if len(made) > 0 {
		first = len(chain) - 1
	}
	for i := first; i < len(chain); i++ {
		next := chain[i]
		config := next.config(login)
		config.Liveness = share(config.Liveness, i+1, len(chain))
		var before *hop
		if len(made) > 0 {
			before = &made[len(made)-1]
		}
		client, err := next.dial(ctx, login, config, before)
		if err != nil {
			failed := &Error{Host: h.Alias, Hop: next.Alias, Err: err}
			for _, outer := range made {
				if suspicion := outer.suspect(err); suspicion != nil {
					failed.Hop, failed.Err = outer.host.Alias, suspicion
					break
				}
			}
			if before != nil && !before.shared {
				_ = before.client.Close() // which owns those before it
			}
			return nil, failed
		}
		made = append(made, hop{host: next, client: client, interval: config.Liveness.Interval})
	}
	return made[len(made)-1].client, nil
}

// share returns the liveness of the k-th of n hosts on a way.
func share(l ssh.Liveness, k, n int) ssh.Liveness {
	part := func(d time.Duration) time.Duration {
		return time.Duration(float64(d) * float64(n-1+k) / float64(2*n-1))
	}
	all := min(cmp.Or(max(l.Silence, 0), silence), lifeline.Never/4)
	return ssh.Liveness{Silence: part(all), Interval: part(cmp.Or(max(l.Interval, 0), all/4))}
}

// suspect returns why it was rather this jump host that failed, when what goes by
// it did: it has ended, or it has left unanswered whether it lives.
func (o hop) suspect(err error) error {
	if gone := o.client.Err(); gone != nil && !errors.Is(gone, ssh.ErrClosed) {
		return gone
	}
	var timeout net.Error
	quiet := time.Since(o.client.LastHeard())
	if errors.As(err, &timeout) && timeout.Timeout() && quiet > o.interval+answerDelay {
		return fmt.Errorf("%s has not answered for %v, while: %w", o.client.Host(), quiet.Round(100*time.Millisecond), err)
	}
	return nil
}

// config is what a connection to this host is made with, but for who is there.
func (h *Host) config(login Login) ssh.Config {
	c := login.Base
	c.Name, c.User, c.Auth, c.Keys, c.Agent = h.Alias, h.User, nil, nil, ""
	c.Budgets.Connect = cmp.Or(c.Budgets.Connect, h.ConnectTimeout)
	c.Budgets.Handshake = cmp.Or(c.Budgets.Handshake, h.ConnectTimeout)
	if h.AliveInterval > 0 && c.Liveness == (ssh.Liveness{}) {
		count := min(time.Duration(h.AliveCountMax), lifeline.Never/4/h.AliveInterval-1)
		c.Liveness.Interval = h.AliveInterval
		c.Liveness.Silence = h.AliveInterval * (count + 1) // server_alive_check in OpenSSH's clientloop.c
	}
	c.Network = map[string]string{"inet": "tcp4", "inet6": "tcp6"}[h.AddressFamily]
	set := func(into *[]string, list []string) {
		if list != nil {
			*into = list
		}
	}
	set(&c.Protocol.Ciphers, h.Ciphers)
	set(&c.Protocol.MACs, h.MACs)
	set(&c.Protocol.KeyExchanges, h.KeyExchanges)
	return c
}

// dial connects to one host on the way, by the one before it.
func (h *Host) dial(ctx context.Context, login Login, config ssh.Config, before *hop) (*ssh.Client, error) {
	limit := cmp.Or(max(config.Budgets.Connect, 0), preparation)
	check, err := await(ctx, limit, func() (*hostKeyCheck, error) { return newHostKeyCheck(h, login) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", h.Alias, ssh.ErrHostKey, err)
	}
	if login.Warn != nil {
		for _, warning := range check.warnings() {
			login.Warn(warning)
		}
	}
	asking, cancel := context.WithCancel(ctx)
	defer cancel() // when the connection is made or has failed, nobody is asked any more
	config.HostKey, config.HostKeyAlgorithms = check.callback(asking), check.algorithms
	config.AuthCallback = newAttempts(asking, h, login, check).next
	switch {
	case before != nil:
		client, err := before.client.Jump(ctx, h.Address(), config)
		if err == nil && !before.shared {
			client.Own(before.client)
		}
		return client, err
	case h.ProxyCommand != "":
		return h.byCommand(ctx, login, config)
	}
	if h.BindAddress != "" {
		addresses, err := await(ctx, limit, func() ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(asking, "ip", h.BindAddress)
		})
		if err != nil {
			return nil, fmt.Errorf("%s: BindAddress %s: %w", h.Alias, h.BindAddress, err)
		}
		config.Net.LocalAddr = &net.TCPAddr{IP: addresses[0].Unmap().AsSlice(), Zone: addresses[0].Zone()}
	}
	return ssh.Dial(ctx, h.Address(), config)
}

// preparation bounds what comes before a connection: reading known_hosts, and
// finding the address to bind to.
const preparation = 10 * time.Second

// await returns when f does, or when its time is over: a file system may keep it
// waiting.
func await[T any](ctx context.Context, limit time.Duration, f func() (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, &ssh.BudgetError{Budget: "Connect", Limit: limit})
	defer cancel()
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		value, err := f()
		done <- outcome{value, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// byCommand connects by the ProxyCommand.
func (h *Host) byCommand(ctx context.Context, login Login, config ssh.Config) (*ssh.Client, error) {
	said := &tail{also: login.Stderr}
	program := exec.Command(cmp.Or(h.shell, "/bin/sh"), "-c", "exec "+h.ProxyCommand)
	program.Stderr = said
	client, err := ssh.DialProgram(ctx, program, h.Address(), config)
	if err == nil {
		return client, nil
	}
	if words := said.words(); words != "" {
		err = fmt.Errorf("%w; the ProxyCommand said: %s", err, words)
	}
	return nil, fmt.Errorf("by the ProxyCommand: %w", err)
}

// A tail keeps the end of what a ProxyCommand says, for the error.
type tail struct {
	also io.Writer
	mu   sync.Mutex
	text []byte
}

const longestTail = 1024

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.text = append(t.text, p...)
	if len(t.text) > longestTail {
		t.text = slices.Clone(t.text[len(t.text)-longestTail:])
	}
	t.mu.Unlock()
	if t.also != nil {
		_, _ = t.also.Write(p)
	}
	return len(p), nil
}

// words returns it in one line, with nothing that a terminal would act on. What
// a program that has just ended has said may still be on its way.
func (t *tail) words() string {
	for range 10 {
		if t.complete() {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(t.text), "?")), " ")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}

func (t *tail) complete() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.text) > 0 && t.text[len(t.text)-1] == '\n'
}
