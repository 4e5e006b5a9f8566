//go:build linux

package tune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/source/capability"
	"github.com/lifeline-go/lifeline/bound"
)

// DefaultPins is where what holds cgroups is pinned, in the kernel's file system
// for BPF: it stays there without a process, until it is removed or the machine
// goes down.
const DefaultPins = "/sys/fs/bpf/lifeline"

// Names of the pins of a cgroup, in the directory that its ID names.
const (
	pinLimits      = "limits"
	pinEstablished = "established"
	pinLimited     = "limited"
)

// HoldOptions say where the pins and the lock are. The zero HoldOptions are
// recommended.
type HoldOptions struct {
	Pins string // "" means [DefaultPins]
	Dir  string // of the lock; "" means [DefaultDir]
}

func (o HoldOptions) pins() string { return cmp.Or(o.Pins, DefaultPins) }

// pinnable reports whether something can be pinned at the place.
func (o HoldOptions) pinnable() bool {
	var fs unix.Statfs_t
	return unix.Statfs(filepath.Dir(o.pins()), &fs) == nil && fs.Type == unix.BPF_FS_MAGIC
}

// Pinnable reports whether what [Hold] does outlives this process: whether a
// file system for BPF is mounted at the place of the pins.
func (o HoldOptions) Pinnable() bool { return o.pinnable() }

// Held is a cgroup whose new connections are kept tuned.
type Held struct {
	ID      uint64
	Cgroup  string        // its directory; "" when it is gone
	Limits  bound.Options // each option is at most this; UserTimeout only where it was asked for
	Pinned  bool          // it stays when the process ends
	Renewed bool          // it was held before, and has new limits

	attached []link.Link
	limits   *ebpf.Map
}

// Close ends a hold that is not pinned; one that is stays.
func (h *Held) Close() error {
	var errs []error
	for _, l := range h.attached {
		errs = append(errs, l.Close())
	}
	h.attached = nil
	if h.limits != nil {
		errs = append(errs, h.limits.Close())
		h.limits = nil
	}
	return errors.Join(errs...)
}

// Hold keeps new connections of a cgroup, and of those below it, tuned: when
// one is established it gets the options, and what its program sets afterwards
// is lowered to them, since most programs set their own at that moment. What is
// tighter stays. Programs that others have attached stay as well. Sockets that
// are there already are for [Run].
//
// Where [HoldOptions.Pinnable] says so it is pinned and lasts until [Release];
// else until Close, or the end of the process, whatever ends it. It needs Linux
// 5.10, CAP_BPF and CAP_NET_ADMIN. A cgroup that is held already gets the new
// options.
func Hold(ctx context.Context, c *Cgroup, o Options, where HoldOptions) (*Held, error) {
	target, _, err := o.options()
	if err != nil {
		return nil, &act.Error{Act: "tune", Err: err}
	}
	store, err := openStore(ctx, cmp.Or(where.Dir, o.dir()))
	if err != nil {
		return nil, err
	}
	defer store.close()
	v := valuesOf(target)
	ceiling := clampCeiling{Idle: v[idle], Interval: v[interval], Count: v[count], UserTimeout: v[userTimeout]}
	h := &Held{ID: c.ID, Cgroup: c.Path, Limits: target, Pinned: where.pinnable()}
	dir := filepath.Join(where.pins(), strconv.FormatUint(c.ID, 10))
	if h.Pinned {
		if h.Renewed, err = renew(dir, ceiling); h.Renewed && err == nil {
			return h, nil
		}
		if err := remove(dir); err != nil { // half of it, by a run that was killed
			return nil, explainHold(err)
		}
	}
	if err := h.attach(c.Path, ceiling); err != nil {
		return nil, explainHold(errors.Join(err, h.Close()))
	}
	if !h.Pinned {
		return h, nil
	}
	if err := h.pin(dir); err != nil {
		return nil, explainHold(errors.Join(err, remove(dir), h.Close()))
	}
	return h, h.Close()
}

