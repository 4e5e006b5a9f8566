//go:build unix

package names

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// script is a program in the place of getent.
func script(t *testing.T, text string) getentWay {
	t.Helper()
	path := filepath.Join(t.TempDir(), "getent")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return getentWay{path}
}

// A getent that does not end is killed, and waited for.
func TestGetentIsKilled(t *testing.T) {
	note := filepath.Join(t.TempDir(), "pid")
	way := script(t, "echo $$ >"+note+".new; mv "+note+".new "+note+"; exec sleep 1000\n")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := way.Lookup(ctx, "ip", "db.corp")
		ended <- err
	}()
	var pid int
	for deadline := time.Now().Add(20 * time.Second); pid == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if text, err := os.ReadFile(note); err == nil {
			pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := syscall.Kill(pid, 0); pid == 0 || !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d: %v", pid, err)
	}
	if len(children) != 0 {
		t.Errorf("%d of the places are taken", len(children))
	}
}

func TestGetentSays(t *testing.T) {
	var e *net.DNSError
	if _, err := script(t, "exit 2\n").Lookup(t.Context(), "ip", "db.corp"); !errors.As(err, &e) || e.IsNotFound || !errors.Is(err, errVague) {
		t.Errorf("nothing found: %v", err)
	}
	if _, err := script(t, "exit 3\n").Lookup(t.Context(), "ip", "db.corp"); err == nil || errors.Is(err, errVague) {
		t.Errorf("enumeration not supported: %v", err)
	}
	if addrs, err := script(t, "echo '10.0.0.1 STREAM db.corp'; echo '10.0.0.1 DGRAM'; echo '::ffff:10.0.0.2 STREAM'; echo x\n").Lookup(t.Context(), "ip", "db.corp"); err != nil || len(addrs) != 2 {
		t.Errorf("%v, %v", addrs, err)
	}
	if addrs, err := script(t, "yes '10.0.0.1 STREAM db.corp'\n").Lookup(t.Context(), "ip", "db.corp"); err == nil {
		t.Errorf("without end: %v", addrs)
	}
	if _, err := (getentWay{}).Lookup(t.Context(), "ip", "db.corp"); err == nil {
		t.Error("there is none")
	}
}
