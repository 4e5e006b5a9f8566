package main

import "testing"

func TestRoom(t *testing.T) {
	const mib = 1 << 20
	for _, test := range []struct {
		seen []uint64
		want int64
	}{
		{nil, roomAtLeast},
		{[]uint64{20 * mib, 34 * mib, 20 * mib}, roomAtLeast},
		{[]uint64{20 * mib, 20 * mib, 50 * mib}, roomAtLeast}, // in the midst of a look
		{[]uint64{100 * mib}, 175 * mib},
		{[]uint64{20 * mib, 100 * mib, 104 * mib}, 125 * mib}, // it has become more
		{[]uint64{100 * mib, 160 * mib, 100 * mib}, 175 * mib},
	} {
		if got := room(test.seen); got != test.want {
			t.Errorf("%v: %d MiB, want %d", test.seen, got/mib, test.want/mib)
		}
	}
}