// renew gives a cgroup that is held whole new limits.
func renew(dir string, c clampCeiling) (whole bool, err error) {
	for _, name := range [...]string{pinEstablished, pinLimited} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false, nil
		}
	}
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, pinLimits), nil)
	if err != nil {
		return false, nil
	}
	defer m.Close()
	return true, m.Put(uint32(0), c)
}

// attach loads the programs and attaches them to the cgroup beside those of
// others. The links end with the process, unless they are pinned.
func (h *Held) attach(cgroup string, c clampCeiling) error {
	var objects clampObjects
	if err := loadClampObjects(&objects, nil); err != nil {
		return err
	}
	h.limits = objects.Limits
	defer objects.clampPrograms.Close() // the links keep them
	if err := objects.Limits.Put(uint32(0), c); err != nil {
		return err
	}
	for _, a := range []struct {
		program *ebpf.Program
		kind    ebpf.AttachType
	}{
		{objects.Limited, ebpf.AttachCGroupSetsockopt}, // first: who comes between the two is only not yet given the options
		{objects.Established, ebpf.AttachCGroupSockOps},
	} {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: a.kind, Program: a.program})
		if err != nil {
			return fmt.Errorf("attach to cgroup %s: %w", cgroup, err)
		}
		h.attached = append(h.attached, l)
	}
	return nil
}

// pin makes the hold outlive the process. Who is killed in the middle leaves
// some of the pins, which Release finds.
func (h *Held) pin(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := h.limits.Pin(filepath.Join(dir, pinLimits)); err != nil {
		return err
	}
	for i, name := range [...]string{pinLimited, pinEstablished} {
		if err := h.attached[i].Pin(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// Holds lists the cgroups that are held by pins, also what is left of one whose
// cgroup is gone or that was pinned only in part.
func Holds(where HoldOptions) ([]Held, error) {
	entries, err := os.ReadDir(where.pins())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, explainHold(err)
	}
	var all []Held
	for _, e := range entries {
		id, err := strconv.ParseUint(e.Name(), 10, 64)
		if err != nil || !e.IsDir() {
			continue // of another part of Lifeline
		}
		h := Held{ID: id, Cgroup: named(id), Pinned: true}
		if m, err := ebpf.LoadPinnedMap(filepath.Join(where.pins(), e.Name(), pinLimits), &ebpf.LoadPinOptions{ReadOnly: true}); err == nil {
			var c clampCeiling
			if m.Lookup(uint32(0), &c) == nil {
				h.Limits = values{1, c.Idle, c.Interval, c.Count, c.UserTimeout}.options()
			}
			m.Close()
		}
		all = append(all, h)
	}
	return all, nil
}

// Release ends the hold of a cgroup. Connections that began under it keep their
// options until they end, since nobody knows what they would have had; what their
// programs set from now on counts.
func Release(ctx context.Context, id uint64, where HoldOptions) error {
	store, err := openStore(ctx, cmp.Or(where.Dir, DefaultDir))
	if err != nil {
		return err
	}
	defer store.close()
	if err := remove(filepath.Join(where.pins(), strconv.FormatUint(id, 10))); err != nil {
		return explainHold(err)
	}
	_ = os.Remove(where.pins()) // when it was the last
	return nil
}

// remove takes the pins of a cgroup away, and with them what they kept.
func remove(dir string) error {
	for _, name := range [...]string{pinEstablished, pinLimited, pinLimits} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// explainHold says what is missing for a hold.
func explainHold(err error) error {
	e := &act.Error{Act: "tune", Err: err}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		e.Needs = capability.Missing("CAP_BPF and CAP_NET_ADMIN", unix.CAP_BPF, unix.CAP_NET_ADMIN)
		if e.Needs == capability.Policy {
			e.Needs = "that no other program is attached to the cgroup, or one above it, that allows no second"
		}
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, link.ErrNotSupported):
		e.Err, e.Needs = fmt.Errorf("%w: %v", errors.ErrUnsupported, err), "Linux 5.10 with CONFIG_CGROUP_BPF"
	}
	return e
}
