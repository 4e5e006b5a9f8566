package bpf

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

// raw lays records out as the kernel writes them.
func raw(t testing.TB, records ...ownersRecord) []byte {
	t.Helper()
	var b []byte
	for _, r := range records {
		for _, v := range []uint32{r.Pid, r.Fd, r.Inode, r.Netns, r.KeepaliveTime, r.KeepaliveIntvl, r.UserTimeout} {
			b = binary.NativeEndian.AppendUint32(b, v)
		}
		b = append(b, r.KeepaliveProbes, r.Tcp, r.Keepalive, r.Thread)
	}
	if len(b) != len(records)*recordSize {
		t.Fatalf("record is %d bytes in Go and %d here", unsafe.Sizeof(ownersRecord{}), len(b)/len(records))
	}
	return b
}

func TestDecode(t *testing.T) {
	b := raw(t,
		ownersRecord{Pid: 7, Fd: 3, Inode: 100, Netns: 1, Tcp: 1, Keepalive: 1, KeepaliveTime: 15 * 250, KeepaliveIntvl: 5 * 250, KeepaliveProbes: 9, UserTimeout: 20_000},
		ownersRecord{Pid: 7, Fd: 4, Inode: 101, Netns: 1},
		ownersRecord{Pid: 7, Fd: 5, Inode: 999},
		ownersRecord{Pid: 9, Fd: 1, Inode: 100, Tcp: 1},
	)
	got := decode(nil, b, 250, 999)
	want := []fact.Owned{
		{Owner: fact.Owner{PID: 7, FD: 3}, Inode: 100, Netns: 1, Options: fact.Seen(bound.Options{
			KeepAlive: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 9, UserTimeout: 20 * time.Second})},
		{Owner: fact.Owner{PID: 7, FD: 4}, Inode: 101, Netns: 1},
		{Owner: fact.Owner{PID: 9, FD: 1}, Inode: 100, Options: fact.Seen(bound.Options{})},
	}
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}

// TestDecodeThreads has a process without a leader, whose two threads show the
// same table, between others.
func TestDecodeThreads(t *testing.T) {
	b := raw(t,
		ownersRecord{Pid: 5, Fd: 3, Inode: 1},
		ownersRecord{Pid: 4, Fd: 3, Inode: 2, Thread: 1},
		ownersRecord{Pid: 4, Fd: 8, Inode: 3, Thread: 1},
		ownersRecord{Pid: 4, Fd: 3, Inode: 2, Thread: 1},
		ownersRecord{Pid: 4, Fd: 8, Inode: 4, Thread: 1},
	)
	before := fact.Owned{Inode: 77}
	got := decode([]fact.Owned{before}, b, 100, 0)
	want := []fact.Owned{
		before,
		{Owner: fact.Owner{PID: 4, FD: 3}, Inode: 2},
		{Owner: fact.Owner{PID: 4, FD: 8}, Inode: 3},
		{Owner: fact.Owner{PID: 4, FD: 8}, Inode: 4},
		{Owner: fact.Owner{PID: 5, FD: 3}, Inode: 1},
	}
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}

func TestCanary(t *testing.T) {
	good := ownersRecord{Pid: uint32(os.Getpid()), Fd: 8, Inode: 42, Tcp: 1, Keepalive: 1,
		KeepaliveTime: canaryIdle * 300, KeepaliveIntvl: canaryInterval * 300, KeepaliveProbes: canaryCount, UserTimeout: canaryTimeout}
	forked := good
	forked.Pid++
	with := func(change func(r *ownersRecord)) ownersRecord {
		r := good
		change(&r)
		return r
	}
	for _, c := range []struct {
		name    string
		records []ownersRecord
		hz      uint32 // 0 = an error
	}{
		{"there", []ownersRecord{{Inode: 1}, good}, 300},
		{"there and in a child", []ownersRecord{forked, good}, 300},
		{"absent", []ownersRecord{{Inode: 1}}, 0},
		{"empty", nil, 0},
		{"of another process", []ownersRecord{forked}, 0},
		{"not TCP", []ownersRecord{with(func(r *ownersRecord) { r.Tcp = 0 })}, 0},
		{"keepalive off", []ownersRecord{with(func(r *ownersRecord) { r.Keepalive = 0 })}, 0},
		{"no idle time", []ownersRecord{with(func(r *ownersRecord) { r.KeepaliveTime = 0 })}, 0},
		{"odd idle time", []ownersRecord{with(func(r *ownersRecord) { r.KeepaliveTime++ })}, 0},
		{"other interval", []ownersRecord{with(func(r *ownersRecord) { r.KeepaliveIntvl++ })}, 0},
		{"other count", []ownersRecord{with(func(r *ownersRecord) { r.KeepaliveProbes++ })}, 0},
		{"other timeout", []ownersRecord{with(func(r *ownersRecord) { r.UserTimeout++ })}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			hz, err := canary{fd: 8, inode: 42}.find(raw(t, c.records...))
			if hz != c.hz || (err == nil) != (c.hz > 0) {
				t.Errorf("hz %d, error %v; want %d", hz, err, c.hz)
			}
			if err != nil && !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%v is not ErrUnsupported", err)
			}
		})
	}
	if _, err := (canary{}).find(make([]byte, recordSize+1)); err == nil {
		t.Error("half a record is no error")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{}, uint32(100))
	f.Add(raw(f, ownersRecord{Pid: 1, Fd: 2, Inode: 3, Tcp: 1, KeepaliveTime: 1 << 31}), uint32(1000))
	f.Add(raw(f, ownersRecord{Pid: 1, Thread: 1}, ownersRecord{Pid: 1, Thread: 1}, ownersRecord{Inode: 42}), uint32(250))
	f.Fuzz(func(t *testing.T, b []byte, hz uint32) {
		canary{fd: 8, inode: 42}.find(b)
		if hz == 0 {
			return // find returns no such
		}
		for _, o := range decode(nil, b, hz, 42) {
			if o.Inode == 42 {
				t.Fatal("the canary is shown")
			}
			if options := o.Options.Value; options.Idle < 0 || options.Interval < 0 || options.UserTimeout < 0 {
				t.Fatalf("negative time: %+v", o)
			}
		}
	})
}
