package node

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/conntrack"
	"github.com/lifeline-go/lifeline/agent/source/netns"
	"github.com/lifeline-go/lifeline/agent/source/route"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
)

// answerTime is how long a nameserver has for its one answer.
const answerTime = time.Second

// Namespaces chooses network namespaces. The zero value is all that can be
// reached.
type Namespaces struct {
	self  bool
	inode uint32 // 0 = not one by name
	text  string // what it was chosen by
}

// ParseNamespaces reads all, self, a PID, a name of /run/netns, or a path.
func ParseNamespaces(text string) (Namespaces, error) {
	switch text {
	case "all", "":
		return Namespaces{}, nil
	case "self":
		return Namespaces{self: true, text: text}, nil
	}
	path := "/run/netns/" + text
	if strings.Contains(text, "/") {
		path = text
	} else if pid, err := strconv.ParseUint(text, 10, 31); err == nil {
		path = fmt.Sprintf("/proc/%d/ns/net", pid)
	}
	inode, err := namespaceAt(path)
	if err != nil {
		return Namespaces{}, fmt.Errorf("no network namespace %q (%w): take all, self, a PID, a name of /run/netns or a path", text, err)
	}
	return Namespaces{inode: inode, text: text}, nil
}

// namespaceAt returns the inode of the network namespace that a file stands
// for, ioctl_nsfs(2).
func namespaceAt(path string) (uint32, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return 0, err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return 0, errNotNamespace
	}
	if kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return 0, errNotNamespace
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	return uint32(st.Ino), nil
}

var errNotNamespace = errors.New("it is something else")

// spaces reads every namespace that is wanted, and has known made anew. It fails when
// none can be read.
func (l *look) spaces(known *Spaces) error {
	list, err := l.choose(known, 0)
	if err != nil {
		return err
	}
	for _, ns := range list {
		err := netns.Do(ns, func() error { return l.space(&ns) })
		if err != nil {
			l.failed = err
			blind := netns.Blindness("sockets", err)
			if blind.Needs != "" {
				l.failed = fmt.Errorf("%w; needs %s", err, blind.Needs)
			}
			l.blind(blind)
			continue
		}
		l.Namespaces = append(l.Namespaces, ns)
	}
	slices.SortFunc(l.Namespaces, func(a, b fact.Namespace) int { return cmp.Compare(a.Inode, b.Inode) })
	if len(l.Namespaces) == 0 {
		return fmt.Errorf("the sockets of no network namespace can be read: %w", l.failed)
	}
	return nil
}

// choose lists the namespaces to read, as they were so long ago at most.
func (l *look) choose(known *Spaces, age time.Duration) ([]fact.Namespace, error) {
	list, blind := known.list(age)
	w := l.want.Namespaces
	if !w.self && w.inode == 0 {
		l.blind(blind...) // one namespace is seen even where others are not
		return list, nil
	}
	list = slices.DeleteFunc(list, func(ns fact.Namespace) bool { return ns.Inode != w.inode && !(w.self && ns.Own) })
	if len(list) == 0 {
		return nil, fmt.Errorf("the network namespace %s is gone", w.text)
	}
	return list, nil
}

// space reads one namespace, on a thread that is in it. What a protocol could
// not tell is a blind spot; a namespace that tells nothing is an error.
func (l *look) space(ns *fact.Namespace) error {
	before := len(l.Sockets)
	want := l.want.Sockets
	want.Held = l.want.Held
	sockets, err := sockdiag.Read(l.Sockets, ns.Inode, want)
	if err != nil && len(sockets) == before {
		return err
	}
	l.Sockets = sockets
	l.blind(sockdiag.Blind(err)...)
	if l.want.Held {
		ns.TimeWait = sockdiag.TimeWait()
	}
	if sysctl, err := netns.Sysctl(); err == nil {
		ns.Sysctl = fact.Seen(sysctl)
	} else {
		l.blind(fact.Blind{Source: "options", Error: "no bounds in a network namespace whose TCP settings cannot be read: " + err.Error()})
	}
	if l.want.Full && !l.want.first {
		l.routing(ns)
	}
	return nil
}

// routing reads which addresses are the namespace's own, and how full its
// connection tracking table is.
func (l *look) routing(ns *fact.Namespace) {
	local, err := route.Local()
	if err != nil {
		l.blind(fact.Blind{Source: "routes", Error: err.Error()})
	}
	ns.Local = local
	table, err := conntrack.Size(ns.Inode)
	switch {
	case err == nil:
		l.Conntrack = append(l.Conntrack, table)
	case !errors.Is(err, errors.ErrUnsupported): // without a table there is none that could fill up
		l.blind(fact.Blind{Source: "conntrack", Error: err.Error()})
	}
}
