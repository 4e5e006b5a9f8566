//go:build unix

package sftp_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/need"
	"github.com/lifeline-go/lifeline/ssh"
	"github.com/lifeline-go/lifeline/ssh/sftp"
)

// children returns the processes that a process has started.
func children(t *testing.T, pid int) (found []int) {
	t.Helper()
	all, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, _ := os.ReadFile("/proc/" + e.Name() + "/stat")
		_, after, _ := strings.Cut(string(stat), ") ")
		if fields := strings.Fields(after); len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			found = append(found, child)
		}
	}
	return found
}

// freeze stops a process until the end of the test.
func freeze(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
}

// midway copies, calls what is to happen when a part is there, and returns how
// long after that the error came.
func midway(t *testing.T, c *sftp.Client, copy copyFunc, happens func()) (source, target string, took time.Duration, err error) {
	t.Helper()
	source, target = filepath.Join(t.TempDir(), "source"), filepath.Join(t.TempDir(), "target")
	random(t, source, 16<<20)
	before := time.Now().Add(-time.Hour)
	if err := os.Chtimes(source, before, before); err != nil {
		t.Fatal(err)
	}
	var at time.Time
	_, err = copy(t.Context(), c, source, target, sftp.Copy{Resume: true, Progress: func(p sftp.Progress) {
		if at.IsZero() {
			happens()
			at = time.Now()
		}
	}})
	if at.IsZero() {
		t.Fatalf("nothing was copied: %v", err)
	}
	return source, target, time.Since(at), err
}

// resumed continues a copy by another connection.
func resumed(t *testing.T, d *sshd, copy copyFunc, source, target string) {
	t.Helper()
	c := open(t, d.dial(t), sftp.Options{})
	result, err := copy(t.Context(), c, source, target, sftp.Copy{Resume: true})
	if err != nil || result.Resumed == 0 {
		t.Errorf("%+v, %v", result, err)
	}
	equal(t, source, target)
	alone(t, filepath.Dir(target), "target")
}

// The whole server freezes in the middle of a copy: the call ends with the
// silence that is allowed, and so does the connection.
func TestServerFrozen(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, copy copyFunc) {
		d := startSSHD(t)
		d.config.Liveness.Silence = s
		client := d.dial(t)
		c := open(t, client, sftp.Options{})
		session := children(t, d.Process.Pid)
		if len(session) != 1 {
			t.Fatalf("%d sessions", len(session))
		}
		source, target, took, err := midway(t, c, copy, func() { freeze(t, session[0]) })
		t.Logf("after %v: %v", took, err)
		var e *ssh.Error
		if !errors.Is(err, ssh.ErrSilent) || !errors.As(err, &e) || e.Phase != sftp.Copying || took > 30*s {
			t.Errorf("%v after %v", err, took)
		}
		if !errors.Is(client.Err(), ssh.ErrSilent) {
			t.Errorf("the connection: %v", client.Err())
		}
		d.config.Liveness = ssh.Liveness{}
		resumed(t, d, copy, source, target)
	})
}

// Only sftp freezes: its channel is closed within Idle, and the connection lives.
func TestSFTPFrozen(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, copy copyFunc) {
		d := startSSHD(t)
		client := d.dial(t)
		c := open(t, client, sftp.Options{Idle: 5 * s}) // a busy machine says nothing for long, too
		session := children(t, d.Process.Pid)
		if len(session) != 1 {
			t.Fatalf("%d sessions", len(session))
		}
		server := children(t, session[0])
		if len(server) != 1 {
			t.Fatalf("%d servers of sftp", len(server))
		}
		source, target, took, err := midway(t, c, copy, func() { freeze(t, server[0]) })
		t.Logf("after %v: %v", took, err)
		var budget *ssh.BudgetError
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &budget) || budget.Budget != "Idle" || took > 30*s {
			t.Errorf("%v after %v", err, took)
		}
		if err := client.Command("true").Run(t.Context()); err != nil {
			t.Errorf("the connection: %v", err)
		}
		if _, err := copy(t.Context(), c, source, target, sftp.Copy{}); !errors.As(err, &budget) {
			t.Errorf("the next copy: %v", err)
		}
		resumed(t, d, copy, source, target)
	})
}

