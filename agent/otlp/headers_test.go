package otlp_test

import (
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/agent/otlp"
)

func TestHeaders(t *testing.T) {
	for text, want := range map[string]http.Header{
		"":                                      {},
		"Authorization=Bearer%20abc":            {"Authorization": {"Bearer abc"}},
		"authorization = Basic YTpi+c== , x-a=": {"Authorization": {"Basic YTpi+c=="}, "X-A": {""}},
		"# for the collector\na=1\n\nb=2%2C3\n": {"A": {"1"}, "B": {"2,3"}},
		"a=1,a=2":                               {"A": {"1", "2"}},
	} {
		got, err := otlp.Headers(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	const secret = "c0rrecthorse"
	for _, text := range []string{secret, "Authorization: Bearer " + secret, "=" + secret, "a b=" + secret, "a=%zz" + secret, "a=" + secret + "%0d%0ab: c", "Content-Type=" + secret, "host=" + secret} {
		if got, err := otlp.Headers(text); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
