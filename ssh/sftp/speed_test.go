package sftp_test

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/need"
	"github.com/lifeline-go/lifeline/ssh/sftp"
)

// random makes a file of random bytes.
func random(t testing.TB, file string, size int64) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.Reader, size); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkBesideOpenSSH copies 1 GiB both ways, by turns with OpenSSH's sftp on
// the same cipher, and reports how many times as fast it is.
func BenchmarkBesideOpenSSH(b *testing.B) {
	besideOpenSSH(b, 1<<30, max(b.N, 3))
}

// TestSpeed is the same for a small file, where it is what a connection costs
// that dominates sftp's time.
func TestSpeed(t *testing.T) { besideOpenSSH(t, 8<<20, 1) }

func besideOpenSSH(t testing.TB, size int64, rounds int) {
	need.Program(t, "sftp")
	d := startSSHD(t)
	const cipher = "aes128-gcm@openssh.com"
	d.config.Protocol.Ciphers = []string{cipher}
	c := open(t, d.dial(t), sftp.Options{})
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	random(t, source, size)
	_, port, _ := net.SplitHostPort(d.Addr)
	theirs := func(command string) time.Duration {
		cmd := exec.Command("sftp", "-q", "-b", "-", "-F", "none", "-c", cipher, "-i", d.MeFile, "-P", port, "-o", "StrictHostKeyChecking=no",
			"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", d.config.User+"@127.0.0.1")
		cmd.Stdin = strings.NewReader(command + "\n")
		began := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return time.Since(began)
	}
	ours := func(copy func() error) time.Duration {
		began := time.Now()
		if err := copy(); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	target := filepath.Join(dir, "target")
	for _, way := range []string{"put", "get"} {
		var mine, other []time.Duration
		for range rounds { // by turns, so that other load hits both
			other = append(other, theirs(fmt.Sprintf("%s %s %s", way, source, target)))
			os.Remove(target)
			mine = append(mine, ours(func() (err error) {
				if way == "put" {
					_, err = c.Put(t.Context(), source, target, sftp.Copy{})
				} else {
					_, err = c.Get(t.Context(), source, target, sftp.Copy{})
				}
				return err
			}))
			os.Remove(target)
		}
		slices.Sort(mine)
		slices.Sort(other)
		m, o := mine[len(mine)/2], other[len(other)/2]
		rate := func(d time.Duration) float64 { return float64(size) / d.Seconds() / 1e6 }
		t.Logf("%s of %d MiB: %.0f MB/s here, %.0f MB/s by sftp: %.2f times as fast", way, size>>20, rate(m), rate(o), float64(o)/float64(m))
		if b, ok := t.(*testing.B); ok {
			b.ReportMetric(float64(o)/float64(m), way+"/sftp")
		}
	}
}