func TestServerKilled(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, copy copyFunc) {
		d := startSSHD(t)
		client := d.dial(t)
		c := open(t, client, sftp.Options{})
		session := children(t, d.Process.Pid)
		server := children(t, session[0])
		source, target, took, err := midway(t, c, copy, func() { _ = syscall.Kill(server[0], syscall.SIGKILL) })
		if !errors.Is(err, sftp.ErrEnded) || took > 30*s {
			t.Errorf("sftp-server: %v after %v", err, took)
		}
		if err := client.Command("true").Run(t.Context()); err != nil {
			t.Errorf("the connection: %v", err)
		}
		resumed(t, d, copy, source, target)
		c = open(t, client, sftp.Options{})
		source, target, took, err = midway(t, c, copy, func() { _ = syscall.Kill(session[0], syscall.SIGKILL) })
		if !errors.Is(err, ssh.ErrDisconnected) || took > 30*s {
			t.Errorf("sshd: %v after %v", err, took)
		}
		resumed(t, d, copy, source, target)
	})
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	need.Root(t) // to mount
	bothWays(t, func(t *testing.T, copy copyFunc) {
		c, _ := files(t, sftp.Options{})
		full := t.TempDir()
		if err := mount(full, "size=4m"); err != nil {
			need.Feature(t, "tmpfs", err)
		}
		t.Cleanup(func() { _ = unmount(full) })
		source := filepath.Join(t.TempDir(), "source")
		random(t, source, 12<<20)
		for _, resume := range []bool{false, true} {
			_, err := copy(t.Context(), c, source, filepath.Join(full, "target"), sftp.Copy{Resume: resume})
			t.Log(err)
			if !errors.Is(err, sftp.ErrNoSpace) && !errors.Is(err, syscall.ENOSPC) {
				t.Error(err)
			}
		}
		alone(t, full, ".target.lifeline-part")
		if err := os.Truncate(source, 3<<20); err != nil { // now it fits
			t.Fatal(err)
		}
		if _, err := copy(t.Context(), c, source, filepath.Join(full, "target"), sftp.Copy{}); err != nil {
			t.Error(err)
		}
		alone(t, full, "target")
	})
}

// A user of the server's without rights.
func TestPermissionDenied(t *testing.T) {
	t.Parallel()
	d := startSSHD(t, "AllowUsers nobody", "ForceCommand internal-sftp")
	d.config.User = "nobody"
	for dir := filepath.Dir(d.MeFile); len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) { // so that nobody can read authorized_keys
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(filepath.Dir(d.MeFile), "authorized_keys"), 0o644); err != nil {
		t.Fatal(err)
	}
	client := d.dial(t)
	c := open(t, client, sftp.Options{})
	dir := t.TempDir()
	for _, try := range []func() (sftp.Result, error){
		func() (sftp.Result, error) {
			return c.Put(t.Context(), "/etc/hostname", "/etc/lifeline-test", sftp.Copy{})
		},
		func() (sftp.Result, error) {
			return c.Put(t.Context(), "/etc/hostname", "/etc/lifeline-test", sftp.Copy{Resume: true})
		},
		func() (sftp.Result, error) { return c.Get(t.Context(), "/etc/shadow", t.TempDir(), sftp.Copy{}) },
		func() (sftp.Result, error) {
			return c.Get(t.Context(), "/etc/shadow", filepath.Join(dir, "none/x"), sftp.Copy{Parents: true})
		},
		func() (sftp.Result, error) {
			return c.Get(t.Context(), "/root", filepath.Join(dir, "none/x"), sftp.Copy{Tree: true, Parents: true})
		},
		func() (sftp.Result, error) {
			return c.Get(t.Context(), "/root", filepath.Join(t.TempDir(), "x"), sftp.Copy{Tree: true})
		},
	} {
		_, err := try()
		t.Log(err)
		if !errors.Is(err, fs.ErrPermission) {
			t.Error(err)
		}
	}
	if _, err := c.Get(t.Context(), "/etc/passwd", t.TempDir(), sftp.Copy{}); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("directories were made for copies that could not begin: %v, %v", left, err)
	}
	if _, err := c.Get(t.Context(), "/etc/passwd", filepath.Join(dir, "a/b"), sftp.Copy{Parents: true}); err != nil {
		t.Error(err)
	}
	equal(t, "/etc/passwd", filepath.Join(dir, "a/b"))
}
