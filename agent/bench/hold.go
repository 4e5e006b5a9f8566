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
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
)

// holdersEach is how many processes share the sockets of one protocol.
const holdersEach = 2

// holders are processes that hold open sockets.
type holders []holder

type holder struct {
	cmd   *exec.Cmd
	input io.WriteCloser // the process ends when it ends
}

// startHolders starts processes that hold as many sockets, and waits until all
// are open. What has started is returned even with an error: stop it.
func startHolders(ctx context.Context, tcp, unixes int) (holders, error) {
	var all holders
	for range holdersEach {
		for network, n := range map[string]int{"tcp": tcp / holdersEach, "unix": unixes / holdersEach} {
			h, err := startHolder(ctx, nil, "pairs", network, strconv.Itoa(n))
			if err != nil {
				return all, fmt.Errorf("process to hold %d %s sockets: %w", n, network, err)
			}
			all = append(all, h)
		}
	}
	return all, nil
}

// startHolder starts this program as a holder on a host, or here when on is
// nil, and waits until it holds all it should. It ends with this process, be it
// killed: its standard input does.
func startHolder(ctx context.Context, on *lab.Host, args ...string) (holder, error) {
	self, err := os.Executable()
	if err != nil {
		return holder{}, err
	}
	args = append([]string{"hold"}, args...)
	cmd := exec.Command(self, args...)
	if on != nil {
		cmd = on.Command(self, args...)
	}
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
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	ready := make([]byte, 1)
	if _, err := io.ReadFull(output, ready); err != nil {
		return holder{}, errors.Join(context.Cause(ctx), err, input.Close(), cmd.Wait())
	}
	return holder{cmd, input}, nil
}

// start tells those that send to begin.
func (all holders) start() {
	for _, h := range all {
		_, _ = h.input.Write([]byte{'.'})
	}
}

// stop ends the processes and waits for them.
func (all holders) stop() {
	for _, h := range all {
		_ = h.input.Close()
	}
	for _, h := range all {
		_ = h.cmd.Wait()
	}
}

// hold is a holder: it opens what args say, tells so with one byte, and holds
// it until standard input ends.
func hold(_ context.Context, args []string) error {
	var h held
	defer h.close()
	for len(args) < 6 {
		args = append(args, "")
	}
	number, _ := strconv.Atoi(args[2])
	var err error
	switch args[0] {
	case "pairs":
		err = h.pairs(args[1], number)
	case "serve":
		err = h.serve(args[1])
	case "dial":
		from, _ := strconv.Atoi(args[4])
		spread, unset := time.ParseDuration(args[5])
		if unset != nil {
			spread = probed
		}
		err = h.dial(args[1], number, from, spread)
	case "answer":
		err = h.answer(args[1])
	case "work":
		life, _ := time.ParseDuration(args[3])
		return workFor(args[1], number, life)
	default:
		err = fmt.Errorf("hold is for bench itself; %q is nothing to hold", args[0])
	}
	if err != nil {
		return err
	}
	if _, err := os.Stdout.Write([]byte{'.'}); err != nil {
		return err
	}
	if pause, _ := time.ParseDuration(args[3]); pause > 0 {
		if n, _ := os.Stdin.Read(make([]byte, 1)); n == 0 {
			return nil // ended before it began to send
		}
		go h.send(pause)
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// held is what a holder holds.
type held struct {
	mu   sync.Mutex
	open []io.Closer
}

func (h *held) keep(c io.Closer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open = append(h.open, c)
}

func (h *held) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.open {
		_ = c.Close()
	}
}

// pairs opens n sockets, both ends of each connection.
func (h *held) pairs(network string, n int) error {
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
	h.keep(l)
	for range n / 2 {
		client, err := net.Dial(network, l.Addr().String())
		if err != nil {
			return err
		}
		h.keep(client)
		server, err := l.Accept()
		if err != nil {
			return err
		}
		h.keep(server)
	}
	return nil
}

// serve accepts connections and reads what comes, as a server does.
func (h *held) serve(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	h.keep(l)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.keep(c)
			go func() {
				for b := make([]byte, 64); ; {
					if _, err := c.Read(b); err != nil {
						return
					}
				}
			}()
		}
	}()
	return nil
}

// probed is as long as package net leaves connections idle before it probes.
const probed = 15 * time.Second

// dial opens n connections, from so many addresses of clients where that is not
// 0. They are spread over a while: otherwise all would be probed at once, for ever.
func (h *held) dial(address string, n, from int, spread time.Duration) error {
	began, dialer := time.Now(), net.Dialer{Timeout: 10 * time.Second}
	for i := range n {
		time.Sleep(time.Until(began.Add(spread * time.Duration(i) / time.Duration(n))))
		if from > 0 {
			dialer.LocalAddr = clientAt(i % from)
		}
		c, err := dialer.Dial("tcp", address)
		if err != nil {
			return err
		}
		h.keep(c)
	}
	return nil
}

// send writes a byte on one connection after the other, with a pause between.
func (h *held) send(pause time.Duration) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for i := 0; ; i++ {
		<-tick.C
		_, _ = h.open[i%len(h.open)].(io.Writer).Write([]byte{1})
	}
}
