package otlp

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// ours are the headers that a message of the protocol has itself.
var ours = []string{"Content-Type", "Content-Encoding", "Content-Length", "Transfer-Encoding", "Connection", "Host"}

// Headers reads headers as OTEL_EXPORTER_OTLP_HEADERS has them: name=value, several
// with commas or line ends between them, a value with %20 for what may not stand
// in it. An error never has a value in it: they are secrets.
func Headers(text string) (http.Header, error) {
	all := make(http.Header)
	for i, one := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' }) {
		one = strings.TrimSpace(one)
		if one == "" || strings.HasPrefix(one, "#") {
			continue
		}
		name, value, is := strings.Cut(one, "=")
		name = strings.TrimSpace(name)
		if !is || name == "" || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
			return nil, fmt.Errorf("header %d is not written as name=value, such as Authorization=Bearer%%20TOKEN", i+1)
		}
		if slices.ContainsFunc(ours, func(o string) bool { return strings.EqualFold(o, name) }) {
			return nil, fmt.Errorf("the header %s is part of each message: leave it out", name)
		}
		value, err := url.PathUnescape(strings.TrimSpace(value)) // a + is one
		if err == nil && strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			err = errors.New("it has control characters")
		}
		if err != nil {
			return nil, fmt.Errorf("the value of the header %s cannot be sent: a %% is written %%25", name)
		}
		all.Add(name, value)
	}
	return all, nil
}
