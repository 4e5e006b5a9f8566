package leaker

import (
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/need"
)

// A program that becomes another while it is read, again and again, does no harm
// to the look and gets none: whatever is told of it has the lines of the program
// that opened it, and the last one is told of as one that never did so.
func TestExecInTheMiddleOfARead(t *testing.T) {
	need.Root(t)
	t.Parallel()
	path := build(t, Build{Flags: []string{"-buildmode=pie"}}, Standard) // which lies elsewhere each time
	_, address := start(t, true, nil, path, "serve", "tcp", "127.0.0.1:0")
	pid, _ := start(t, false, nil, path, "again", "tcp", address, "100", "5ms")
	o := openers(t, pid, true) // it has begun already
	looks, settled := 0, 0
	for begin := time.Now(); settled < 30; looks++ {
		all, err := o.Look(t.Context())
		if err == nil {
			err = o.Ends(t.Context(), all)
		}
		if err != nil {
			t.Fatalf("look %d: %v", looks, err)
		}
		named := 0
		for _, one := range all.Open {
			if one.PID != pid {
				t.Fatalf("process %d was not asked for: %+v", one.PID, one)
			}
			for _, call := range one.At.Calls { // never the line of something else
				switch call.Func {
				case "main.probe":
					named++
				case "main.again", "main.main":
				default:
					if strings.HasPrefix(call.Func, "main.") {
						t.Fatalf("look %d names %s", looks, call.Func)
					}
				}
			}
		}
		if settled++; named != 10 || len(all.Open) != 10 {
			settled = 0
		}
		if time.Since(begin) > time.Minute {
			t.Fatalf("after %d looks %d of the last program's 10 connections are named, %d are open: %+v", looks, named, len(all.Open), all.Open[0].At)
		}
		time.Sleep(time.Millisecond)
	}
	t.Logf("%d looks at a program that became another 100 times", looks)
}

// A program that a shell becomes is told of by its own lines, also when the shell
// was known before it opened anything.
func TestShellThatBecomesAProgram(t *testing.T) {
	need.Root(t)
	t.Parallel()
	path := build(t, Build{}, Standard)
	_, address := start(t, true, nil, path, "serve", "tcp", "127.0.0.1:0")
	pid, _ := start(t, false, nil, "/bin/sh", "-c", "sleep 5; exec "+path+" plain tcp "+address+" 3 1ms")
	o := openers(t, pid, false)
	if err := o.Follow(pid); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		all, err := o.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(all.Open) == 3 {
			for _, one := range all.Open {
				if len(one.At.Calls) == 0 || one.At.Unknown != "" {
					t.Errorf("it is told of as %+v", one.At)
				}
			}
			return
		}
		if time.Since(begin) > time.Minute {
			t.Fatalf("%d connections are open, 3 are right", len(all.Open))
		}
	}
}
