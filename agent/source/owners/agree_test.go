package owners

import (
	"cmp"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/bpf"
	"github.com/lifeline-go/lifeline/agent/source/pidfd"
	"github.com/lifeline-go/lifeline/bound"
	"github.com/lifeline-go/lifeline/internal/need"
)

// held is a descriptor that a child holds.
type held struct {
	fact.Owned
	Name   string
	Thread bool // only in the file table of a thread
}

// holding is what a child says of itself.
type holding struct {
	Sysctl bound.Options // what holds where a socket sets nothing
	Held   []held
}

// tuned is what a program sets on a socket; in want, zero is the sysctl.
var tuned = []struct {
	name   string
	family int
	mapped bool
	want   bound.Options
}{
	{name: "untouched", family: unix.AF_INET},
	{name: "untouched IPv6", family: unix.AF_INET6},
	{name: "on", family: unix.AF_INET, want: bound.Options{KeepAlive: true}},
	{name: "all", family: unix.AF_INET, want: bound.Options{KeepAlive: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}},
	{name: "all IPv6", family: unix.AF_INET6, want: bound.Options{KeepAlive: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 4, UserTimeout: 7 * time.Second}},
	{name: "mapped", family: unix.AF_INET6, mapped: true, want: bound.Options{KeepAlive: true, Idle: 45 * time.Second, Interval: 15 * time.Second, Count: 9}},
	{name: "off but tuned", family: unix.AF_INET, want: bound.Options{Idle: time.Second, Interval: 2 * time.Second, Count: 1}},
	{name: "timeout alone", family: unix.AF_INET, want: bound.Options{UserTimeout: 20001 * time.Millisecond}},
}

// init keeps the first thread for hold, so that the other one there is not the
// leader of its group.
func init() {
	if strings.HasPrefix(os.Getenv(childMode), "hold") {
		runtime.LockOSThread()
	}
}

// hold makes one of each, says what it made, and holds it until stdin ends.
func hold(alone bool) {
	if alone {
		raiseLoopback()
	}
	var all []held
	add := func(name string, fd int, options fact.Known[bound.Options], thread bool) {
		var stat unix.Stat_t
		check(unix.Fstat(fd, &stat))
		owner := fact.Owner{PID: int32(os.Getpid()), FD: int32(fd)}
		all = append(all, held{fact.Owned{Owner: owner, Inode: uint32(stat.Ino), Options: options}, name, thread})
	}
	for _, t := range tuned {
		fd := open(t.family, unix.SOCK_STREAM, 0)
		if t.mapped {
			listener := open(unix.AF_INET, unix.SOCK_STREAM, 0)
			check(unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
			check(unix.Listen(listener, 1))
			add("listener", listener, fact.Seen(bound.Options{}), false)
			name, err := unix.Getsockname(listener)
			check(err)
			to := &unix.SockaddrInet6{Port: name.(*unix.SockaddrInet4).Port}
			to.Addr[10], to.Addr[11], to.Addr[12], to.Addr[15] = 0xff, 0xff, 127, 1
			check(unix.Connect(fd, to))
		}
		tune(fd, t.want)
		add(t.name, fd, fact.Seen(t.want), false)
	}
	again, err := unix.Dup(int(all[0].FD))
	check(err)
	add("dup", again, fact.Seen(bound.Options{}), false)
	add("UDP", open(unix.AF_INET, unix.SOCK_DGRAM, 0), fact.Known[bound.Options]{}, false)
	add("UDP IPv6", open(unix.AF_INET6, unix.SOCK_DGRAM, 0), fact.Known[bound.Options]{}, false)
	add("netlink", open(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG), fact.Known[bound.Options]{}, false)
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		pair, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		check(err)
		add("unix", pair[0], fact.Known[bound.Options]{}, false)
		add("unix", pair[1], fact.Known[bound.Options]{}, false)
	}

	done := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		check(unix.Unshare(unix.CLONE_FILES))
		add("thread's own", open(unix.AF_INET, unix.SOCK_STREAM, 0), fact.Seen(bound.Options{}), true)
		close(done)
		select {}
	}()
	<-done

	check(json.NewEncoder(os.Stdout).Encode(holding{sysctl(), all}))
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// raiseLoopback brings up lo, which is down in a new network namespace.
func raiseLoopback() {
	lo, err := unix.NewIfreq("lo")
	check(err)
	lo.SetUint16(unix.IFF_UP)
	fd := open(unix.AF_INET, unix.SOCK_DGRAM, 0)
	defer unix.Close(fd)
	check(unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo))
}

// sysctl reads what holds in the namespace of this process.
func sysctl() bound.Options {
	number := func(name string) (n int) {
		text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_keepalive_" + name)
		check(err)
		n, err = strconv.Atoi(strings.TrimSpace(string(text)))
		check(err)
		return n
	}
	return bound.Options{
		Idle:     time.Duration(number("time")) * time.Second,
		Interval: time.Duration(number("intvl")) * time.Second,
		Count:    number("probes"),
	}
}

func open(family, kind, protocol int) int {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	check(err)
	return fd
}

