//go:build linux

package launch

import (
	"encoding/json"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run/notify"
	"github.com/lifeline-go/lifeline/agent/act/run/signals"
)

// Order is what a keeper must know to start a program.
type Order struct {
	Path  string
	Args  int  // how many of the last arguments of the keeper are the program's
	Group int  // that the program goes to; 0 is that of the keeper
	Early bool // it may begin before somebody is there to answer its system calls
}

// Of returns the arguments of the program, of those of the keeper; nil when they are
// not among them.
func (o *Order) Of(args []string) []string {
	if o.Args < 1 || o.Args > len(args) {
		return nil
	}
	return args[len(args)-o.Args:]
}

// ErrNoOrder is the error of a keeper that nobody like it has started.
var ErrNoOrder = errors.New("this is started by lifeline run only")

// Kept is a keeper that has begun.
type Kept struct {
	Wire Wire
	Args []string // of which the last are the program's
	Env  []string
	Err  error

	program chan *Program
}

// Keep is what the process that [Begin] starts does first, with the arguments that
// were added to its command. It starts the program as soon as it is told which, while
// the caller goes on, unless it takes more to start it.
func Keep(added, env []string) *Kept {
	k := &Kept{Env: env, program: make(chan *Program, 1)}
	if k.Wire, k.Args, k.Err = inherited(added); k.Err != nil {
		return k
	}
	// What ps and pgrep call it, which is else the name of a link in /proc.
	_ = os.WriteFile("/proc/self/comm", []byte("lifeline"), 0)
	// What is ignored stays ignored, for the program too, and the rest, which is for
	// the program, is forgotten until that has begun.
	signals.Drop(signals.Ends)
	signals.Listen(make(chan os.Signal), signals.Stops...)
	go func() { k.program <- k.early() }()
	return k
}

// Program returns the program that was started, to be called once; nil when it was
// not, and nothing is known against starting it.
func (k *Kept) Program() *Program { return <-k.program }

// inherited returns the end of the wire that Spawn has given this process, and
// the other arguments, from those that it added.
func inherited(added []string) (Wire, []string, error) {
	if len(added) < 2 {
		return Wire{}, nil, ErrNoOrder
	}
	fd, err := strconv.Atoi(added[0])
	if err != nil {
		return Wire{}, nil, ErrNoOrder
	}
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_SEQPACKET {
		return Wire{}, nil, ErrNoOrder
	}
	unix.CloseOnExec(fd)
	return Wire{fd}, added[2:], nil
}

// message is what is said of all this on the wire, as package run has it.
type message struct {
	Order *Order `json:",omitempty"`
	Begun bool
}

// mostEarly is the longest order that is understood early.
const mostEarly = 8 << 10

// early starts the program when the order says that it may, and nothing is known that
// would keep anybody from answering its calls soon.
func (k *Kept) early() *Program {
	var m message
	if json.Unmarshal(k.Wire.peek(make([]byte, mostEarly)), &m) != nil || m.Order == nil || !m.Order.Early || Possible() != nil || !loopback() {
		return nil
	}
	args := m.Order.Of(k.Args)
	if args == nil {
		return nil
	}
	// What it leaves behind is this process's.
	if unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != nil {
		return nil
	}
	p, err := Start(m.Order.Path, args, k.Env, m.Order.Group, &notify.Filter{}, func(*notify.Listener) error { return nil })
	if err != nil {
		return nil // who tries again says why
	}
	if begun, err := json.Marshal(message{Begun: true}); err == nil {
		_ = k.Wire.Send(begun, int(p.Process.Fd())) // if it fails there is nobody to start it for, which is heard later
	}
	return p
}

// loopback reports that this process can listen on the loopback interface.
func loopback() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}) == nil
}
