package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/ssh/sftp"
)

const (
	copyAim  = 0.9 // of the rate of OpenSSH's sftp
	copyTurn = 3   // copies each way, by turns
	inMemory = "/dev/shm"
)

// copies measures copies of a file both ways, from memory to memory, with a new
// connection for each as the program sftp has it.
func copies(ctx context.Context, s *servers, mib int64, cipher string) error {
	var room unix.Statfs_t
	if err := unix.Statfs(inMemory, &room); err != nil || int64(room.Bavail)*room.Bsize < (2*mib+64)<<20 {
		fmt.Printf("ssh: %s has no room for two files of %d MiB: copies are left out\n\n", inMemory, mib)
		return nil
	}
	if _, err := exec.LookPath("sftp"); err != nil {
		fmt.Println("sftp is not installed: copies are left out")
		return nil
	}
	dir, err := os.MkdirTemp(inMemory, "lifeline-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c := copier{servers: s, source: filepath.Join(dir, "source"), target: filepath.Join(dir, "target")}
	if err := random(c.source, mib<<20); err != nil {
		return err
	}
	t := newTable("ssh: copies of %d MiB from memory to memory by %s, %d each way, in turns", mib, cipher, copyTurn)
	for _, way := range []string{"put", "get"} {
		var ours, theirs []time.Duration
		for range copyTurn {
			their, err := c.timed(func() error { return c.theirs(ctx, cipher, way) })
			if err != nil {
				return fmt.Errorf("sftp: %w", err)
			}
			our, err := c.timed(func() error { return c.ours(ctx, cipher, way) })
			if err != nil {
				return err
			}
			ours, theirs = append(ours, our), append(theirs, their)
		}
		slices.Sort(ours)
		slices.Sort(theirs)
		our, their := ours[copyTurn/2], theirs[copyTurn/2]
		rate := ratio(their, our)
		t.took(way+", sftp", their, 0)
		t.took(way+", package ssh/sftp", our, 0)
		t.row("  rate of package ssh/sftp beside it", fmt.Sprintf("%.2f", rate), fmt.Sprintf("≥ %v", copyAim), rate/copyAim)
	}
	return t.print()
}

type copier struct {
	*servers
	source, target string
}

// timed measures one copy, and removes it.
func (c copier) timed(copy func() error) (time.Duration, error) {
	began := time.Now()
	err := copy()
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	from, err := os.Stat(c.source)
	if err != nil {
		return 0, err
	}
	to, err := os.Stat(c.target)
	if err != nil {
		return 0, err
	}
	if from.Size() != to.Size() {
		return 0, fmt.Errorf("%d of %d bytes were copied", to.Size(), from.Size())
	}
	return took, os.Remove(c.target)
}

func (c copier) theirs(ctx context.Context, cipher, way string) error {
	inside := c.near.Command("sftp", "-q", "-b", "-", "-F", c.file("config"), "-c", cipher, c.addrs[0])
	cmd := exec.CommandContext(ctx, inside.Path, inside.Args[1:]...)
	cmd.Stdin = strings.NewReader(way + " " + c.source + " " + c.target + "\n")
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (c copier) ours(ctx context.Context, cipher, way string) error {
	client, err := c.dial(ctx, c.addrs[0], xssh.Config{Ciphers: []string{cipher}})
	if err != nil {
		return err
	}
	files, err := sftp.New(ctx, client, sftp.Options{})
	if err != nil {
		return errors.Join(err, client.Close())
	}
	if way == "put" {
		_, err = files.Put(ctx, c.source, c.target, sftp.Copy{})
	} else {
		_, err = files.Get(ctx, c.source, c.target, sftp.Copy{})
	}
	return errors.Join(err, files.Close(), client.Close())
}

func random(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.Reader, size)
	return errors.Join(err, f.Close())
}
