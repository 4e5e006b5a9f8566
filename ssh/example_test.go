package ssh_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/lifeline-go/lifeline/ssh"
)

func Example() {
	home, err := os.UserHomeDir()
	if err != nil {
		fmt.Println(err)
		return
	}
	config := ssh.Config{
		User:       "admin",
		Agent:      os.Getenv("SSH_AUTH_SOCK"),
		KnownHosts: &ssh.KnownHosts{Files: []string{filepath.Join(home, ".ssh", "known_hosts")}},
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := ssh.Dial(ctx, "web1", config)
	if err != nil {
		fmt.Println(err) // ssh: web1: handshake: its budget Handshake of 10 s is used up, after 10 s
		return
	}
	defer client.Close()

	cmd := client.Command("systemctl restart " + ssh.Quote("my service"))
	cmd.Budgets.IdleOutput = 30 * time.Second
	out, err := cmd.CombinedOutput(ctx)
	var failed *ssh.Error
	var exit *ssh.ExitError
	switch {
	case err == nil:
		fmt.Printf("%s", out)
	case errors.As(err, &exit):
		fmt.Printf("status %d: %s", exit.Status, out)
	case errors.As(err, &failed) && failed.Fate == ssh.NotSent:
		fmt.Println("safe to try again:", err)
	case errors.Is(err, ssh.ErrSilent):
		fmt.Println("the server is gone:", err)
	default:
		fmt.Println("it may have run:", err)
	}
}

// A pool runs commands on many hosts, here by way of one jump host.
func ExamplePool() {
	var bastion *ssh.Client // from Dial
	var config ssh.Config
	pool := &ssh.Pool{Connect: func(ctx context.Context, host string) (*ssh.Client, error) {
		return bastion.Jump(ctx, host, config)
	}}
	defer pool.Close()
	result, err := pool.Run(context.Background(), "db1", "uptime")
	fmt.Println(string(result.Stdout), err)
}
