package node

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case "hold":
			hold(os.Args[2])
			return
		case "dial":
			dialUntilKilled(os.Args[2], os.Args[3])
			return
		case "watch":
			watchUntilKilled(os.Args[2])
			return
		}
	}
	if err := flag.Set("test.parallel", "64"); err != nil { // they wait most of the time
		panic(err)
	}
	leakcheck.Main(m)
}

// hold is the program inside a container: it opens some sockets, says so, and
// waits until standard input ends.
func hold(dir string) {
	all := openAll(func(err error) { fmt.Fprintln(os.Stderr, err); os.Exit(1) }, dir)
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	for _, c := range all {
		_ = c.Close()
	}
}

// openAll opens sockets of several kinds on the loopback of the calling
// thread's namespace. Names are addresses, so that net opens them on this
// thread.
func openAll(fatal func(error), dir string) (all []io.Closer) {
	must := func(c io.Closer, err error) io.Closer {
		if err != nil {
			fatal(err)
		}
		all = append(all, c)
		return c
	}
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		l := must(net.Listen("tcp", address)).(net.Listener)
		port := l.Addr().(*net.TCPAddr).Port
		to := net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) // to [::] it is v4-mapped at the other end
		if address == "[::1]:0" {
			to = net.JoinHostPort("::1", strconv.Itoa(port))
		}
		must(net.Dial("tcp", to))
		must(l.Accept())
		must(net.Dial("tcp", to)) // stays in the accept queue, without an inode
	}
	u := must(net.Listen("unix", filepath.Join(dir, "socket"))).(net.Listener)
	must(net.Dial("unix", u.Addr().String()))
	must(u.Accept())
	udp := must(net.ListenPacket("udp", "127.0.0.1:0")).(net.PacketConn)
	must(net.Dial("udp", udp.LocalAddr().String()))
	return all
}

