//go:build linux

// Package notice tells that this machine is about to go, while there is still
// time to do something: by systemd's word on D-Bus, or by that of a program that
// knows, such as the hook of a cloud.
package notice

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline"
)

// Names of logind on the bus.
const (
	login1     = "org.freedesktop.login1"
	loginPath  = "/org/freedesktop/login1"
	loginFace  = "org.freedesktop.login1.Manager"
	goingDown  = "PrepareForShutdown"
	busFace    = "org.freedesktop.DBus"
	newOwner   = "NameOwnerChanged"
	mostEvents = 16 // that wait; what comes then is of no use
)

const (
	// busTime is how long the bus may take for one answer.
	busTime = 10 * time.Second

	// lateTime is how long is waited for an answer that nobody wants any more.
	lateTime = time.Second

	// defaultDelay is for how long logind waits for who delays a shutdown, where it
	// does not say.
	defaultDelay = 5 * time.Second

	// longestDelay is what is made of longer ones: infinity has no other end.
	longestDelay = 24 * time.Hour
)

// Logind hears systemd's word that the machine goes down or reboots. While it is
// wanted it holds a lock of the kind delay (systemd-inhibit --list shows it), so
// that systemd waits until what must be done is done, InhibitDelayMaxSec of
// logind.conf at the most: 5 s where nobody changed it.
type Logind struct {
	Address string // of the bus; "" = the system bus

	// Going is called when the machine is about to go, with how long systemd
	// waits, which ctx ends with too. It waits until Going returns.
	Going func(ctx context.Context, most time.Duration)

	// Waits is called with how long systemd would wait, whenever it is known to: after
	// Said was called with nil. It may be nil.
	Waits func(most time.Duration)

	// Said is called with why there would be no notice, or no delay, and with nil
	// when there would be; only when that changes. It may be nil.
	Said func(error)

	lost error // said last
	told bool
}

// Run listens until ctx ends, and returns nil then. Where there is no bus, or no
// logind, or the bus ends, it tries again after a while. wanted says whether a
// notice is of use at the moment; it is asked when Run begins and whenever changed
// has a value.
func (l *Logind) Run(ctx context.Context, wanted func() bool, changed <-chan struct{}) error {
	var backoff lifeline.Backoff
	for ctx.Err() == nil {
		if !wanted() {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		met, err := l.session(ctx, wanted, changed)
		if ctx.Err() != nil {
			break
		}
		if err == nil { // it is not wanted any more
			continue
		}
		if met {
			backoff.Reset()
		}
		l.say(err)
		if backoff.Wait(ctx) != nil {
			break
		}
	}
	return nil
}

func (l *Logind) say(err error) {
	if l.told && (err == nil) == (l.lost == nil) {
		return
	}
	l.told, l.lost = true, err
	if l.Said != nil {
		l.Said(err)
	}
}

// session is one connection to the bus. It returns nil when it is not wanted any
// more; met is that logind was there.
func (l *Logind) session(ctx context.Context, wanted func() bool, changed <-chan struct{}) (met bool, err error) {
	conn, err := l.connect(ctx)
	if err != nil {
		return false, fmt.Errorf("no notice of a shutdown by systemd: %w", err)
	}
	defer conn.Close()
	events := make(chan *dbus.Signal, mostEvents)
	conn.Signal(events)
	manager := conn.Object(login1, loginPath)
	lock, err := l.begin(ctx, conn, manager)
	defer func() { lock.release() }()
	if err != nil {
		return false, fmt.Errorf("no notice of a shutdown by systemd: %w", err)
	}
	if property(ctx, manager, "PreparingForShutdown", false) {
		l.going(ctx, manager, &lock)
	}
	for {
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case <-changed:
			if !wanted() {
				return true, nil
			}
		case e, open := <-events:
			if !open {
				return true, errors.New("no notice of a shutdown by systemd: the bus has ended")
			}
			if err := l.take(ctx, e, manager, &lock); err != nil {
				return true, err
			}
		}
	}
}

// connect connects within a bound. The connection outlives ctx, until the caller
// closes it: what is still to come may be a lock.
func (l *Logind) connect(ctx context.Context) (*dbus.Conn, error) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	late := time.AfterFunc(busTime, end)
	defer late.Stop()
	defer context.AfterFunc(ctx, end)()
	if l.Address == "" {
		return dbus.ConnectSystemBus(dbus.WithContext(life))
	}
	return dbus.Connect(l.Address, dbus.WithContext(life))
}

