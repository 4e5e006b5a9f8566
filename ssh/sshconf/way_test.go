//go:build unix

package sshconf_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/ssh"
	"github.com/lifeline-go/lifeline/ssh/sshconf"
)

// way is two jump hosts and what lies behind them.
func way(t *testing.T) (first, second, web *sshd, host *sshconf.Host) {
	t.Helper()
	first, second, web = startSSHD(t), startSSHD(t), startSSHD(t)
	text := "Host web1\n ProxyJump jump1,jump2\n"
	for name, d := range map[string]*sshd{"jump1": first, "jump2": second, "web1": web} {
		d.know(t, "", d.Host.PublicKey())
		text += d.entry(name)
	}
	return first, second, web, hostOf(t, text, "web1")
}

// impatient bounds each hop by little.
func impatient(silence time.Duration) sshconf.Login {
	return sshconf.Login{Base: ssh.Config{
		Budgets:  ssh.Budgets{Connect: 20 * s, Handshake: 20 * s, Authentication: 20 * s},
		Liveness: ssh.Liveness{Silence: silence},
	}}
}

func TestProxyJump(t *testing.T) {
	t.Parallel()
	first, second, _, host := way(t)
	client, err := says(t, host, sshconf.Login{})
	if err != nil {
		t.Fatal(err)
	}
	busy := func(d *sshd) int { return len(d.Family()) - 1 }
	if busy(first) == 0 || busy(second) == 0 {
		t.Error("it does not go by the jump hosts")
	}
	_ = client.Close()
	for deadline := time.Now().Add(10 * s); busy(first)+busy(second) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the connections to the jump hosts are still there")
		}
	}
	// What is behind refuses: the jump hosts are let go.
	host.Port = 1
	_, err = says(t, host, sshconf.Login{})
	var e *sshconf.Error
	if !errors.As(err, &e) || e.Hop != "web1" || !errors.Is(err, ssh.ErrRefused) {
		t.Error(err)
	}
	t.Log(err)
	// The key of one in the middle has changed.
	second.know(t, "", first.Host.PublicKey())
	if _, err = says(t, host, sshconf.Login{}); !errors.As(err, &e) || e.Hop != "jump2" || !errors.Is(err, sshconf.ErrChanged) {
		t.Error(err)
	}
	t.Log(err)
	for deadline := time.Now().Add(10 * s); busy(first)+busy(second) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("failed, and the connections to the jump hosts are still there")
		}
	}
}

// One connection to the jump hosts serves all that is behind them.
func TestSharedWay(t *testing.T) {
	t.Parallel()
	first, second, _, host := way(t)
	last := *host.Jumps[1]
	last.Jumps = host.Jumps[:1]
	shared, err := says(t, &last, sshconf.Login{})
	if err != nil {
		t.Fatal(err)
	}
	login := sshconf.Login{Way: func(_ context.Context, jumps []*sshconf.Host) (*ssh.Client, error) {
		if len(jumps) != 2 || jumps[1].Alias != "jump2" {
			t.Errorf("%+v", jumps)
		}
		return shared, nil
	}}
	before := len(first.Family()) + len(second.Family())
	for range 3 {
		client, err := says(t, host, login)
		if err != nil {
			t.Fatal(err)
		}
		if after := len(first.Family()) + len(second.Family()); after != before {
			t.Errorf("%d processes before, %d after", before, after)
		}
		_ = client.Close()
	}
	host.Port = 1
	if _, err := says(t, host, login); !errors.Is(err, ssh.ErrRefused) {
		t.Error(err)
	}
	if err := shared.Command("true").Run(t.Context()); err != nil {
		t.Errorf("the shared way: %v", err)
	}
	no := errors.New("no way")
	login.Way = func(context.Context, []*sshconf.Host) (*ssh.Client, error) { return nil, no }
	var e *sshconf.Error
	if _, err := says(t, host, login); !errors.Is(err, no) || !errors.As(err, &e) || e.Hop != "jump2" {
		t.Error(err)
	}
}

// Whichever host on the way freezes, it is named, within the bound.
func TestProxyJumpFrozen(t *testing.T) {
	t.Parallel()
	for i, name := range []string{"jump1", "jump2", "web1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second, web, host := way(t)
			client, err := says(t, host, impatient(5*s))
			if err != nil {
				t.Fatal(err)
			}
			frozen := []*sshd{first, second, web}[i]
			began := time.Now()
			frozen.freeze(t)
			err = client.Command("true").Run(t.Context())
			took := time.Since(began)
			t.Logf("after %v, of 5 s: %v", took, err)
			if !errors.Is(err, ssh.ErrSilent) || took > 45*s {
				t.Errorf("%v after %v", err, took)
			}
			if i < 2 && !strings.Contains(err.Error(), "the way by "+name+": the peer is silent") {
				t.Errorf("%v does not name the jump host", err)
			}
			_ = client.Close()
		})
	}
}

