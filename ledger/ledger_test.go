package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/ledger"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// closer counts how often it was closed.
type closer struct {
	mu     sync.Mutex
	closed int
	hangs  chan struct{} // Close waits for it when it is not nil
}

func (c *closer) Close() error {
	if c.hangs != nil {
		<-c.hangs
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed++
	return nil
}

func (c *closer) times() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// enter opens something in a scope, which is closed when the test ends.
func enter(t testing.TB, ctx context.Context, s *ledger.Scope, what io.Closer) *ledger.Ticket {
	t.Helper()
	ticket, err := ledger.Enter(ctx, s, "dial", what)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ticket.Leave)
	return ticket
}

// line returns the line of its caller.
func line() int {
	_, _, line, _ := runtime.Caller(1)
	return line
}

func TestEntry(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	build := ledger.NewScope("build 42")
	step := build.NewScope("step 1")
	ctx, asked := step.Context(t.Context()), line()
	ticket, opened := enter(t, ctx, nil, conn), line()
	enter(t, t.Context(), build, ln)

	if ledger.FromContext(ctx) != step || ledger.FromContext(t.Context()) != nil || ticket.Scope() != step {
		t.Error("the context has another scope")
	}
	all := build.Open()
	if len(all) != 2 || len(step.Open()) != 1 {
		t.Fatalf("%d open, %d in the inner scope", len(all), len(step.Open()))
	}
	e := all[0]
	if e.Scope != "build 42/step 1" || e.Op != "dial" || e.Network != "tcp" || e.Local != conn.LocalAddr().String() || e.Remote != ln.Addr().String() {
		t.Errorf("got %+v", e)
	}
	if age := time.Since(e.Opened); age < 0 || age > time.Minute || e.Used.Before(e.Opened) {
		t.Errorf("opened %v ago, used %v after that", age, e.Used.Sub(e.Opened))
	}
	if e.Asked == nil || e.Asked.Line != asked || !strings.HasSuffix(e.Asked.File, "ledger_test.go") || e.Site() != *e.Asked {
		t.Errorf("asked by %v, of line %d", e.Asked, asked)
	}
	if e := all[1]; e.Asked != nil || e.Scope != "build 42" || e.Local != ln.Addr().String() || e.Remote != "" || e.ID <= all[0].ID {
		t.Errorf("got %+v", e)
	}
	i := slices.IndexFunc(e.Stack, func(f ledger.Frame) bool { return f.Line == opened && strings.HasSuffix(f.Function, ".TestEntry") })
	if i != 1 || !strings.HasSuffix(e.Stack[0].Function, "_test.enter") {
		t.Errorf("opened by %v, and it was line %d", e.Stack, opened)
	}
	if !slices.ContainsFunc(ledger.Open(), func(other ledger.Entry) bool { return other.ID == e.ID }) {
		t.Error("it is not open in the process")
	}
	ticket.Leave()
	ticket.Leave()
	if len(step.Open()) != 0 || len(build.Open()) != 1 {
		t.Error("what was closed is still there")
	}
}

func TestUsed(t *testing.T) {
	t.Parallel()
	s := ledger.NewScope("use")
	ticket := enter(t, t.Context(), s, &closer{})
	before := s.Open()[0]
	time.Sleep(10 * time.Millisecond)
	ticket.Use()
	if after := s.Open()[0]; !after.Used.After(before.Used) || after.Opened != before.Opened {
		t.Errorf("used %v, and then %v", before.Used, after.Used)
	}
}

