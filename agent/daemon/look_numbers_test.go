package daemon

import (
	"slices"
	"testing"
	"time"
)

// What comes and goes all the time is no news, a loss is, and it is paid for.
func TestHurry(t *testing.T) {
	const cost = 100 * time.Millisecond
	at, census := time.Now(), &population{by: map[uint32]int{1: 20_000, 2: 10_000}, all: 30_000}
	var h hurry
	count := func(first, second int) bool {
		t.Helper()
		at = at.Add(numbersEvery)
		return h.worth(at, map[uint32]int{1: first, 2: second}, census, cost)
	}
	for i := range 120 {
		if i == 20 { // by then it is known what comes and goes
			h = hurry{before: h.before, noise: h.noise}
		}
		if count(20_000+i%2*120, 10_000-i%3*20) && i >= 20 {
			t.Fatalf("count %d: hurried by what comes and goes", i)
		}
	}
	if count(20_000, 9_990) {
		t.Error("hurried by 10 of 30,000")
	}
	if !count(15_776, 10_000) {
		t.Error("4,224 are gone, and there is no hurry")
	}
	if count(15_700, 10_000) {
		t.Error("hurried twice for one census")
	}
	census = &population{by: map[uint32]int{1: 15_776, 2: 10_000}, all: 25_776}
	for range 10 {
		if count(15_776, 10_000) {
			t.Error("hurried by nothing")
		}
	}
	hurried := 0
	for i := range 40 { // 20 s, each census finds half of them gone
		if count(15_776>>(i%2), 10_000) {
			hurried++
			census = &population{by: map[uint32]int{1: 15_776 >> (i % 2), 2: 10_000}, all: 25_776}
		}
	}
	if hurried == 0 || hurried >= hurriedMost {
		t.Errorf("hurried %d times, after one before", hurried)
	}
	at = at.Add(hurriedMost * hurriedRest * cost)
	census = &population{by: map[uint32]int{1: 3}, all: 3}
	for _, other := range []map[uint32]int{{1: 3, 7: 1}, {}} { // a namespace comes or goes, and nothing else happens
		h = hurry{full: h.full}
		if h.worth(at, map[uint32]int{1: 3}, census, cost) || !h.worth(at, other, census, 0) {
			t.Errorf("no hurry to see %v", other)
		}
	}
}

// What came is news until it is counted, also when it comes in two parts; what comes
// and goes anyway is none, and only the namespaces are named in which it was.
func TestNews(t *testing.T) {
	at, census := time.Now(), &population{by: map[uint32]int{1: 20_000, 2: 10_000, 3: 5}, all: 30_005}
	var h hurry
	shown := census.by
	count := func(first, second int) []uint32 {
		at = at.Add(numbersEvery)
		now := map[uint32]int{1: first, 2: second, 3: 4}
		h.worth(at, now, census, 100*time.Millisecond)
		of := h.news(now, shown)
		if of != nil {
			shown = now
		}
		return of
	}
	for i := range 40 {
		if of := count(20_000+i%2*5, 10_000-i%3); of != nil {
			t.Fatalf("count %d: %v is news", i, of)
		}
	}
	if of := count(21_200, 10_000); !slices.Equal(of, []uint32{1}) {
		t.Errorf("1,200 came: %v", of)
	}
	if of := count(22_000, 10_001); !slices.Equal(of, []uint32{1}) {
		t.Errorf("800 more came: %v", of)
	}
	if of := count(22_001, 10_000); of != nil {
		t.Errorf("nothing came: %v", of)
	}
	if of := h.news(map[uint32]int{1: 22_001}, shown); of != nil {
		t.Errorf("a namespace that could not be read: %v", of)
	}
}

// The namespaces are counted at their own pace, at once when many have come or gone,
// and what that takes too often is paid for.
func TestCounting(t *testing.T) {
	const cost, noise, all = time.Millisecond, 10, 30_000
	var c counting
	at := time.Now()
	count := func(total int) bool {
		at = at.Add(totalEvery)
		if !c.due(at, total, noise, all) {
			return false
		}
		c.pay(at, cost)
		return true
	}
	if !count(30_000) {
		t.Error("never counted, and not due")
	}
	for i := range 3 {
		if count(30_000 - 39*(i%2)) {
			t.Errorf("look %d: counted for what comes and goes anyway", i)
		}
	}
	if !count(30_000) {
		t.Error("not due in a second")
	}
	if !count(30_500) || count(30_500) {
		t.Error("500 more are counted at once, and once")
	}
	for range 3 {
		count(-1)
	}
	if c.total != -1 || count(30_000) {
		t.Errorf("of what is not known nothing is concluded: %+v", c)
	}
	counted := 0
	for i := range 10_000 { // 2,500 s in which a thousand come or go all the time
		if count(30_000 + i%2*1000) {
			counted++
		}
	}
	if most := 2500 + int(purseful/cost) + 2500; counted < 2500 || counted > most {
		t.Errorf("counted %d times, %d is the most", counted, most)
	}
}