// A host that is frozen while the way is made is named too.
func TestProxyJumpFrozenBefore(t *testing.T) {
	t.Parallel()
	_, second, _, host := way(t)
	second.freeze(t)
	login := impatient(4 * s)
	login.Base.Budgets.Handshake = 3 * s
	began := time.Now()
	_, err := host.Connect(t.Context(), login)
	took := time.Since(began)
	t.Logf("after %v: %v", took, err)
	var e *sshconf.Error
	if !errors.As(err, &e) || e.Hop != "jump2" || e.Host != "web1" || !errors.Is(err, context.DeadlineExceeded) || took > 45*s {
		t.Error(err)
	}
}

// The first jump host freezes when the second is being reached: it is what is
// behind that times out, and the first that is named.
func TestProxyJumpBlames(t *testing.T) {
	t.Parallel()
	first, _, _, host := way(t)
	login := impatient(20 * s)
	login.Base.Liveness.Interval = s / 2
	login.Base.Budgets.Handshake = 6 * s
	login.Base.Budgets.Connect = 6 * s
	frozen := false
	for _, jump := range host.Jumps[1:] { // it is asked about the second after the first is there
		jump.HostKeys, jump.KnownHosts = sshconf.Ask, nil
	}
	login.AcceptHostKey = func(context.Context, *sshconf.HostKeyError) error {
		if !frozen {
			frozen = true
			first.freeze(t)
		}
		return nil
	}
	login.Base.Budgets.Authentication = 5 * s
	began := time.Now()
	_, err := host.Connect(t.Context(), login)
	took := time.Since(began)
	t.Logf("after %v: %v", took, err)
	var e *sshconf.Error
	if !frozen || !errors.As(err, &e) || e.Hop != "jump1" || took > 45*s {
		t.Error(err)
	}
}

// alive reports whether a group has a process that has not ended: whoever is the
// parent of those without one may be slow to take note.
func alive(group int) bool {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		text, _ := os.ReadFile(stat)
		_, rest, _ := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); len(fields) > 2 && fields[0] != "Z" && fields[2] == strconv.Itoa(group) {
			return true
		}
	}
	return false
}

func TestProxyCommand(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	d.know(t, "", d.Host.PublicKey())
	mark := filepath.Join(t.TempDir(), "pid")
	nc := fmt.Sprintf("bash -c 'echo $$ > %s; exec 3<>/dev/tcp/%%h/%%p; cat <&3 & cat >&3'", mark)
	host := hostOf(t, d.entry("web1")+" ProxyCommand "+nc+"\n", "web1")
	pid := func() int {
		t.Helper()
		for deadline := time.Now().Add(10 * s); ; time.Sleep(10 * time.Millisecond) {
			text, _ := os.ReadFile(mark)
			if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
				return n
			}
			if time.Now().After(deadline) {
				t.Fatal("the ProxyCommand does not run")
			}
		}
	}
	gone := func(group int) {
		t.Helper()
		for deadline := time.Now().Add(20 * s); alive(group); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("processes of the ProxyCommand are left")
			}
		}
	}
	client, err := says(t, host, sshconf.Login{})
	if err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
	gone(pid())

	// It freezes.
	client, err = says(t, host, impatient(2*s))
	if err != nil {
		t.Fatal(err)
	}
	group := pid()
	if err := syscall.Kill(-group, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := client.Command("true").Run(t.Context()); !errors.Is(err, ssh.ErrSilent) || time.Since(began) > 30*s {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	_ = client.Close()
	gone(group)

	// It says nothing, or ends with a complaint.
	host.ProxyCommand = "sleep 1000"
	login := impatient(20 * s)
	login.Base.Budgets.Handshake = s / 2
	if _, err := host.Connect(t.Context(), login); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	host.ProxyCommand = "sh -c 'echo no\\\\033way >&2; exit 3'"
	_, err = host.Connect(t.Context(), sshconf.Login{})
	t.Log(err)
	if !errors.Is(err, ssh.ErrDisconnected) || !strings.Contains(err.Error(), "the ProxyCommand said: no") || strings.Contains(err.Error(), "\033") {
		t.Error(err)
	}
}

func TestNetworkAndBinding(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	d.know(t, "", d.Host.PublicKey())
	host := hostOf(t, d.entry("web1")+" BindAddress 127.0.0.9\n AddressFamily inet\n", "web1")
	client, err := says(t, host, sshconf.Login{})
	if err != nil {
		t.Fatal(err)
	}
	if addr := client.Metadata().LocalAddr().String(); !strings.HasPrefix(addr, "127.0.0.9:") {
		t.Error(addr)
	}
	host.AddressFamily, host.BindAddress = "inet6", ""
	if _, err := says(t, host, sshconf.Login{}); err == nil {
		t.Error("an address of IPv4 by IPv6")
	}
	host.AddressFamily = "any"
	host.AliveInterval, host.AliveCountMax = 3*s, 2
	if client, err = says(t, host, sshconf.Login{}); err != nil || client.Bound().Silence != 9*s {
		t.Errorf("%v, %v", err, client.Bound())
	}
}