func TestCloseClosesWhatIsWithin(t *testing.T) {
	t.Parallel()
	outer := ledger.NewScope("outer")
	inner, idle := outer.NewScope("inner"), outer.NewScope("idle")
	var kept, left, deep closer
	ended := enter(t, t.Context(), outer, &left)
	enter(t, inner.Context(t.Context()), nil, &deep)
	enter(t, t.Context(), outer, &kept).Leave()
	other := enter(t, t.Context(), ledger.NewScope("other"), &kept)

	was := outer.Close()
	if len(was) != 2 || was[0].Scope != "outer" || was[1].Scope != "outer/inner" {
		t.Errorf("closed %+v", was)
	}
	if left.times() != 1 || deep.times() != 1 || kept.times() != 0 {
		t.Errorf("closed %d and %d times, and what was not its own %d times", left.times(), deep.times(), kept.times())
	}
	if !ended.Ended() || other.Ended() || !ended.Over() || ended.Over() {
		t.Error("the tickets do not say what became of them")
	}
	if again := outer.Close(); len(again) != 0 {
		t.Errorf("closed once more: %+v", again)
	}
	for _, s := range []*ledger.Scope{outer, inner, idle, inner.NewScope("new")} {
		if _, err := ledger.Enter(t.Context(), s, "dial", &closer{}); !errors.Is(err, ledger.ErrClosed) || !errors.Is(ledger.Room(t.Context(), s), ledger.ErrClosed) {
			t.Errorf("in a closed scope: %v", err)
		}
	}
}

func TestLimit(t *testing.T) {
	t.Parallel()
	outer := ledger.NewScope("outer")
	outer.SetLimit(3)
	inner := outer.NewScope("inner")
	inner.SetLimit(2)
	open := func(s *ledger.Scope) (*ledger.Ticket, error) { return ledger.Enter(t.Context(), s, "dial", &closer{}) }
	first, _ := open(inner)
	if _, err := open(inner); err != nil {
		t.Fatal(err)
	}
	var limit *ledger.LimitError
	if _, err := open(inner); !errors.As(err, &limit) || limit.Limit != 2 || limit.Scope != "outer/inner" || limit.Of != 1 ||
		!strings.HasPrefix(err.Error(), `scope "outer/inner" has the 2 open that it may have, 1 of them opened by ledger_test.TestLimit`) {
		t.Errorf("got %v", err)
	}
	if _, err := open(outer); err != nil {
		t.Error(err)
	}
	first.Leave()
	if err := ledger.Room(inner.Context(t.Context()), nil); err != nil {
		t.Error(err)
	}
	if _, err := open(inner); err != nil {
		t.Error(err)
	}
	first.Leave() // again
	if _, err := open(outer); !errors.As(err, &limit) || limit.Scope != "outer" {
		t.Errorf("got %v", err)
	}
	outer.SetLimit(0)
	if _, err := open(outer); err != nil {
		t.Error(err)
	}
	if left := outer.Close(); len(left) != 4 {
		t.Errorf("%d were open", len(left))
	}
}

// Whatever cannot be closed, Close returns, and the others are closed.
func TestCloseDoesNotWait(t *testing.T) {
	t.Parallel()
	s, hangs := ledger.NewScope("stuck"), make(chan struct{})
	var stuck, free []*closer
	for range 100 {
		stuck, free = append(stuck, &closer{hangs: hangs}), append(free, &closer{})
		enter(t, t.Context(), s, stuck[len(stuck)-1])
		enter(t, t.Context(), s, free[len(free)-1])
	}
	began := time.Now()
	if left := s.Close(); len(left) != 200 || len(s.Open()) != 0 {
		t.Errorf("closed %d, and %d are left", len(left), len(s.Open()))
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Close took %v", took)
	}
	closed := func(what string, all []*closer) { // at once, or as soon as an overloaded machine gets to it
		t.Helper()
		for deadline := time.Now().Add(time.Minute); slices.ContainsFunc(all, func(c *closer) bool { return c.times() != 1 }); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("one that %s was never closed", what)
			}
		}
	}
	closed("could be closed", free)
	close(hangs)
	closed("hung", stuck)
}

// What the garbage collector finds is taken out and counted.
func TestDropped(t *testing.T) {
	t.Parallel()
	s := ledger.NewScope("dropped")
	for _, shared := range []bool{false, true} {
		owner := &closer{}
		ticket := enter(t, t.Context(), s, &closer{})
		if shared {
			ticket.Share()
		}
		runtime.AddCleanup(owner, (*ledger.Ticket).Drop, ticket)
	}
	for deadline := time.Now().Add(time.Minute); len(s.Open()) > 0; time.Sleep(time.Millisecond) {
		runtime.GC()
		if time.Now().After(deadline) {
			t.Fatal("it is still there")
		}
	}
	lost := ledger.Dropped()
	i := slices.IndexFunc(lost, func(d ledger.Loss) bool {
		return slices.ContainsFunc(d.Stack, func(f ledger.Frame) bool { return strings.HasSuffix(f.Function, ".TestDropped") })
	})
	if i < 0 || lost[i].Count != 1 {
		t.Errorf("dropped are %+v", lost)
	}
}

