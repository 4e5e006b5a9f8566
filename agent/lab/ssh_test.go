//go:build linux

package lab

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/need"
	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// Package ssh promises that every call returns; these tests take the server of
// most people, OpenSSH, away from it in every way that needs a kernel.

// fleet is a host with a client, and one with an sshd.
type fleet struct {
	near, far *Host
	keys      *SSHKeys
	config    ssh.Config
}

const server = "10.77.1.2:22"

func newFleet(t *testing.T) *fleet {
	t.Helper()
	for _, name := range SSHPrograms {
		need.Program(t, name)
	}
	f := &fleet{}
	f.near, f.far = hosts(t, "10.77.1.1/24", "10.77.1.2/24")
	f.keys = f.far.lab.SSHKeys()
	f.far.SSHD(server, f.keys)
	f.config = impatient(f.keys)
	f.await(t)
	return f
}

// impatient gives up early, so that tests are short.
func impatient(keys *SSHKeys) ssh.Config {
	return ssh.Config{
		User: keys.Login, Auth: []xssh.AuthMethod{xssh.PublicKeys(keys.User)}, HostKey: xssh.FixedHostKey(keys.Host.PublicKey()),
		Liveness: ssh.Liveness{Silence: 3 * time.Second},
		Budgets:  ssh.Budgets{Connect: 2 * time.Second, Handshake: 2 * time.Second, Authentication: 3 * time.Second},
	}
}

// busy is what a machine may take that has other things to do.
var busy = ssh.Budgets{Connect: time.Minute, Handshake: time.Minute, Authentication: time.Minute, ChannelOpen: time.Minute, Request: time.Minute}

// await waits until the server answers from here.
func (f *fleet) await(t *testing.T) {
	t.Helper()
	patient := f.config
	patient.Budgets = busy
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		client, err := f.dial(t, patient)
		if err == nil {
			_ = client.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server does not answer: %v", err)
		}
	}
}

func (f *fleet) dial(t *testing.T, config ssh.Config) (client *ssh.Client, err error) {
	err = f.near.Do(func() error { // the socket is of this thread's namespace
		client, err = ssh.Dial(t.Context(), server, config)
		return err
	})
	return client, err
}

