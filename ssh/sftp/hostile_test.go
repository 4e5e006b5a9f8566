package sftp_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/opensshd"
	"github.com/lifeline-go/lifeline/ssh"
	"github.com/lifeline-go/lifeline/ssh/sftp"
	xssh "golang.org/x/crypto/ssh"
)

// hostile is a server whose answers a test makes up: what it says to each
// request, without the length; empty is nothing.
type hostile func(kind byte, id []byte, body []byte) string

// connect returns sftp over a connection to such a server.
func (h hostile) connect(t *testing.T, options sftp.Options) (*sftp.Client, *ssh.Client, error) {
	t.Helper()
	host, _ := opensshd.Key(t, t.TempDir(), "host")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		config := &xssh.ServerConfig{NoClientAuth: true}
		config.AddHostKey(host)
		_, channels, requests, err := xssh.NewServerConn(conn, config)
		if err != nil {
			return
		}
		go xssh.DiscardRequests(requests)
		for opened := range channels {
			channel, requests, err := opened.Accept()
			if err != nil {
				return
			}
			go func() {
				for r := range requests {
					_ = r.Reply(true, nil)
				}
			}()
			go func() { h.serve(channel); channel.Close() }()
		}
	}()
	client, err := ssh.Dial(t.Context(), ln.Addr().String(), ssh.Config{User: "me", HostKey: xssh.FixedHostKey(host.PublicKey())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	c, err := sftp.New(t.Context(), client, options)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, client, err
}

func (h hostile) serve(channel io.ReadWriter) {
	for {
		var head [4]byte
		if _, err := io.ReadFull(channel, head[:]); err != nil {
			return
		}
		p := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(channel, p); err != nil {
			return
		}
		said := h(p[0], p[1:5], p[5:])
		if said == "" && p[0] == 1 {
			said = "\x02\x00\x00\x00\x03"
		}
		if said != "" {
			if _, err := io.WriteString(channel, u32(len(said))+said); err != nil {
				return
			}
		}
	}
}

func u32(n int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }
func str(s string) string {
	return u32(len(s)) + s
}

const (
	aDirectory = "\x00\x00\x00\x04\x00\x00\x41\xed"
	aFile      = "\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x81\xa4" // of 16 bytes
	aLink      = "\x00\x00\x00\x04\x00\x00\xa1\xff"
)

// tree is a server that has one directory with one name in it, again and again.
func tree(name, attributes string) hostile {
	listed := map[string]bool{}
	return func(kind byte, id, body []byte) string {
		switch kind {
		case 7, 8, 17: // lstat, fstat, stat
			if kind == 17 {
				return "\x69" + string(id) + aDirectory
			}
			return "\x69" + string(id) + attributes
		case 3, 11: // open, opendir
			return "\x66" + string(id) + string(body[:4+binary.BigEndian.Uint32(body)])
		case 12: // readdir
			if listed[string(body)] {
				return "\x65" + string(id) + u32(1)
			}
			listed[string(body)] = true
			return "\x68" + string(id) + u32(1) + str(name) + str("") + attributes
		case 5:
			if binary.BigEndian.Uint64(body[len(body)-12:]) > 0 {
				return "\x65" + string(id) + u32(1)
			}
			return "\x67" + string(id) + str("0123456789abcdef")
		case 19:
			return "\x68" + string(id) + u32(1) + str("/etc") + str("") + u32(0)
		case 1:
			return ""
		}
		return "\x65" + string(id) + u32(0)
	}
}

// Names that are none, and links that would lead out, write nothing outside.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"../escaped", "/escaped", "a/b", "", "x\x00y"} {
		c, client, err := tree(name, aFile).connect(t, sftp.Options{})
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		_, err = c.Get(t.Context(), "/d", filepath.Join(dir, "in"), sftp.Copy{Tree: true})
		if !errors.Is(err, sftp.ErrName) {
			t.Errorf("%q: %v", name, err)
		}
		alone(t, dir, "in")
		alone(t, filepath.Join(dir, "in"))
		if client.Err() != nil {
			t.Error(client.Err())
		}
	}
	// A link is there that leads out, and then the server says that it is a directory.
	c, _, err := tree("sub", aDirectory).connect(t, sftp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "sub")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), "/d", dir, sftp.Copy{Tree: true}); err == nil {
		t.Error("it went through the link")
	}
	alone(t, outside)
	// Directories in one another without end.
	if c, _, err = tree("sub", aDirectory).connect(t, sftp.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), "/d", filepath.Join(t.TempDir(), "x"), sftp.Copy{Tree: true}); err == nil || len(err.Error()) > 3000 {
		t.Errorf("endless directories: %v", err)
	}
	c, _, err = tree("l", aLink).connect(t, sftp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if result, err := c.Get(t.Context(), "/d", dir, sftp.Copy{Tree: true}); err != nil || len(result.Skipped) != 1 {
		t.Errorf("%+v, %v", result, err)
	}
	alone(t, dir)
}

