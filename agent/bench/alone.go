package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/bound"
)

// fewRetries is the tcp_retries2 of the pod whose connections are left alone and
// send: the kernel gives up after some 13 s (bound.Conn.Sending knows) in place of
// 15 minutes.
const fewRetries = 5

// alone is connections of another pod to another node that nobody watches, with
// what package net sets.
type alone struct {
	*fleet
	node   *lab.Host
	listen net.Listener
	stop   func()
	sends  bool
	wait   bool
}

// leaveAlone opens them, as the scene has it: sending or idle.
func (s scene) leaveAlone(ctx context.Context, l *lab.Lab, long bool) (*alone, error) {
	a := &alone{fleet: &fleet{}, stop: func() {}, sends: s.beat > 0, wait: long || s.beat > 0}
	if s.alone == 0 {
		return a, nil
	}
	pod, router := l.Host("pod-alone"), l.Host("node-alone")
	l.Wire(pod, "10.77.2.3/24", router, "10.77.2.2/24")
	pod.Sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms", "600000")
	if a.sends {
		pod.Sysctl("net.ipv4.tcp_retries2", fmt.Sprint(fewRetries))
	}
	var err error
	if a.listen, err = listen(pod, "10.77.2.3:8080"); err != nil {
		return nil, err
	}
	a.node = router
	if a.fleet, err = open(ctx, router, a.listen, "10.77.2.3:8080", s.alone, 0); err != nil {
		_ = a.listen.Close()
		return nil, err
	}
	a.read()
	if a.sends {
		a.stop = a.fleet.beat(time.Second)
	}
	return a, nil
}

func (a *alone) die() {
	if a.node != nil {
		a.node.Unplug()
	}
}

func (a *alone) close() {
	a.stop()
	if a.listen != nil {
		_ = a.listen.Close()
	}
	a.fleet.close()
}

// tell adds a line for Go alone: how long it took, or how long it may take.
func (a *alone) tell(ctx context.Context, t *table, died time.Time) error {
	if a.node == nil {
		return nil
	}
	usual := bound.Conn{Options: bound.Options{KeepAlive: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 9}, RTO: 200 * time.Millisecond}
	limit, name := usual.Idle(), fmt.Sprintf("  Go alone, %d idle", len(a.servers))
	if a.sends {
		limit, name = usual.Sending(), fmt.Sprintf("  Go alone, %d sending, tcp_retries2=%d in place of 15", len(a.servers), fewRetries)
	}
	if !a.wait {
		t.row(name+", not waited for (-long)", "-", "bound "+short(limit.After), 0)
		return nil
	}
	select {
	case <-a.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(limit.Latest + time.Minute):
		return fmt.Errorf("nothing noticed without a watch within %v", limit.Latest+time.Minute)
	}
	took := slices.MaxFunc(a.ended, time.Time.Compare).Sub(died)
	t.row(name, short(took), "bound "+short(limit.After), 0)
	return nil
}

func prefixOf(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