func TestOnOpen(t *testing.T) {
	t.Parallel()
	s, told := ledger.NewScope("told"), make(chan ledger.Entry, 10)
	stop := ledger.OnOpen(func(e ledger.Entry) {
		if e.Scope == "told" {
			told <- e
		}
	})
	enter(t, t.Context(), s, &closer{})
	stop()
	enter(t, t.Context(), s, &closer{})
	if len(told) != 1 || (<-told).ID != s.Open()[0].ID {
		t.Errorf("told of %d", len(told))
	}
}

// 100,000 entries are listed, written and closed.
//
// It is run before TestProfile, which makes everything slower.
func TestMany(t *testing.T) {
	const many = 100_000
	s := ledger.NewScope("many")
	for range many {
		if _, err := ledger.Enter(t.Context(), s, "dial", &closer{}); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if n := len(s.Open()); n != many {
		t.Errorf("%d open", n)
	}
	listed := time.Since(began)
	if err := ledger.Write(io.Discard); err != nil {
		t.Error(err)
	}
	written := time.Since(began) - listed
	if n := len(s.Close()); n != many {
		t.Errorf("%d closed", n)
	}
	t.Logf("%d entries: listed in %v, written in %v, closed in %v", many, listed, written, time.Since(began)-listed-written)
}

// The leaf of each stack in the profile is who opened it.
func TestProfile(t *testing.T) {
	profile := ledger.Profile()
	if profile != pprof.Lookup("lifeline") || profile != ledger.Profile() {
		t.Fatal("package runtime/pprof does not know it")
	}
	before := profile.Count()
	ticket := enter(t, t.Context(), nil, &closer{})
	if profile.Count() != before+1 {
		t.Errorf("%d in the profile, %d before", profile.Count(), before)
	}
	var text strings.Builder
	if err := profile.WriteTo(&text, 1); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(text.String(), "\n")
	i := slices.IndexFunc(lines, func(s string) bool { return strings.Contains(s, "ledger_test.enter") })
	if i < 1 || !strings.Contains(lines[i-1], " @ ") || !strings.Contains(lines[i+1], "TestProfile") {
		t.Errorf("the stack does not begin with who opened it:\n%s", text.String())
	}
	ticket.Leave()
	if profile.Count() != before {
		t.Error("what was closed is still in the profile")
	}
}

// Opening, closing, listing and closing scopes at the same time, in scopes that
// come and go.
func TestTogether(t *testing.T) {
	t.Parallel()
	top := ledger.NewScope("top")
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 100 {
				s := top.NewScope(fmt.Sprint(g))
				var tickets []*ledger.Ticket
				for range 10 {
					ticket, err := ledger.Enter(s.Context(context.Background()), nil, "dial", &closer{})
					if err != nil {
						t.Error(err)
						return
					}
					tickets = append(tickets, ticket)
				}
				switch i % 4 {
				case 0:
					_ = top.Open()
				case 1:
					s.SetLimit(i)
				}
				for _, ticket := range tickets[:5] {
					ticket.Use()
					ticket.Leave()
				}
				if left := s.Close(); len(left) != 5 {
					t.Errorf("%d were left", len(left))
				}
			}
		})
	}
	all.Wait()
	if open := top.Open(); len(open) != 0 {
		t.Errorf("%d are left", len(open))
	}
}

func BenchmarkEnter(b *testing.B) {
	s, c := ledger.NewScope("bench"), &closer{}
	b.ReportAllocs()
	for b.Loop() {
		ticket, err := ledger.Enter(b.Context(), s, "dial", c)
		if err != nil {
			b.Fatal(err)
		}
		ticket.Leave()
	}
}