func (f *fleet) connect(t *testing.T) *ssh.Client {
	t.Helper()
	config := f.config
	config.Budgets = busy
	client, err := f.dial(t, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// returned checks what a call returned, and when, counted from the fault.
func returned(t *testing.T, err error, since time.Time, bound time.Duration, kind error, phases ...ssh.Phase) {
	t.Helper()
	took := time.Since(since)
	t.Logf("after %v of %v: %v", took.Round(time.Millisecond), bound, err)
	var e *ssh.Error
	switch {
	case !errors.As(err, &e):
		t.Errorf("%v is no *ssh.Error", err)
	case !errors.Is(err, kind):
		t.Errorf("%v is not %v", err, kind)
	case took > bound+slack:
		t.Errorf("returned after %v, the bound is %v", took, bound)
	case !strings.Contains(join(phases), string(e.Phase)):
		t.Errorf("in phase %s, want one of %s", e.Phase, join(phases))
	}
}

func join(phases []ssh.Phase) (all string) {
	for _, p := range phases {
		all += " " + string(p)
	}
	return all
}

// losses are the ways to take a server away that lives on as far as anybody
// knows: its host is cut off, or its processes are stopped and their kernel
// goes on to acknowledge.
var losses = map[string]func(f *fleet){
	"cut off": func(f *fleet) { f.far.Unplug() },
	"stopped": func(f *fleet) { f.far.Signal(unix.SIGSTOP) },
}

// eachLoss calls f with each server, as a test for each way to lose it.
func eachLoss(t *testing.T, f func(t *testing.T, f *fleet, lose func())) {
	for program, build := range map[string]func(*testing.T) *fleet{"OpenSSH": newFleet, "dropbear": newDropbear} {
		for name, lose := range losses {
			t.Run(program+" "+name, func(t *testing.T) {
				t.Parallel()
				fleet := build(t)
				f(t, fleet, func() { lose(fleet) })
			})
		}
	}
}

func TestSSHLostBeforeDial(t *testing.T) {
	t.Parallel()
	eachLoss(t, func(t *testing.T, f *fleet, lose func()) {
		lose()
		began := time.Now()
		_, err := f.dial(t, f.config)
		returned(t, err, began, 2*time.Second, context.DeadlineExceeded, ssh.Connect, ssh.Handshake)
	})
}

// The server is lost at any time of the dial.
func TestSSHLostInDial(t *testing.T) {
	t.Parallel()
	for name, lose := range losses {
		for _, after := range []time.Duration{2, 10, 25, 50} {
			t.Run(name+" after "+(after*time.Millisecond).String(), func(t *testing.T) {
				t.Parallel()
				f := newFleet(t)
				began := time.Now()
				lost := make(chan struct{})
				go func() {
					defer close(lost)
					time.Sleep(after * time.Millisecond)
					lose(f)
				}()
				client, err := f.dial(t, f.config)
				<-lost
				if err != nil {
					returned(t, err, began, 7*time.Second, context.DeadlineExceeded, ssh.Connect, ssh.Handshake, ssh.Authentication)
					return
				}
				defer client.Close()
				<-client.Done()
				returned(t, client.Err(), began, 3*time.Second+after, ssh.ErrSilent, ssh.Idle)
			})
		}
	}
}

func TestSSHLostIdle(t *testing.T) {
	t.Parallel()
	eachLoss(t, func(t *testing.T, f *fleet, lose func()) {
		client := f.connect(t)
		lose()
		lost := time.Now()
		<-client.Done()
		returned(t, client.Err(), lost, client.Bound().Silence, ssh.ErrSilent, ssh.Idle)
	})
}

// The server is lost while commands run that say nothing, say much, and are
// told much.
func TestSSHLostWhileCommandsRun(t *testing.T) {
	t.Parallel()
	eachLoss(t, func(t *testing.T, f *fleet, lose func()) {
		client := f.connect(t)
		ended := make(chan error, 3)
		for _, line := range []string{"sleep 1000", "cat /dev/zero", "cat >/dev/null"} {
			cmd := client.Command(line)
			if strings.HasSuffix(line, "null") {
				cmd.Stdin = zeros{}
			}
			if err := cmd.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			go func() { ended <- cmd.Wait(context.Background()) }()
		}
		time.Sleep(300 * time.Millisecond)
		lose()
		lost := time.Now()
		for range cap(ended) {
			returned(t, <-ended, lost, client.Bound().Silence, ssh.ErrSilent, ssh.Run)
		}
		err := client.Command("true").Run(t.Context())
		returned(t, err, time.Now(), 0, ssh.ErrSilent, ssh.Open)
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A pause shorter than the bound ends nothing.
func TestSSHOutlivesAPause(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.config.Liveness.Silence = 10 * time.Second
	client, err := f.dial(t, f.config)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	cmd := client.Command("sleep 8; echo done")
	ended := make(chan error, 1)
	var out ssh.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- cmd.Wait(context.Background()) }()
	f.far.Signal(unix.SIGSTOP)
	time.Sleep(5 * time.Second)
	f.far.Signal(unix.SIGCONT)
	if err := <-ended; err != nil || string(out.Bytes()) != "done\n" {
		t.Errorf("%q, %v", out.Bytes(), err)
	}
}

// The server's processes are killed: its kernel says so.
func TestSSHServerKilled(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	client := f.connect(t)
	cmd := client.Command("echo begun; sleep 1000")
	var out ssh.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for len(out.Bytes()) == 0 && client.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	f.far.Signal(unix.SIGKILL)
	killed := time.Now()
	err := cmd.Wait(t.Context())
	if exit := (*ssh.ExitError)(nil); errors.As(err, &exit) && exit.Signal == "KILL" { // the command died first, and the server had time to say so
		err = nil
	}
	if err != nil {
		returned(t, err, killed, client.Bound().Silence, ssh.ErrDisconnected, ssh.Run)
	}
	if string(out.Bytes()) != "begun\n" {
		t.Errorf("%q", out.Bytes())
	}
}