// lookAt takes one look at one namespace.
func lookAt(t *testing.T, n *Node, path string) *fact.Machine {
	t.Helper()
	one, err := ParseNamespaces(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := n.Look(context.Background(), Want{Namespaces: one})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range m.Blind {
		if b.Source == "sockets" {
			t.Errorf("blind as root: %+v", b)
		}
	}
	return m
}

// rows are sockets as netid, state, queues, inode and owners: what must be the
// same here as in ss. Addresses are compared in the tests of sockdiag.
func rows(m *fact.Machine) []string {
	netid := map[fact.Protocol]string{fact.TCP: "tcp", fact.UDP: "udp", fact.UnixStream: "u_str", fact.UnixDatagram: "u_dgr", fact.UnixSeqpacket: "u_seq"}
	var list []string
	for _, s := range m.Sockets {
		var owners []string
		for _, o := range s.Owners {
			owners = append(owners, fmt.Sprintf("pid=%d,fd=%d", o.PID, o.FD))
		}
		slices.Sort(owners)
		list = append(list, fmt.Sprintf("%s %d %d ino:%d %v", netid[s.Protocol], s.RecvQueue, s.SendQueue, s.Inode, owners))
	}
	slices.Sort(list)
	return list
}

var (
	ssOwner = regexp.MustCompile(`pid=\d+,fd=\d+`)
	ssInode = regexp.MustCompile(`ino:(\d+)`)
)

// ssRows reads the same from ss -H -tuxanpe.
func ssRows(t *testing.T, output string) []string {
	t.Helper()
	var list []string
	for line := range strings.Lines(output) {
		f := strings.Fields(line)
		if strings.HasPrefix(line, "Failed to find cgroup2 mount") {
			continue // ss looks for one in its place, and goes on
		}
		if len(f) < 6 {
			t.Fatalf("cannot read the line of ss: %s", line)
		}
		inode := "0"
		if m := ssInode.FindStringSubmatch(line); m != nil {
			inode = m[1]
		}
		if strings.HasPrefix(f[0], "u_") {
			inode = f[5]
		}
		owners := ssOwner.FindAllString(line, -1)
		slices.Sort(owners)
		list = append(list, fmt.Sprintf("%s %s %s ino:%s %v", f[0], f[2], f[3], inode, owners))
	}
	slices.Sort(list)
	return list
}

func compare(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("we see\n  %s\nss sees\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestAgreesWithSSInANamespace(t *testing.T) {
	need.Program(t, "ss")
	host := lab.New(t).Host("a")
	var open []io.Closer
	if err := host.Do(func() error {
		open = openAll(func(err error) { t.Error(err) }, t.TempDir())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	defer closeAll(open)
	want := ssRows(t, host.Run("ss", "-H", "-tuxanpe"))
	if len(want) < 20 {
		t.Fatalf("ss shows only %d sockets", len(want))
	}
	for _, without := range []bool{false, true} {
		t.Run(fmt.Sprintf("without BPF %v", without), func(t *testing.T) {
			n := New()
			n.withoutBPF = without
			defer n.Close()
			compare(t, rows(lookAt(t, n, host.Path())), want)
		})
	}
}

// Both ways must tell the same bound for every connection: with BPF unset
// options are the sysctl's, without they are those in force.
func TestBoundsWithAndWithoutBPF(t *testing.T) {
	host := lab.New(t).Host("a")
	host.Sysctl("net.ipv4.tcp_keepalive_time", "77")
	var open []io.Closer
	if err := host.Do(func() error {
		open = openAll(func(err error) { t.Error(err) }, t.TempDir())
		silent := net.Dialer{KeepAlive: -1}
		c, err := silent.Dial("tcp", open[0].(net.Listener).Addr().String())
		open = append(open, c)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer closeAll(open)
	bounds := func(without bool) map[uint64]string {
		n := New()
		n.withoutBPF = without
		defer n.Close()
		m := lookAt(t, n, host.Path())
		all := make(map[uint64]string)
		for i := range m.Sockets {
			if s := &m.Sockets[i]; s.Protocol == fact.TCP && s.State == fact.Established && s.Inode != 0 {
				c, ok := m.BoundConn(s)
				if !ok {
					t.Errorf("without BPF %v: no bound for %v → %v", without, s.Local, s.Remote)
				}
				all[s.Cookie] = fmt.Sprintf("%v %v", c.Idle(), c.Sending())
			}
		}
		return all
	}
	with, without := bounds(false), bounds(true)
	if len(with) < 7 || !maps.Equal(with, without) {
		t.Errorf("with BPF %v, without %v", with, without)
	}
}

func closeAll(list []io.Closer) {
	for _, c := range list {
		_ = c.Close()
	}
}

// A container is a process in namespaces of its own, PIDs included: seen from
// the host, its sockets must have the owners that the host's ss shows.
func TestAgreesWithSSInAContainer(t *testing.T) {
	need.Root(t)
	for _, name := range []string{"ss", "unshare", "nsenter"} {
		need.Program(t, name)
	}
	dir := t.TempDir()
	cmd := exec.Command("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount", "--propagation", "unchanged",
		"sh", "-c", `mount --make-private /proc && mount -t proc proc /proc && ip link set lo up && exec "$0" hold "$1"`, os.Args[0], dir)
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = input.Close(); _ = cmd.Wait() }()
	if line, err := bufio.NewReader(output).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the container says %q, %v", line, err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(string(children))
	ss, err := exec.Command("nsenter", "-t", pid, "-n", "ss", "-H", "-tuxanpe").CombinedOutput()
	if err != nil {
		t.Fatalf("ss: %v: %s", err, ss)
	}
	n := New()
	defer n.Close()
	compare(t, rows(lookAt(t, n, "/proc/"+pid+"/ns/net")), ssRows(t, string(ss)))

	m, err := n.Look(context.Background(), Want{})
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	held := 0
	for _, s := range m.Sockets {
		if slices.ContainsFunc(s.Owners, func(o fact.Owner) bool { return o.PID == int32(number) }) {
			held++
		}
	}
	if held < 15 {
		t.Errorf("a look at all namespaces finds %d sockets of the container", held)
	}
}

// Namespaces and processes that go away during a look are never an error of the
// look, and never a panic.
func TestEverythingComesAndGoes(t *testing.T) {
	need.Root(t)
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	churned := make(chan struct{})
	go func() {
		defer close(churned)
		for ctx.Err() == nil {
			_ = exec.CommandContext(ctx, "unshare", "--net", "sh", "-c", "ip link set lo up; sleep 0.01").Run()
		}
	}()
	n := New()
	defer n.Close()
	for i := 0; ctx.Err() == nil; i++ {
		n.withoutBPF = i%2 == 1
		if _, err := n.Look(context.Background(), Want{Full: i%3 == 0}); err != nil {
			t.Errorf("look %d: %v", i, err)
		}
	}
	cancel()
	<-churned
}

func TestWatchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	n := New()
	defer n.Close()
	if _, err := n.Watch(ctx, time.Hour, Want{}); err == nil {
		t.Error("an hour's watch ends without an error when its context does")
	}
}

func TestWatchKnowsTheEarlierLook(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the executables of processes with sockets are looked at
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := New()
	defer n.Close()
	m, err := n.Watch(context.Background(), 20*time.Millisecond, Want{Full: true})
	if err != nil {
		t.Fatal(err)
	}
	if m.Earlier == nil || m.Time.Sub(m.Earlier.Time) < 20*time.Millisecond {
		t.Errorf("the earlier look is %v", m.Earlier)
	}
	self := m.Process(int32(os.Getpid()))
	if self == nil || self.Program == nil || self.Program.Go == "" || !self.Files.OK {
		t.Errorf("this process is seen as %+v", self)
	}
	if m.Names == nil {
		t.Error("name resolution was not looked at")
	}
}

func TestParseNamespaces(t *testing.T) {
	for _, good := range []string{"", "all", "self", strconv.Itoa(os.Getpid()), "/proc/self/ns/net"} {
		if _, err := ParseNamespaces(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"nowhere", "2147483647", "/no/such/file", "-1"} {
		if _, err := ParseNamespaces(bad); err == nil {
			t.Errorf("%q is taken as a namespace", bad)
		}
	}
}
