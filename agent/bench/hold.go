package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// holdersEach is how many processes share the sockets of one protocol.
const holdersEach = 2

// holders are processes that hold open sockets.
type holders []holder

type holder struct {
	cmd   *exec.Cmd
	input io.Closer // the process ends when it ends
}

// startHolders starts processes that hold as many sockets, and waits until all
// are open. What has started is returned even with an error: stop it.
func startHolders(ctx context.Context, tcp, unixes int) (holders, error) {
	var all holders
	for range holdersEach {
		for network, n := range map[string]int{"tcp": tcp / holdersEach, "unix": unixes / holdersEach} {
			h, err := startHolder(ctx, network, n)
			if err != nil {
				return all, fmt.Errorf("process to hold %d %s sockets: %w", n, network, err)
			}
			all = append(all, h)
		}
	}
	return all, nil
}

func startHolder(ctx context.Context, network string, n int) (holder, error) {
	self, err := os.Executable()
	if err != nil {
		return holder{}, err
	}
	cmd := exec.CommandContext(ctx, self, "-hold", network, strconv.Itoa(n))
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		return holder{}, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return holder{}, err
	}
	if err := cmd.Start(); err != nil {
		return holder{}, err
	}
	ready := make([]byte, 1)
	if _, err := io.ReadFull(output, ready); err != nil {
		return holder{}, errors.Join(err, input.Close(), cmd.Wait())
	}
	return holder{cmd, input}, nil
}

// stop ends the processes and waits for them.
func (all holders) stop() {
	for _, h := range all {
		_ = h.input.Close()
		_ = h.cmd.Wait()
	}
}

// holdSockets opens n sockets, both ends of each connection, says so with one
// byte, and holds them until standard input ends.
func holdSockets(network, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	address := "127.0.0.1:0"
	if network == "unix" {
		dir, err := os.MkdirTemp("", "lifeline-bench")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		address = filepath.Join(dir, "socket")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	defer l.Close()
	open := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for len(open)+2 <= n {
		client, err := net.Dial(network, l.Addr().String())
		if err != nil {
			return err
		}
		server, err := l.Accept()
		if err != nil {
			return err
		}
		open = append(open, client, server)
	}
	if _, err := os.Stdout.Write([]byte{'.'}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
