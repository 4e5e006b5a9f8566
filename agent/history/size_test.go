package history_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/history"
	"github.com/lifeline-go/lifeline/agent/state"
)

// load is a machine with programs that talk to a few peers for long, and a
// server whose clients come, change and go.
type load struct {
	rand   *rand.Rand
	groups []state.Group
	next   int
}

func newLoad(series int) *load {
	l := &load{rand: rand.New(rand.NewPCG(1, 2))}
	for i := range series {
		l.groups = append(l.groups, l.fresh(i%8))
	}
	return l
}

func (l *load) fresh(kind int) state.Group {
	l.next++
	return state.Group{Series: state.Series{Program: fmt.Sprintf("program-%d", kind), Unit: fmt.Sprintf("program-%d.service", kind),
		Peer: fmt.Sprintf("10.%d.%d.%d", kind, l.next/256%256, l.next%256), Port: fmt.Sprintf(":%d", 8080+kind)}, Count: 1 + l.rand.IntN(40)}
}

// step changes a tenth of the counts by a little, and one in 400 peers goes and
// another comes.
func (l *load) step() {
	for i := range l.groups {
		switch g := &l.groups[i]; l.rand.IntN(400) {
		case 0:
			*g = l.fresh(i % 8)
		default:
			if l.rand.IntN(10) == 0 {
				g.Count = max(0, g.Count+l.rand.IntN(7)-3)
			}
		}
	}
}

func (l *load) record(at time.Time) history.Record {
	return history.Record{Time: at, Groups: l.groups, Totals: state.Totals{Sockets: 30_000 + l.rand.IntN(1000), Peers: len(l.groups),
		TCP: map[string]int{"ESTABLISHED": 20_000 + l.rand.IntN(1000), "TIME_WAIT": l.rand.IntN(3000)}, Looked: at.Add(-time.Second), Took: l.rand.Float64()}}
}

// A sample, one count of one series at one time, must not take more than 5 bytes
// of the file, dictionary and indexes and all.
func TestBytesOfASample(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	s := open(t, path, history.Options{})
	l, samples := newLoad(250), 0
	for i := range 400 { // more than a segment
		l.step()
		add(t, s, l.record(noon.Add(time.Duration(i)*10*time.Second)))
		samples += len(l.groups)
	}
	span, err := s.Span(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	each := float64(span.Bytes) / float64(samples)
	t.Logf("%d samples in %d bytes: %.2f bytes each", samples, span.Bytes, each)
	if each > 5 {
		t.Errorf("a sample takes %.2f bytes", each)
	}
}

// The file stays within its bound, the oldest goes first, and what stays can be read.
func TestBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	const most = history.LeastBytes
	s := open(t, path, history.Options{MaxBytes: most})
	l, long := newLoad(100), strings.Repeat("long", 30)
	biggest, i := int64(0), 0
	for ; i < 30; i++ {
		for j := range l.groups { // all new each time
			l.groups[j] = l.fresh(j % 8)
			l.groups[j].Program, l.groups[j].Unit, l.groups[j].Port = long, long, long
			l.groups[j].Peer += long[:100]
		}
		add(t, s, l.record(noon.Add(time.Duration(i)*10*time.Second)))
		size := int64(0)
		for _, end := range []string{"", "-wal"} {
			if info, err := os.Stat(path + end); err == nil {
				size += info.Size()
			}
		}
		biggest = max(biggest, size)
	}
	if biggest > most {
		t.Errorf("the file grew to %d bytes, of %d", biggest, most)
	}
	span, err := s.Span(t.Context())
	if err != nil || !span.First.After(noon) || span.Records < 4 {
		t.Fatalf("%+v, %v", span, err)
	}
	for _, at := range []time.Time{*span.First, *span.Last} {
		if past, err := s.At(t.Context(), at); err != nil || len(past.Groups) != 100 {
			t.Errorf("at %v: %d groups, %v", at, len(past.Groups), err)
		}
	}
	t.Logf("%d of %d records in %d bytes", span.Records, i, biggest)
}

// What is older than Keep goes.
func TestKeep(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "history.db"), history.Options{Keep: time.Hour})
	for i := range 100 {
		add(t, s, history.Record{Time: noon.Add(time.Duration(i) * time.Minute), Groups: []state.Group{group("a", i)}})
	}
	for i := range 100 {
		add(t, s, history.Record{Time: noon.Add(10*time.Hour + time.Duration(i)*time.Second), Groups: []state.Group{group("a", i)}})
	}
	if span, err := s.Span(t.Context()); err != nil || span.First.Before(noon.Add(9*time.Hour)) {
		t.Errorf("%+v, %v", span, err)
	}
}

// One record of ten seconds of a busy machine, and of one with as many groups as
// a record takes.
func BenchmarkAdd(b *testing.B) {
	for _, series := range []int{2000, 20_000} {
		b.Run(fmt.Sprint(series), func(b *testing.B) {
			s, err := history.Open(filepath.Join(b.TempDir(), "history.db"), history.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close() //nolint:errcheck // a benchmark
			l, at := newLoad(series), noon
			for b.Loop() {
				l.step()
				at = at.Add(10 * time.Second)
				if err := s.Add(b.Context(), l.record(at)); err != nil {
					b.Fatal(err)
				}
			}
			span, err := s.Span(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(span.Bytes)/float64(b.N)/float64(series), "B/sample")
		})
	}
}

// What a question over all of it takes, for each record of a machine with as many
// groups as a record takes: the file has some 26,000 of them, three days.
func BenchmarkAsk(b *testing.B) {
	s, err := history.Open(filepath.Join(b.TempDir(), "history.db"), history.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()      //nolint:errcheck // a benchmark
	const records = 1500 // more than four segments
	l := newLoad(20_000)
	for i := range records {
		l.step()
		if err := s.Add(b.Context(), l.record(noon.Add(time.Duration(i)*10*time.Second))); err != nil {
			b.Fatal(err)
		}
	}
	span, err := s.Span(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	from, to := *span.First, span.Last.Add(time.Second)
	for name, ask := range map[string]func() error{
		"range": func() error { _, err := s.Range(b.Context(), state.Filter{}, from, to, 0); return err },
		"range of peer": func() error {
			_, err := s.Range(b.Context(), state.Filter{Series: state.Series{Peer: "10.1.0.2"}}, from, to, 0)
			return err
		},
		"story": func() error { _, err := s.Story(b.Context(), state.Filter{}, from, to, 0); return err },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := ask(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N)/records, "ms/record")
			b.ReportMetric(float64(span.Bytes)/records, "B/record")
		})
	}
}
