package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/fleet"
	"github.com/lifeline-go/lifeline/agent/nodeset"
)

// plan checks the flags; every error says how to say it right.
func (f *sshFlags) plan(cmd *cobra.Command, args []string) (p fleet.Plan, err error) {
	sets, words := args, []string(nil)
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		sets, words = args[:dash], args[dash:]
	}
	switch {
	case len(words) > 0 && f.script != "":
		return p, errors.New("a command and --script are two ways to say what to run: take one")
	case f.hosts == "-" && f.script == "-":
		return p, errors.New("--hosts and --script cannot both be standard input")
	case f.window < 1:
		return p, fmt.Errorf("-j %d is no number of hosts: take one from 1", f.window)
	case f.retry < 0:
		return p, fmt.Errorf("--retry %d is less than none", f.retry)
	case f.timeout <= 0 || f.connectTime <= 0:
		return p, errors.New("--timeout and --connect-timeout must be longer than nothing: take 30s or 5m")
	}
	p = fleet.Plan{Window: f.window, Timeout: f.timeout, Connect: f.connectTime, Retries: f.retry, Pty: f.pty}
	if p.Hosts, err = f.nodes(cmd, sets); err != nil {
		return p, err
	}
	for _, text := range f.serial {
		share, err := fleet.ParseShare(text)
		if err == nil && text == "0" {
			err = errors.New("0 would never come to an end: take 3 or 10%")
		}
		if err != nil {
			return p, fmt.Errorf("--serial %w", err)
		}
		p.Batches = append(p.Batches, share)
	}
	if f.maxFail != "" {
		if p.MaxFail, err = fleet.ParseShare(f.maxFail); err != nil {
			return p, fmt.Errorf("--max-fail %w", err)
		}
	}
	err = f.steps(cmd, len(sets), words, &p)
	return p, err
}

// steps sets what is to be done. Commands from standard input are run as they
// come, and the plan has a script then; in batches hosts do all of it one after
// the other, so it is read first. Who forgets -- must not have standard input run:
// the command looks like one more word of HOSTS.
func (f *sshFlags) steps(cmd *cobra.Command, sets int, words []string, p *fleet.Plan) error {
	puts, err := f.puts()
	if err != nil {
		return err
	}
	gets, err := f.gets(p.Hosts)
	if err != nil {
		return err
	}
	f.after = gets
	p.Steps = puts
	fromInput := f.script == "-" || len(words) == 0 && f.script == "" && len(puts)+len(gets) == 0
	switch inBatches := len(f.serial) > 0 || f.maxFail != ""; {
	case fromInput && f.script == "" && sets > 1:
		return errors.New("no command: put it behind --, as in lifeline ssh web[1-3] -- uptime; without one, name all hosts in one word, as in web1,web2, and commands are read from standard input")
	case fromInput && f.hosts == "-":
		return errors.New("no command: standard input has the hosts already; put it behind --, or in a file for --script")
	case fromInput && inBatches && typed(cmd):
		return errors.New("commands that are typed go to all hosts at once: for --serial and --max-fail put one behind --, or several in a file for --script")
	case fromInput && !inBatches:
		p.Script = &fleet.Script{}
		return nil
	case fromInput:
		f.script = "-"
	}
	if len(words) > 0 || f.script != "" {
		lines, err := f.commands(cmd, words)
		if err != nil {
			return err
		}
		for _, line := range lines {
			p.Steps = append(p.Steps, fleet.Step{Command: line})
		}
	}
	p.Steps = append(p.Steps, gets...)
	return nil
}

// nodes returns the hosts that are meant.
func (f *sshFlags) nodes(cmd *cobra.Command, sets []string) ([]string, error) {
	var s nodeset.Set
	for _, set := range sets {
		if len(f.put) > 0 && isFile(set) {
			return nil, fmt.Errorf("%q is a file here: to copy several, say --put for each (for a host of that name, use --hosts)", set)
		}
		if err := s.Add(set); err != nil {
			return nil, err
		}
	}
	if f.hosts != "" {
		text, err := readInput(cmd, f.hosts)
		if err != nil {
			return nil, fmt.Errorf("--hosts: %w", err)
		}
		if err := s.AddLines(text); err != nil {
			return nil, fmt.Errorf("--hosts %s: %w", f.hosts, err)
		}
	}
	names := s.Names()
	if len(names) == 0 {
		return nil, errors.New("no hosts: name them before --, as in lifeline ssh web[1-3] -- uptime, or in a file for --hosts")
	}
	return names, nil
}

// commands returns what is to be run.
func (f *sshFlags) commands(cmd *cobra.Command, words []string) (lines []string, err error) {
	if f.script == "" {
		line := strings.Join(words, " ") // as in main of OpenSSH's ssh.c
		if strings.ContainsRune(line, 0) {
			return nil, errNul
		}
		return []string{line}, nil
	}
	text, err := readInput(cmd, f.script)
	if err != nil {
		return nil, fmt.Errorf("--script: %w", err)
	}
	for line := range strings.Lines(text) {
		line, err = command(line)
		if err != nil {
			return nil, fmt.Errorf("--script %s: %w", f.script, err)
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("--script %s: there is no command in it", f.script)
	}
	return lines, nil
}

// command returns the command in a line, or "" for a comment.
func command(line string) (string, error) {
	line = strings.TrimSpace(line)
	switch {
	case strings.ContainsRune(line, 0):
		return "", errNul
	case strings.HasPrefix(line, "#"):
		return "", nil
	}
	return line, nil
}

var errNul = errors.New("the command has a character of code 0")

// mostInput is how much of a list of hosts or commands is read.
const mostInput = 16 << 20

// readInput reads a file, or standard input, which may take for ever: then it is
// left behind.
func readInput(cmd *cobra.Command, name string) (string, error) {
	type input struct {
		text string
		err  error
	}
	done := make(chan input, 1)
	go func() {
		text, err := readAll(name, cmd.InOrStdin())
		done <- input{text, err}
	}()
	select {
	case i := <-done:
		return i.text, i.err
	case <-cmd.Context().Done():
		return "", context.Cause(cmd.Context())
	}
}

func readAll(name string, stdin io.Reader) (string, error) {
	from := stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer file.Close()
		from = file
	}
	text, err := io.ReadAll(io.LimitReader(from, mostInput+1))
	if err == nil && len(text) > mostInput {
		err = fmt.Errorf("%s has more than %d MiB", name, mostInput>>20)
	}
	return string(text), err
}
