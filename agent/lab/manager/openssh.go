//go:build linux

package manager

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// openSSH is the program ssh, one for each call, by way of one that stays in the
// background for each connection: ControlMaster with ControlPersist.
type openSSH struct {
	dir   string
	alive bool // ServerAliveInterval
	conns atomic.Int32
}

const exitTime = 2 * time.Second // for a master to obey

func (o *openSSH) connect(_ context.Context, addr string) (connection, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	interval := time.Duration(0)
	socket := "mux"
	if o.alive {
		interval, socket = aliveInterval, "alive"
	}
	c := &openSSHConn{openSSH: o, host: host, options: []string{"-F", "none"}}
	for _, option := range []string{
		"ControlMaster=auto", "ControlPersist=10m", "ControlPath=" + filepath.Join(o.dir, fmt.Sprintf("%s-%d", socket, o.conns.Add(1))),
		fmt.Sprintf("ServerAliveInterval=%d", int(interval.Seconds())), fmt.Sprintf("ServerAliveCountMax=%d", aliveCount),
		fmt.Sprintf("ConnectTimeout=%d", int(connectTimeout.Seconds())),
		"IdentityFile=" + filepath.Join(o.dir, "user"), "IdentitiesOnly=yes", "PasswordAuthentication=no", "KbdInteractiveAuthentication=no",
		"UserKnownHostsFile=" + filepath.Join(o.dir, "known_hosts"), "StrictHostKeyChecking=yes", "LogLevel=ERROR",
	} {
		c.options = append(c.options, "-o", option)
	}
	// With ControlMaster=auto the first command makes the connection.
	return c, nil
}

type openSSHConn struct {
	*openSSH
	host    string
	options []string
}

func (c *openSSHConn) run(ctx context.Context, line string, output io.Writer) error {
	cmd := exec.CommandContext(ctx, "ssh", append(c.options, c.host, line)...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = output, &said
	cmd.WaitDelay = time.Second // the one in the background may keep them
	err := cmd.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(said.String()), "\n")
	return fmt.Errorf("ssh: %w: %s", err, cmp.Or(strings.TrimSpace(lines[len(lines)-1]), "it said nothing"))
}

// close tells the one in the background to go.
func (c *openSSHConn) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, exitTime)
	defer cancel()
	_ = exec.CommandContext(ctx, "ssh", append(c.options, "-O", "exit", c.host)...).Run() // it may be gone, or stuck
}
