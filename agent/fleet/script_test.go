package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// said collects what hosts did.
type said struct {
	mu  sync.Mutex
	all map[string][]fact.HostAnswer
	now chan struct{} // one for each
}

func listen(p *Plan) *said {
	s := &said{all: map[string][]fact.HostAnswer{}, now: make(chan struct{}, 1000)}
	p.Did = func(i int, a fact.HostAnswer, _ bool) {
		s.mu.Lock()
		if len(s.all[a.Host]) != i {
			panic("a step is missing")
		}
		s.all[a.Host] = append(s.all[a.Host], a)
		s.mu.Unlock()
		s.now <- struct{}{}
	}
	return s
}

// await waits until so many steps were done.
func (s *said) await(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-s.now:
		case <-time.After(20 * time.Second):
			t.Fatal("a step was not done")
		}
	}
}

func (s *said) of(host string) (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.all[host] {
		all = append(all, strings.TrimSpace(string(a.Outcome)+" "+string(a.Stdout)))
	}
	return all
}

// Steps are done as they come, by each host at its own pace over one connection,
// and each has an answer of its own.
func TestScriptAsItComes(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		s := serveInMemory(t)
		script := &Script{}
		p := Plan{Hosts: hosts(5), Script: script, Dial: s.dial, Window: 2, Connect: 5 * time.Second}
		p.Hosts = append(p.Hosts, "frozen")
		p.Dial = func(ctx context.Context, host string) (*Conn, error) {
			if host == "frozen" {
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}
			return s.dial(ctx, host)
		}
		heard := listen(&p)
		done := make(chan map[string]fact.HostAnswer)
		go func() { done <- answers(t, t.Context(), p) }()
		for i := range 3 {
			script.Add(Step{Command: fmt.Sprintf("say %d", i)})
			heard.await(t, 5) // none of them waits for the frozen one
		}
		script.Add(Step{Command: "exit 1"})
		script.Add(Step{Command: "say never"})
		script.End()
		expect(t, <-done, map[fact.Outcome]int{fact.OutcomeFailed: 5, fact.OutcomeUnreachable: 1})
		for _, host := range hosts(5) {
			if got := strings.Join(heard.of(host), ","); got != "ok 0,ok 1,ok 2,failed" {
				t.Errorf("%s: %s", host, got)
			}
		}
		if n := s.connects.Load(); n != 5 || s.mostAt > 2 {
			t.Errorf("%d connections, %d at a time", n, s.mostAt)
		}
		if got := heard.of("frozen"); len(got) != 1 {
			t.Error(got)
		}
	})
}

// With KeepGoing a host does the next step when one failed, was too slow or was
// interrupted, on the same connection; when the connection ended meanwhile, on
// another. Without a step, nothing is begun.
func TestScriptKeepsGoing(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		s := serveInMemory(t)
		script := &Script{}
		p := Plan{Hosts: []string{"h"}, Script: script, Dial: s.dial, KeepGoing: true, Timeout: 3 * time.Second}
		heard := listen(&p)
		done := make(chan map[string]fact.HostAnswer)
		go func() { done <- answers(t, t.Context(), p) }()
		for _, line := range []string{"exit 1", "sleep 50s", "say a"} {
			script.Add(Step{Command: line})
			heard.await(t, 1)
		}
		script.Interrupt() // nothing
		script.Add(Step{Command: "sleep 2500ms"})
		for s.at("sleep 2500ms") == 0 {
			time.Sleep(time.Millisecond)
		}
		script.Interrupt()
		heard.await(t, 1)
		if n := s.connects.Load(); n != 1 {
			t.Errorf("%d connections", n)
		}
		s.drop()
		time.Sleep(200 * time.Millisecond) // it is noticed
		script.Add(Step{Command: "say b"})
		heard.await(t, 1)
		script.Add(Step{Command: "die"})
		script.Add(Step{Command: "say never"})
		script.End()
		if a := (<-done)["h"]; a.Outcome != fact.OutcomeUnreachable || a.Command != "die" {
			t.Errorf("%+v", a)
		}
		if got := strings.Join(heard.of("h"), ","); got != "failed,timed_out,ok a,failed,ok b,unreachable" {
			t.Error(got)
		}
		if n := s.connects.Load(); n != 2 {
			t.Errorf("%d connections", n)
		}
		script = &Script{}
		script.End()
		p = Plan{Hosts: hosts(2), Script: script, Dial: s.dial}
		expect(t, answers(t, t.Context(), p), map[fact.Outcome]int{fact.OutcomeNotRun: 2})
	})
}

// at returns how often a line was run.
func (s *server) at(line string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, all := range s.ran {
		for _, ran := range all {
			if ran == line {
				n++
			}
		}
	}
	return n
}

// A script that stays open bounds nothing but its steps; what cannot be stopped
// is answered for.
func TestScriptBound(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		s := serveInMemory(t)
		held := make(chan struct{})
		defer close(held)
		script := &Script{}
		var tries atomic.Int32
		p := Plan{
			Hosts: []string{"holds", "ok"}, Script: script, Connect: 3 * time.Second, Timeout: 3 * time.Second,
			Dial: func(ctx context.Context, host string) (*Conn, error) {
				if host == "holds" && tries.Add(1) == 1 {
					<-held
					return nil, errors.New("too late")
				}
				return s.dial(ctx, host)
			},
		}
		if p.Bound() != 8*time.Second {
			t.Error(p.Bound())
		}
		heard := listen(&p)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan map[string]fact.HostAnswer)
		go func() { done <- answers(t, ctx, p) }()
		time.Sleep(time.Second)
		script.Add(Step{Command: "say a"})
		heard.await(t, 1)
		time.Sleep(10 * time.Second) // longer than its bound: only one is given up
		script.Add(Step{Command: "say b"})
		heard.await(t, 1)
		cancel()
		all := <-done
		if a := all["holds"]; a.Outcome != fact.OutcomeUnreachable || a.Reason != "nothing came of it within 8 s, and it could not be stopped" {
			t.Errorf("%+v", a)
		}
		if a := all["ok"]; a.Outcome != fact.OutcomeOK || string(a.Stdout) != "b\n" {
			t.Errorf("%+v", a)
		}
	})
}
