package main

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/bound"
	"github.com/lifeline-go/lifeline/ssh"
	"github.com/lifeline-go/lifeline/ssh/sshconf"
)

// failureKept is how long a jump host that could not be connected to is not
// tried again: all hosts behind it would wait for it one after the other.
const failureKept = 5 * time.Second

// jumps are connections to jump hosts, one for all hosts behind it: sshd begins
// to drop connections when ten have not logged in (MaxStartups), and takes any
// number of hosts on one.
type jumps struct {
	limit time.Duration // of an attempt to connect
	login sshconf.Login

	mu     sync.Mutex
	ways   map[string]*way
	closed chan struct{}
	crew   sync.WaitGroup
}

// way is a connection to a jump host, or an attempt to make one.
type way struct {
	done   chan struct{}
	client *ssh.Client // these three are read only after done
	err    error
	failed time.Time
}

func newJumps(limit time.Duration, login sshconf.Login) *jumps {
	return &jumps{limit: limit, login: login, ways: make(map[string]*way), closed: make(chan struct{})}
}

// to is the Way of sshconf.Login: a connection by these jump hosts, for all who ask
// the same.
func (j *jumps) to(ctx context.Context, hosts []*sshconf.Host) (*ssh.Client, error) {
	var names []string
	for _, h := range hosts {
		names = append(names, h.User+"@"+h.Address())
	}
	key := strings.Join(names, ",")
	j.mu.Lock()
	w := j.ways[key]
	if w == nil || w.over() {
		w = &way{done: make(chan struct{})}
		j.ways[key] = w
		until := time.Now().Add(j.limit)
		if end, limited := ctx.Deadline(); limited && end.Before(until) {
			until = end
		}
		j.crew.Go(func() { j.connect(w, hosts, until.Add(-j.limit/10)) }) // those who wait have its reason then
	}
	j.mu.Unlock()
	select {
	case <-w.done:
		if w.err != nil {
			return nil, w.err
		}
		return w.client, nil
	case <-ctx.Done():
		last := hosts[len(hosts)-1].Alias
		return nil, &ssh.Error{Phase: ssh.Connect, Host: last, Err: context.Cause(ctx)}
	}
}

// over says whether there must be another attempt.
func (w *way) over() bool {
	select {
	case <-w.done:
	default:
		return false
	}
	if w.err != nil {
		return time.Since(w.failed) > failureKept
	}
	return w.client.Err() != nil
}

// connect makes an attempt until then, whoever still waits for it.
func (j *jumps) connect(w *way, hosts []*sshconf.Host, until time.Time) {
	defer close(w.done)
	ctx, cancel := context.WithDeadlineCause(context.Background(), until, &jumpLate{j.limit * 9 / 10})
	defer cancel()
	go func() {
		select {
		case <-j.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	last := *hosts[len(hosts)-1]
	last.Jumps = hosts[:len(hosts)-1]
	w.client, w.err = last.Connect(ctx, j.login)
	w.failed = time.Now()
}

// jumpLate is the cause of an attempt whose time is over.
type jumpLate struct{ limit time.Duration }

func (e *jumpLate) Error() string { return "no connection within " + bound.Format(e.limit) }

// Is says that it is a deadline.
func (e *jumpLate) Is(target error) bool { return target == context.DeadlineExceeded }

// close ends all connections.
func (j *jumps) close() {
	close(j.closed)
	j.crew.Wait() // Connect returns when its context has ended
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, w := range j.ways {
		if w.client != nil {
			_ = w.client.Close()
		}
	}
}
