//go:build linux

package tune

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/capability"
	"github.com/lifeline-go/lifeline/agent/source/netns"
)

// iterator reaches sockets by options.bpf.c.
type iterator struct {
	wishes *ebpf.Map
	link   *link.Iter
	asked  []uint64 // the cookies that are in wishes
	raw    []byte   // of the last pass, kept to be used again
}

// newIterator loads the program.
func newIterator() (*iterator, error) {
	spec, err := loadOptions()
	if err != nil {
		return nil, err
	}
	var objects struct {
		Program *ebpf.Program `ebpf:"options"`
		Wishes  *ebpf.Map     `ebpf:"wishes"`
	}
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		return nil, explain(err)
	}
	defer objects.Program.Close() // the link keeps it
	l, err := link.AttachIter(link.IterOptions{Program: objects.Program})
	if err != nil {
		objects.Wishes.Close()
		return nil, explain(fmt.Errorf("attach to iter/tcp: %w", err))
	}
	return &iterator{wishes: objects.Wishes, link: l}, nil
}

func (it *iterator) close() error { return errors.Join(it.link.Close(), it.wishes.Close()) }

// touch runs the program over the sockets of a namespace. One that a pass does
// not show is gone, but for a moment in which the table of sockets changes, so
// what is missing is asked for once more.
func (it *iterator) touch(ns fact.Namespace, jobs []job) error {
	if err := it.ask(jobs); err != nil {
		return explain(err)
	}
	index := make(map[uint64]int, len(jobs))
	for i := range jobs {
		jobs[i].outcome = outcomeGone
		index[jobs[i].socket.Cookie] = i
	}
	for range 2 {
		err := netns.Do(ns, it.pass)
		if errors.Is(err, netns.ErrGone) {
			return err
		}
		if err == nil {
			err = it.answers(jobs, index)
		}
		if err != nil {
			for _, i := range index { // nobody knows
				jobs[i].outcome, jobs[i].err = outcomeFailed, err
			}
			return &act.Error{Act: "tune", Err: err, Needs: netns.Blindness("", err).Needs}
		}
		if len(index) == 0 {
			break
		}
	}
	return nil
}

// ask puts the wishes where the program finds them, in place of those before.
func (it *iterator) ask(jobs []job) error {
	cookies := make([]uint64, len(jobs))
	wishes := make([]optionsWish, len(jobs))
	for i := range jobs {
		cookies[i] = jobs[i].socket.Cookie
		w := &jobs[i].wish
		wishes[i] = optionsWish{From: w.From, Also: w.Also, To: w.To, Set: w.Set}
	}
	if len(it.asked) > 0 && !slices.Equal(it.asked, cookies) {
		if _, err := it.wishes.BatchDelete(it.asked, nil); err != nil {
			return err
		}
	}
	it.asked = cookies
	_, err := it.wishes.BatchUpdate(cookies, wishes, nil)
	return err
}

// chunk is what the kernel hands over in one read at most, bpf_seq_read in
// kernel/bpf/bpf_iter.c.
const chunk = 32 << 10

// pass fills it.raw with the answers of one walk over the TCP sockets of this
// thread's namespace.
func (it *iterator) pass() error {
	reader, err := it.link.Open()
	if err != nil {
		return err
	}
	defer reader.Close()
	it.raw = it.raw[:0]
	for {
		it.raw = slices.Grow(it.raw, chunk)
		n, err := reader.Read(it.raw[len(it.raw) : len(it.raw)+chunk])
		it.raw = it.raw[:len(it.raw)+n]
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, unix.EAGAIN): // many sockets, and none of them wanted: MAX_ITER_OBJECTS
		case err != nil:
			return err
		}
	}
}

// answers gives each job its answer and strikes it from index. The first counts:
// a pass may show a socket twice, and the second time it is as it should be.
func (it *iterator) answers(jobs []job, index map[uint64]int) error {
	const size = 40
	if len(it.raw)%size != 0 {
		return fmt.Errorf("the BPF iterator returned %d bytes, which are no whole answers", len(it.raw))
	}
	for raw := it.raw; len(raw) > 0; raw = raw[size:] {
		cookie := binary.NativeEndian.Uint64(raw)
		i, ok := index[cookie]
		if !ok {
			continue
		}
		delete(index, cookie)
		j := &jobs[i]
		for k := range j.was {
			j.was[k] = int32(binary.NativeEndian.Uint32(raw[8+4*k:]))
		}
		j.outcome = outcome(binary.NativeEndian.Uint32(raw[28:]))
		if j.outcome == outcomeFailed {
			j.err = unix.Errno(-int32(binary.NativeEndian.Uint32(raw[32:])))
		}
	}
	return nil
}

// capabilities are what BPF needs here: to load a program, one that reads the
// kernel's memory, and one that changes sockets.
const capabilities = "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"

const needsKernel = "Linux 6.1 with CONFIG_DEBUG_INFO_BTF"

// explain turns what the kernel or the loader said into what is missing. It
// matches [fs.ErrPermission] where rights are, [errors.ErrUnsupported] where the
// kernel cannot or will not.
func explain(err error) error {
	version, versionErr := features.LinuxVersionCode()
	var refused *ebpf.VerifierError
	switch {
	case errors.Is(err, unix.EPERM):
		needs := capability.Missing(capabilities, unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN)
		if capability.Held(unix.CAP_SYS_ADMIN) {
			needs = capability.Policy
		}
		return &act.Error{Act: "tune", Err: fmt.Errorf("%w: BPF: %v", fs.ErrPermission, err), Needs: needs}
	case versionErr == nil && version < 6<<16|1<<8:
		return &act.Error{Act: "tune", Err: fmt.Errorf("%w by BPF before Linux 6.1: %v", errors.ErrUnsupported, err), Needs: needsKernel}
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, fs.ErrNotExist), errors.As(err, &refused):
		return &act.Error{Act: "tune", Err: fmt.Errorf("%w by BPF: %v", errors.ErrUnsupported, err), Needs: needsKernel}
	}
	return &act.Error{Act: "tune", Err: err}
}
