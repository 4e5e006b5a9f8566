package sockdiag

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// The benchmarks read 15,000 TCP and 15,000 unix sockets in a namespace of
// their own. BenchmarkBareDump is the floor: what the kernel takes.

func BenchmarkRead(b *testing.B) {
	crowded(b, func(inode uint32) error {
		for b.Loop() {
			sockets, err := Read(nil, inode, Want{})
			if err != nil || len(sockets) < 2*crowd {
				return fmt.Errorf("%d sockets: %w", len(sockets), err)
			}
		}
		return nil
	})
}

func BenchmarkReadAgain(b *testing.B) {
	crowded(b, func(inode uint32) error {
		var sockets []fact.Socket
		for b.Loop() {
			var err error
			if sockets, err = Read(sockets[:0], inode, Want{}); err != nil {
				return err
			}
		}
		return nil
	})
}

func BenchmarkBareDump(b *testing.B) {
	crowded(b, func(uint32) error {
		for b.Loop() {
			messages, bytes, err := Drain(Want{})
			if err != nil || messages < 2*crowd {
				return fmt.Errorf("%d sockets in %d bytes: %w", messages, bytes, err)
			}
		}
		return nil
	})
}

// BenchmarkEmpty is what a namespace costs before its first socket: the kernel
// walks the tables that all namespaces share.
func BenchmarkEmpty(b *testing.B) {
	quiet(b, func(inode uint32) error {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Read(nil, inode, Want{}); err != nil {
				return err
			}
		}
		return nil
	})
}

const crowd = 15_000

// crowded runs fn in a namespace with crowd TCP and crowd unix sockets, held by
// two more processes, as one may not be allowed that many files.
func crowded(b *testing.B, fn func(inode uint32) error) {
	quiet(b, func(inode uint32) error {
		for _, kind := range []string{"tcp", "unix"} {
			stop, err := holder(kind)
			if err != nil {
				return err
			}
			defer stop()
		}
		b.ReportAllocs()
		return fn(inode)
	})
}

// holdVariable makes this test binary a holder of crowd sockets.
const holdVariable = "SOCKDIAG_TEST_HOLD"

// holder starts a holder in the namespace of the calling thread and returns
// when it has its sockets.
func holder(kind string) (stop func(), err error) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdVariable+"="+kind)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() { in.Close(); cmd.Wait() }
	if answer, _ := io.ReadAll(out); string(answer) != "ready" {
		stop()
		return nil, fmt.Errorf("holder of %s sockets: %s", kind, answer)
	}
	return stop, nil
}

// hold makes sockets, says so, and keeps them until its input ends.
func hold(kind string) {
	var fds closer
	err := fds.crowd(kind)
	if err != nil {
		fmt.Print(err)
	} else {
		fmt.Print("ready")
	}
	os.Stdout.Close()
	if err == nil {
		io.Copy(io.Discard, os.Stdin)
	}
	fds.close()
}

func (c *closer) crowd(kind string) error {
	listener, err := c.listen(unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, 128)
	for range crowd / 2 {
		if err != nil {
			return err
		}
		if kind == "tcp" {
			_, _, err = c.connection(listener)
		} else {
			_, _, err = c.pair(unix.SOCK_STREAM)
		}
	}
	return err
}