// tune sets what is not zero.
func tune(fd int, o bound.Options) {
	set := func(level, name, value int) {
		if value != 0 {
			check(unix.SetsockoptInt(fd, level, name, value))
		}
	}
	if o.KeepAlive {
		set(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	}
	set(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(o.Idle/time.Second))
	set(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(o.Interval/time.Second))
	set(unix.IPPROTO_TCP, unix.TCP_KEEPCNT, o.Count)
	set(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(o.UserTimeout/time.Millisecond))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// start starts a child that holds sockets until the test ends, and returns its
// PID as we know it.
func start(t *testing.T, mode string, attr *syscall.SysProcAttr) (int32, holding) {
	t.Helper()
	cmd := command(t, mode)
	cmd.SysProcAttr = attr
	out := begin(t, cmd)
	var h holding
	if err := json.NewDecoder(out).Decode(&h); err != nil {
		t.Fatal(err)
	}
	return int32(cmd.Process.Pid), h
}

// begin starts a child that ends with its standard input, at the end of the
// test, and returns its standard output.
func begin(t *testing.T, cmd *exec.Cmd) io.Reader {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	return out
}

func readBPF(t *testing.T) []fact.Owned {
	t.Helper()
	o, err := bpf.Open()
	need.Feature(t, "BPF iterators over files", err)
	defer o.Close()
	all, err := o.Read(nil)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// of returns what was seen of one process, by descriptor.
func of(all []fact.Owned, pid int32) map[int32]fact.Owned {
	fds := make(map[int32]fact.Owned)
	for _, o := range all {
		if o.PID == pid {
			fds[o.FD] = o
		}
	}
	return fds
}

// TestAgree asks all three sources for the same children, of other users and
// in other namespaces, and holds them to what the children made.
func TestAgree(t *testing.T) {
	need.Root(t)
	for _, c := range []struct {
		name, mode string
		attr       *syscall.SysProcAttr
	}{
		{"here", "hold", nil},
		{"other user", "hold", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}},
		{"other namespaces", "hold alone", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWPID}},
	} {
		t.Run(c.name, func(t *testing.T) {
			pid, child := start(t, c.mode, c.attr)
			walked, _ := Walk(nil)
			byBPF, byWalk := of(readBPF(t), pid), of(walked, pid)
			for _, h := range child.Held {
				got, ok := byBPF[h.FD]
				if !ok || got.Inode != h.Inode || got.Options != h.Options || h.Options.OK && got.Netns == 0 {
					t.Errorf("%s, descriptor %d: BPF says %+v, want %+v", h.Name, h.FD, got, h.Owned)
				}
				got, ok = byWalk[h.FD]
				if ok == h.Thread || ok && (got.Inode != h.Inode || got.Options.OK) {
					t.Errorf("%s, descriptor %d: the walk says %+v, want %+v", h.Name, h.FD, got, h.Owned)
				}
			}
			if len(byBPF) != len(child.Held) || len(byWalk) != len(child.Held)-1 {
				t.Errorf("%d by BPF and %d by the walk, want %d and one less", len(byBPF), len(byWalk), len(child.Held))
			}
			agreeOptions(t, child, byWalk)
		})
	}
}

// agreeOptions borrows what the walk found, and expects the options that the
// child set, or the sysctl where it set none.
func agreeOptions(t *testing.T, child holding, walked map[int32]fact.Owned) {
	t.Helper()
	var sockets []fact.Socket
	var wants []held
	for _, h := range child.Held {
		s := fact.Socket{Protocol: fact.TCP, Inode: h.Inode, Owners: []fact.Owner{walked[h.FD].Owner}}
		switch {
		case h.Thread:
			continue
		case !h.Options.OK:
			s.Protocol = fact.UDP
		}
		sockets, wants = append(sockets, s), append(wants, h)
	}
	if blind := pidfd.Options(t.Context(), sockets); len(blind) > 0 {
		t.Errorf("blind: %+v", blind)
	}
	for i, h := range wants {
		want := h.Options
		if want.OK {
			want.Value.Idle = cmp.Or(want.Value.Idle, child.Sysctl.Idle)
			want.Value.Interval = cmp.Or(want.Value.Interval, child.Sysctl.Interval)
			want.Value.Count = cmp.Or(want.Value.Count, child.Sysctl.Count)
		}
		if got := sockets[i].Options; got != want {
			t.Errorf("%s, descriptor %d: pidfd says %+v, want %+v", h.Name, h.FD, got, want)
		}
	}
}

// TestAgreeShared has one socket in three processes.
func TestAgreeShared(t *testing.T) {
	need.Root(t)
	file := udp(t)
	want := []fact.Owner{{PID: int32(os.Getpid()), FD: int32(file.Fd())}}
	for range 2 {
		cmd := command(t, "wait")
		cmd.ExtraFiles = []*os.File{file}
		begin(t, cmd)
		want = append(want, fact.Owner{PID: int32(cmd.Process.Pid), FD: 3})
	}
	slices.SortFunc(want, func(a, b fact.Owner) int { return cmp.Compare(a.PID, b.PID) })
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	walked, _ := Walk(nil)
	for name, all := range map[string][]fact.Owned{"BPF": readBPF(t), "the walk": walked} {
		var got []fact.Owner
		for _, o := range all {
			if o.Inode == uint32(stat.Ino) {
				got = append(got, o.Owner)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s says %v, want %v", name, got, want)
		}
	}
}
