package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
)

const (
	// silence is how long a stream may say nothing: an agent without news says so
	// every 15 s.
	silence = 40 * time.Second

	// again is how long is waited before an agent that is gone is asked again.
	again = 2 * time.Second
)

// Follow hands over each state as it comes, the first at once, until ctx ends. An
// agent that is gone, does not answer or falls silent for 40 s is told to lost,
// each time that it is tried in vain, and it is tried again every 2 s; what it knows
// by then comes first.
func (a *Agent) Follow(ctx context.Context, take func(*state.State), lost func(error)) {
	for last := ""; ; {
		err := a.stream(ctx, &last, take)
		if ctx.Err() != nil {
			return
		}
		lost(err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(a.again):
		}
	}
}

// stream reads one stream to its end. Last is the id of the last event.
func (a *Agent) stream(ctx context.Context, last *string, take func(*state.State)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dead := time.AfterFunc(a.silence, func() { cancel(fmt.Errorf("it said nothing for %v", a.silence)) })
	defer dead.Stop()
	header := http.Header{"Accept": {"text/event-stream"}}
	if *last != "" {
		header.Set("Last-Event-ID", *last)
	}
	w, err := a.get(ctx, "/api/v1/stream", nil, header)
	if err != nil {
		return cmpCause(ctx, err)
	}
	defer w.Body.Close()
	lines := bufio.NewScanner(w.Body)
	lines.Buffer(nil, mostBytes)
	var id string
	var data []byte
	for lines.Scan() {
		dead.Reset(a.silence)
		line := lines.Bytes()
		if field, is := bytes.CutPrefix(line, []byte("id: ")); is {
			id = string(field)
		} else if field, is := bytes.CutPrefix(line, []byte("data: ")); is {
			data = append(data[:0], field...)
		}
		if len(line) > 0 || len(data) == 0 {
			continue
		}
		s := new(state.State)
		if err := json.Unmarshal(data, s); err != nil || s.Run == "" {
			return errors.Join(ErrNoAgent, err)
		}
		data, *last = data[:0], id
		take(s)
	}
	if err := lines.Err(); err != nil {
		return cmpCause(ctx, err)
	}
	return fmt.Errorf("it ended the stream: %w", io.EOF)
}
