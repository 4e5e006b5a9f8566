//go:build linux

package run_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run"
	"github.com/lifeline-go/lifeline/agent/act/run/launch"
	"github.com/lifeline-go/lifeline/agent/act/run/notify"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

// The test binary is all of the programs that a test runs.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "keeper":
			keeper(os.Args[2:])
		case "front":
			front(os.Args[2:])
		case "client":
			client(os.Args[2:])
		}
	}
	leakcheck.Main(m)
}

var keeperCommand = []string{"/proc/self/exe", "keeper"}

func keeper(args []string) {
	kept := launch.Keep(args, os.Environ())
	if path := os.Getenv("UNTIL"); path != "" {
		until(path)
	}
	if err := run.Keep(context.Background(), kept, keeperCommand, system{}); err != nil {
		fmt.Fprintln(os.Stderr, "keeper:", err)
		os.Exit(3)
	}
	os.Exit(0)
}

// until waits for a file.
func until(path string) {
	for range 3000 {
		if _, err := os.Stat(path); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func front(args []string) {
	flags := flag.NewFlagSet("front", flag.ExitOnError)
	via := flags.String("via", "", "")
	all := flags.Bool("all", false, "")
	report := flags.Bool("report", false, "")
	docker := flags.Bool("docker", false, "deny pidfd_getfd, as Docker's profile does")
	busy := flags.Bool("busy", false, "have a listener that is another's")
	_ = flags.Parse(args)
	if *docker {
		denyGetfd()
	}
	if *busy {
		elsesListener()
	}
	p := run.Program{Path: flags.Arg(0), Args: flags.Args(), Env: os.Environ(), Keeper: launch.Begin(keeperCommand, flags.Args(), os.Environ()), Via: run.Way(*via), All: *all, Report: *report}
	status, r, err := run.Front(context.Background(), p, func() run.Resolver { return system{} }, func(way run.Way, why string) {
		fmt.Fprintln(os.Stderr, "way:", way, why)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "front:", err)
		os.Exit(125)
	}
	if *report {
		for _, c := range r.Counts {
			fmt.Fprintf(os.Stderr, "%s: %s %s %d\n", c.Program, c.Reason, c.Error, c.Times)
		}
		fmt.Fprintf(os.Stderr, "answered %d refused %d lost %v\n", r.Answered, r.Refused, r.Lost)
	}
	status.Mirror(os.Exit)
}

// denyGetfd makes pidfd_getfd(2) fail in this process and all that it starts.
func denyGetfd() {
	statement := func(code uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: code, K: k, Jt: yes, Jf: no}
	}
	p := []unix.SockFilter{
		statement(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0, 0, 0),
		statement(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, unix.SYS_PIDFD_GETFD, 0, 1),
		statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM), 0, 0),
		statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW, 0, 0),
	}
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	_ = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		panic(errno)
	}
}

// elsesListener starts this program again under a listener that lets all go on.
func elsesListener() {
	if os.Getenv("ELSES_LISTENER") != "" {
		return
	}
	os.Setenv("ELSES_LISTENER", "1")
	runtime.LockOSThread()
	listener, err := notify.Filter{}.Install()
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			var c notify.Call
			if listener.Receive(&c) != nil {
				return
			}
			listener.Continue(c.ID)
		}
	}()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...) // from this thread, which is locked
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	_ = cmd.Run()
	os.Exit(cmd.ProcessState.ExitCode())
}

// client looks names up, each of them times, by many threads of its own.
func client(args []string) {
	flags := flag.NewFlagSet("client", flag.ExitOnError)
	threads := flags.Int("threads", 1, "")
	times := flags.Int("times", 1, "")
	tcp := flags.Bool("tcp", false, "")
	noise := flags.Duration("signals", 0, "send this process a signal each")
	local := flags.String("local", "", "address to send from")
	device := flags.String("device", "", "interface to bind to")
	pause := flags.Duration("pause", 0, "between lookups")
	_ = flags.Parse(args)
	if *noise > 0 {
		go func() {
			for range time.Tick(*noise) {
				_ = unix.Kill(unix.Getpid(), unix.SIGURG)
			}
		}()
	}
	resolver := &net.Resolver{PreferGo: true}
	resolver.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		if *tcp {
			network = "tcp"
		}
		if *local != "" {
			d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(*local)}
		}
		if *device != "" {
			d.Control = func(_, _ string, c syscall.RawConn) (err error) {
				_ = c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), *device) })
				return err
			}
		}
		return d.DialContext(ctx, network, address)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	failed, slowest := 0, time.Duration(0)
	for i := range *threads {
		wg.Go(func() {
			for j := range *times {
				name := flags.Arg((i + j) % flags.NArg())
				began := time.Now()
				addrs, err := resolver.LookupHost(context.Background(), name)
				mu.Lock()
				slowest = max(slowest, time.Since(began))
				if err != nil {
					failed++
					fmt.Println(err)
				} else if *threads == 1 && *times == 1 {
					slices.Sort(addrs)
					fmt.Println(addrs)
				}
				mu.Unlock()
				time.Sleep(*pause)
			}
		})
	}
	wg.Wait()
	fmt.Printf("failed %d of %d, slowest %v\n", failed, *threads**times, slowest.Round(time.Millisecond))
	if failed > 0 {
		os.Exit(1)
	}
	os.Exit(0)
}

// system is the operating system of the tests: it knows all names below lab, but
// for none.lab. Names that begin with many have more addresses than fit a
// datagram.
type system struct{}

func (system) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if !strings.HasSuffix(strings.TrimSuffix(host, "."), ".lab") {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

func (system) Exchange(_ context.Context, query []byte) ([]byte, error) {
	var p dnsmessage.Parser
	header, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	name := q.Name.String()
	answer := dnsmessage.Header{ID: header.ID, Response: true, RecursionDesired: true, RecursionAvailable: true}
	known := strings.HasSuffix(name, ".lab.") && name != "none.lab."
	if !known {
		answer.RCode = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(nil, answer)
	b.EnableCompression()
	_ = b.StartQuestions()
	_ = b.Question(q)
	_ = b.StartAnswers()
	n := 1
	if strings.HasPrefix(name, "many") {
		n = 100
	}
	for i := range n {
		h := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 1}
		if known && q.Type == dnsmessage.TypeA {
			_ = b.AResource(h, dnsmessage.AResource{A: [4]byte{192, 0, 2, byte(i + 1)}})
		}
		if known && q.Type == dnsmessage.TypeAAAA && n == 1 {
			_ = b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()})
		}
	}
	return b.Finish()
}
