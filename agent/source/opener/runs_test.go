package opener

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/need"
)

// A request on a connection that is kept open costs nothing: none of the programs
// runs. Where the last use is asked for, they run once for each message at each
// of its ends. That is counted, and not timed: it is the same on a busy machine.
func TestRequestsRunNothing(t *testing.T) {
	need.Root(t)
	counting, err := CountRuns()
	need.Feature(t, "BPF_ENABLE_STATS", err)
	t.Cleanup(func() { counting.Close() })
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "well") }))
	t.Cleanup(server.Close)
	client := server.Client()
	request := func() {
		r, err := client.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	const requests = 50
	// The hooks see the whole machine. In the quietest of many short moments
	// nobody else connects.
	least := func(s *Sockets, enough uint64) uint64 {
		request()
		least := ^uint64(0)
		for begin := time.Now(); least > enough && time.Since(begin) < 20*time.Second; {
			before, err := s.Runs()
			if err != nil {
				t.Fatal(err)
			}
			for range requests {
				request()
			}
			after, err := s.Runs()
			if err != nil {
				t.Fatal(err)
			}
			least = min(least, after.Sub(before).Count)
		}
		return least
	}
	if n := least(watch(t, Options{}), 0); n != 0 {
		t.Errorf("%d runs in %d requests, none is needed", n, requests)
	}
	uses := watch(t, Options{Uses: true})
	if !uses.Uses() {
		t.Fatal("the last use is not watched")
	}
	// A request and its answer are sent and received: four, and a receive that found nothing before each.
	if n := least(uses, 6*requests); n < 4*requests || n > 6*requests {
		t.Errorf("%d runs in %d requests where uses are watched, 4 to 6 for each are right", n, requests)
	}
	client.CloseIdleConnections()
}