// Answers that are none end the channel with a clear error, at once, and nothing
// worse.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	read := func(said func(id string) string) hostile {
		return func(kind byte, id, body []byte) string {
			switch kind {
			case 1:
				return ""
			case 5:
				return said(string(id))
			case 8, 17:
				return "\x69" + string(id) + aFile
			}
			return "\x66" + string(id) + str("h")
		}
	}
	all := func(said func(id string) string) hostile {
		return func(kind byte, id, _ []byte) string {
			if kind == 1 {
				return ""
			}
			return said(string(id))
		}
	}
	for name, h := range map[string]hostile{
		"more data than asked for":  read(func(id string) string { return "\x67" + id + str(strings.Repeat("x", 200<<10)) }),
		"no data":                   read(func(id string) string { return "\x67" + id + str("") }),
		"data that say to be more":  read(func(id string) string { return "\x67" + id + u32(100) + "x" }),
		"data that say to be huge":  read(func(id string) string { return "\x67" + id + u32(math.MaxUint32) + "x" }),
		"data without length":       read(func(id string) string { return "\x67" + id }),
		"a read that is well":       read(func(id string) string { return "\x65" + id + u32(0) }),
		"a status without a code":   read(func(id string) string { return "\x65" + id + "\x00" }),
		"an answer to nothing":      all(func(string) string { return "\x65\x00\x00\xff\xff" + u32(0) }),
		"attributes that end early": all(func(id string) string { return "\x69" + id + "\x00\x00\x00\x0f\x00" }),
		"endless attributes":        all(func(id string) string { return "\x69" + id + "\x80\x00\x00\x00" + u32(math.MaxUint32) }),
		"another kind":              all(func(id string) string { return "\x02" + id }),
		"a packet that is too long": all(func(id string) string { return "\x69" + id + strings.Repeat("x", 1<<20) }),
		"a packet that is too short": all(func(id string) string {
			return "\x69"
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, client, err := h.connect(t, sftp.Options{})
			if err != nil {
				t.Fatal(err)
			}
			into := t.TempDir()
			_, err = c.Get(t.Context(), "/f", filepath.Join(into, "x"), sftp.Copy{})
			t.Log(err)
			if !errors.Is(err, sftp.ErrProtocol) {
				t.Error(err)
			}
			alone(t, into)
			if client.Err() != nil {
				t.Error(client.Err())
			}
		})
	}
}

func TestHostileGreeting(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]error{
		"Welcome to this server!\n":    sftp.ErrProtocol,
		"\x02\x00\x00\x00\x06":         sftp.ErrProtocol,
		"\x02\x00":                     sftp.ErrProtocol,
		strings.Repeat("\x02", 300000): sftp.ErrProtocol,
	} {
		_, client, err := hostile(func(byte, []byte, []byte) string { return said }).connect(t, sftp.Options{})
		if !errors.Is(err, want) {
			t.Errorf("%.20q: %v", said, err)
		}
		if client.Err() != nil {
			t.Error(client.Err())
		}
	}
	began := time.Now()
	over := make(chan struct{})
	defer close(over)
	_, client, err := hostile(func(byte, []byte, []byte) string { <-over; return "\x02\x00\x00\x00\x03" }).connect(t, sftp.Options{Idle: s / 2})
	if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > 15*s || client.Err() != nil {
		t.Errorf("%v after %v", err, took)
	}
}