// begin asks for the signals, and takes the lock.
func (l *Logind) begin(ctx context.Context, conn *dbus.Conn, manager dbus.BusObject) (delay, error) {
	ctx, cancel := context.WithTimeout(ctx, busTime)
	defer cancel()
	err := errors.Join(
		conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface(loginFace), dbus.WithMatchMember(goingDown), dbus.WithMatchSender(login1)),
		conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface(busFace), dbus.WithMatchMember(newOwner), dbus.WithMatchArg(0, login1)))
	if err != nil {
		return delay{}, err
	}
	return l.hold(ctx, manager)
}

// hold takes the lock, and says how it stands.
func (l *Logind) hold(ctx context.Context, manager dbus.BusObject) (delay, error) {
	ctx, cancel := context.WithTimeout(ctx, busTime)
	defer cancel()
	fd, err := inhibit(ctx, manager)
	var refused dbus.Error
	switch {
	case err == nil:
		l.say(nil)
		if l.Waits != nil {
			l.Waits(longest(ctx, manager))
		}
		return delay{os.NewFile(uintptr(fd), "inhibitor lock")}, nil
	case errors.As(err, &refused) && refused.Name != "org.freedesktop.DBus.Error.ServiceUnknown" && refused.Name != "org.freedesktop.DBus.Error.NameHasNoOwner":
		l.say(fmt.Errorf("systemd does not wait for this agent at a shutdown: %w", err))
		return delay{}, nil
	}
	return delay{}, err
}

// inhibit asks for the lock. One that comes when nobody waits for it any more is
// given back: the library drops such an answer, and leaves its descriptor open.
func inhibit(ctx context.Context, manager dbus.BusObject) (fd dbus.UnixFD, err error) {
	call := manager.Go(loginFace+".Inhibit", 0, make(chan *dbus.Call, 1), "shutdown", "lifeline", "resets the connections that this machine forwards", "delay")
	select {
	case <-call.Done:
		err = call.Store(&fd)
		return fd, err
	case <-ctx.Done():
	}
	select {
	case <-call.Done:
		if call.Store(&fd) == nil {
			_ = unix.Close(int(fd))
		}
	case <-time.After(lateTime): // the caller closes the connection, and the kernel what is on its way
	}
	return 0, ctx.Err()
}

// take acts on one signal.
func (l *Logind) take(ctx context.Context, e *dbus.Signal, manager dbus.BusObject, lock *delay) (err error) {
	switch e.Name {
	case busFace + "." + newOwner:
		if owner, _ := last(e).(string); owner != "" { // logind has come back, and may not know of the lock
			lock.release()
			*lock, err = l.hold(ctx, manager)
		}
	case loginFace + "." + goingDown:
		if down, _ := last(e).(bool); down {
			l.going(ctx, manager, lock)
		} else { // it was called off
			lock.release()
			*lock, err = l.hold(ctx, manager)
		}
	}
	return err
}

func last(e *dbus.Signal) any {
	if len(e.Body) == 0 {
		return nil
	}
	return e.Body[len(e.Body)-1]
}

// going does what must be done, and then lets the machine go.
func (l *Logind) going(ctx context.Context, manager dbus.BusObject, lock *delay) {
	defer lock.release()
	most := longest(ctx, manager)
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	l.Going(ctx, most)
}

// longest is how long systemd waits at a shutdown.
func longest(ctx context.Context, manager dbus.BusObject) time.Duration {
	micros := property(ctx, manager, "InhibitDelayMaxUSec", uint64(defaultDelay/time.Microsecond))
	return time.Duration(min(micros, uint64(longestDelay/time.Microsecond))) * time.Microsecond
}

// property reads one of logind's, and is otherwise when it does not answer.
func property[T any](ctx context.Context, manager dbus.BusObject, name string, otherwise T) T {
	const soon = time.Second
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	var v dbus.Variant
	if manager.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, loginFace, name).Store(&v) != nil {
		return otherwise
	}
	if value, ok := v.Value().(T); ok {
		return value
	}
	return otherwise
}

// delay is an inhibitor lock, which is a file that is open; none is the zero one.
type delay struct{ file *os.File }

func (d *delay) release() {
	if d.file != nil {
		_ = d.file.Close() // there is nothing in it
		d.file = nil
	}
}
