package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
)

const (
	// usualPast and mostPast are how many groups of a census, or changes of a kind,
	// are listed.
	usualPast = 1000
	mostPast  = 20_000
)

// History is who knows the past.
type History interface {
	Moments
	Lines
}

// Moments are what was at a time, or differs between two.
type Moments interface {
	Span(context.Context) (state.Span, error)
	At(context.Context, time.Time) (state.Past, error)
	Diff(ctx context.Context, from, to time.Time) (state.Difference, error)
	Findings(ctx context.Context, from, to time.Time) ([]state.PastFinding, error)
}

// Lines are what went on all the time.
type Lines interface {
	Range(ctx context.Context, f state.Filter, from, to time.Time, step time.Duration) (state.TimeLine, error)
	Story(ctx context.Context, f state.Filter, from, to time.Time, most int) (state.Story, error)
}

// schema is of the documents that are no State.
const schema = "lifeline/v1"

// ask answers a question to the history: read reads the query, and what it returns
// asks. The status is 404 when no history is kept, 400 when the question cannot be
// answered as it was asked, 503 when the history could not be read.
func (s *server) ask(keys string, read func(*query) func(context.Context, History) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		values, err := values(r.URL.RawQuery, strings.Fields(keys)...)
		q := query{Values: values, err: err, now: time.Now()}
		if err != nil {
			answer(w, nil, err)
			return
		}
		question := read(&q)
		if q.err != nil {
			answer(w, nil, q.err)
			return
		}
		h, err := s.history()
		if err != nil {
			refuse(w, http.StatusNotFound, "no history is kept: "+err.Error())
			return
		}
		ctx, stop := context.WithTimeout(r.Context(), s.patient) // less than serve gives an answer
		defer stop()
		document, err := question(ctx, h)
		var early *state.BeforeError
		switch {
		case err == nil, errors.As(err, &early):
			answer(w, document, err)
		case errors.Is(err, context.DeadlineExceeded):
			refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("the history did not answer within %v: ask for less", s.patient))
		default:
			refuse(w, http.StatusServiceUnavailable, err.Error())
		}
	}
}

func (s *server) history() (History, error) {
	if s.History == nil {
		return nil, errors.New("the agent was started without one")
	}
	return s.History()
}

// pasts are the paths of the history.
func (s *server) pasts() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/api/v1/history/span":     s.ask("", spanOf),
		"/api/v1/history/range":    s.ask("from to step peer process state total", rangeOf),
		"/api/v1/history/story":    s.ask("from to peer process most", storyOf),
		"/api/v1/history/diff":     s.ask("from to most", diffOf),
		"/api/v1/history/findings": s.ask("from to", findingsOf),
		"/api/v1/history/at":       s.ask("time most", atOf),
	}
}

func spanOf(*query) func(context.Context, History) (any, error) {
	return func(ctx context.Context, h History) (any, error) {
		span, err := h.Span(ctx)
		return struct {
			Schema string `json:"schema"`
			state.Span
		}{schema, span}, err
	}
}

func rangeOf(q *query) func(context.Context, History) (any, error) {
	from, to := q.span()
	step, f := time.Duration(q.number("step", 1, 366*24*3600))*time.Second, q.filter()
	return func(ctx context.Context, h History) (any, error) {
		line, err := h.Range(ctx, f, from, to, step)
		return struct {
			Schema string `json:"schema"`
			state.TimeLine
		}{schema, line}, err
	}
}

func storyOf(q *query) func(context.Context, History) (any, error) {
	from, to := q.span()
	most, f := q.number("most", 1, usualPast), q.filter()
	return func(ctx context.Context, h History) (any, error) {
		story, err := h.Story(ctx, f, from, to, most)
		return struct {
			Schema string `json:"schema"`
			state.Story
		}{schema, story}, err
	}
}

func diffOf(q *query) func(context.Context, History) (any, error) {
	from, to := q.span()
	most := q.most()
	return func(ctx context.Context, h History) (any, error) {
		d, err := h.Diff(ctx, from, to)
		d.Shorten(most)
		return struct {
			Schema string `json:"schema"`
			state.Difference
		}{schema, d}, err
	}
}

func findingsOf(q *query) func(context.Context, History) (any, error) {
	from, to := q.span()
	return func(ctx context.Context, h History) (any, error) {
		list, err := h.Findings(ctx, from, to)
		return struct {
			Schema   string              `json:"schema"`
			Findings []state.PastFinding `json:"findings"`
		}{schema, list}, err
	}
}

func atOf(q *query) func(context.Context, History) (any, error) {
	at, most := q.moment("time", false), q.most()
	return func(ctx context.Context, h History) (any, error) {
		past, err := h.At(ctx, at)
		past.Shorten(most)
		return struct {
			Schema string `json:"schema"`
			state.Past
		}{schema, past}, err
	}
}

// query reads the query of a question. The first error is kept.
type query struct {
	url.Values
	now time.Time
	err error
}

func (q *query) fail(format string, args ...any) {
	if q.err == nil {
		q.err = fmt.Errorf(format, args...)
	}
}

// moment reads a time; one that may be missing is now.
func (q *query) moment(key string, mayMiss bool) time.Time {
	text := q.Get(key)
	if text == "" {
		if !mayMiss {
			q.fail("%s is missing: take a time such as %s=%s", key, key, q.now.UTC().Format(time.RFC3339))
		}
		return q.now
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		q.fail("%s=%q is no time: take RFC 3339, such as %s; a + is written %%2B", key, text, q.now.UTC().Format(time.RFC3339))
	}
	return t
}

func (q *query) span() (from, to time.Time) {
	from, to = q.moment("from", false), q.moment("to", true)
	if !from.Before(to) {
		q.fail("from is not before to: take the earlier time first")
	}
	return from, to
}

// number reads one that may be missing, and is 0 then.
func (q *query) number(key string, least, most int) int {
	text := q.Get(key)
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		q.fail("%s=%q is no number from %d to %d", key, text, least, most)
	}
	return n
}

func (q *query) most() int {
	if n := q.number("most", 1, mostPast); n > 0 {
		return n
	}
	return usualPast
}

// filter reads what a time line counts.
func (q *query) filter() state.Filter {
	f := state.Filter{Series: state.Series{Program: q.Get("process")}, Total: q.Get("total")}
	var err error
	if f.Peer, err = state.PeerOf(q.Get("peer")); err != nil {
		q.fail("peer: %v", err)
	}
	if name := q.Get("state"); name != "" {
		if f.Total != "" {
			q.fail("state and total are two time lines: take one")
		}
		f.Total = "tcp/" + strings.ToUpper(name)
	}
	if f.Total == "" {
		return f
	}
	if f.Peer != "" || f.Program != "" {
		q.fail("states and totals are those of the whole machine: leave peer and process out")
	}
	if lines := state.TimeLines(); !slices.Contains(lines, f.Total) {
		q.fail("%q is no total: take one of %s", f.Total, strings.Join(lines, ", "))
	}
	return f
}
