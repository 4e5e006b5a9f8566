package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/lifeline-go/lifeline/agent/state"
)

// NoToken is why nobody can ask an agent without a token for an act.
const NoToken = "acts need a token, since every user of this machine can ask: start lifeline agent with --token-file"

// mostOrder is how many bytes an order may have.
const mostOrder = 4 << 10

// Acts is who acts. What it refuses is a [*state.Refusal].
type Acts interface {
	Acts() []state.Act // the latest, newest first
	Plan(ctx context.Context, act, finding string) (state.Plan, error)
	Do(ctx context.Context, plan string) (state.Act, error)
}

// orders are what may be asked for by POST: an act, in two steps.
func (s *server) orders() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/api/v1/acts/plan": func(w http.ResponseWriter, r *http.Request) {
			var o struct{ Act, Finding string }
			if err := s.order(w, r, &o); err == nil {
				plan, err := s.Acts.Plan(r.Context(), o.Act, o.Finding)
				done(w, plan, err)
			}
		},
		"/api/v1/acts/do": func(w http.ResponseWriter, r *http.Request) {
			var o struct{ Plan string }
			if err := s.order(w, r, &o); err == nil {
				act, err := s.Acts.Do(r.Context(), o.Plan)
				done(w, act, err)
			}
		},
	}
}

// order reads an order, or answers why there is none, which is its error. Of all
// other requests [server.ServeHTTP] has seen already that they come from no page
// of another origin, and carry the token.
func (s *server) order(w http.ResponseWriter, r *http.Request, into any) error {
	status, err := http.StatusBadRequest, error(nil)
	kind, _, wrong := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case s.Acts == nil:
		status, err = http.StatusForbidden, errors.New("this agent does nothing")
	case s.Token == "":
		status, err = http.StatusForbidden, errors.New(NoToken)
	case wrong != nil || kind != "application/json": // a form of another page cannot send this
		status, err = http.StatusUnsupportedMediaType, errors.New("send it as Content-Type: application/json")
	case r.URL.RawQuery != "":
		err = errors.New("an order has no query: it is the body")
	default:
		if err = readOrder(r.Body, into); err != nil {
			err = fmt.Errorf("the order cannot be read: %w", err)
		}
	}
	if err != nil {
		refuse(w, status, err.Error())
	}
	return err
}

// readOrder reads one JSON object with known keys, and nothing after it.
func readOrder(body io.Reader, into any) error {
	text, err := io.ReadAll(io.LimitReader(body, mostOrder+1))
	switch {
	case err != nil:
		return err
	case len(text) > mostOrder:
		return fmt.Errorf("it has more than %d bytes", mostOrder)
	case !json.Valid(text):
		return errors.New("it is no JSON")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into) // valid text is one value, with nothing after it
}

// done answers an order.
func done(w http.ResponseWriter, document any, err error) {
	var refused *state.Refusal
	switch {
	case err == nil:
		answer(w, document, nil)
	case errors.As(err, &refused) && refused.Stale:
		refuse(w, http.StatusConflict, refused.Why)
	case refused != nil:
		refuse(w, http.StatusForbidden, refused.Why)
	default:
		refuse(w, http.StatusBadRequest, err.Error())
	}
}

// acts are the latest.
func (s *server) acts(w http.ResponseWriter, _ *http.Request) {
	list := []state.Act{}
	if s.Acts != nil {
		list = append(list, s.Acts.Acts()...)
	}
	answer(w, struct {
		Schema string      `json:"schema"`
		Acts   []state.Act `json:"acts"`
	}{s.Agent.State().Schema, list}, nil)
}
