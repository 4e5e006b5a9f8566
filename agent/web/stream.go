package web

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// mostStreams is how many streams there may be at a time.
	mostStreams = 1000

	// heartbeat is how often a stream without news says that it lives.
	heartbeat = 15 * time.Second
)

// stream sends each State as an event whose id is run/seq, and to who comes back
// with Last-Event-ID only what is newer. Who reads slowly gets fewer, always the
// latest; who does not read is dropped.
func (s *server) stream(w http.ResponseWriter, r *http.Request) {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		w.Header().Set("Retry-After", "10")
		refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("%d streams are open already: close one, or ask for /api/v1/state", cap(s.streams)))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	if r.Method == http.MethodHead {
		return
	}
	to := http.NewResponseController(w)
	// The time in which a request must come would end the stream too.
	if err := to.SetReadDeadline(time.Time{}); err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	send := func(parts ...[]byte) bool { // no copies: a thousand may wait here with the same text
		if to.SetWriteDeadline(time.Now().Add(s.patient)) != nil {
			return false
		}
		for _, part := range parts {
			if _, err := w.Write(part); err != nil {
				return false
			}
		}
		return to.Flush() == nil
	}
	if !send([]byte("retry: 2000\n\n")) {
		return
	}
	for seq := s.after(r.Header.Get("Last-Event-ID")); ; {
		wait, stop := context.WithTimeout(r.Context(), s.beat)
		next, err := s.Agent.Wait(wait, seq)
		stop()
		switch {
		case r.Context().Err() != nil:
			return
		case err != nil:
			if !send([]byte(": nothing new\n\n")) {
				return
			}
			continue
		}
		text, err := s.text(next)
		if err != nil || !send(fmt.Appendf(nil, "id: %s/%d\nevent: state\ndata: ", next.Run, next.Seq), text, []byte("\n\n")) {
			return
		}
		seq = next.Seq
	}
}

// after is the number of the State that a reader has; 0 when it has none, or one of
// another run.
func (s *server) after(id string) uint64 {
	run, number, _ := strings.Cut(id, "/")
	now := s.Agent.State()
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil || run != now.Run || seq > now.Seq {
		return 0
	}
	return seq
}
