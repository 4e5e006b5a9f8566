package ledgerhttp_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/ledger"
	"github.com/lifeline-go/lifeline/ledger/ledgerhttp"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func get(method, target string) (code int, kind, body string) {
	w := httptest.NewRecorder()
	ledgerhttp.Handler().ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w.Code, w.Header().Get("Content-Type"), w.Body.String()
}

func TestHandler(t *testing.T) {
	scope := ledger.NewScope("build 42")
	defer scope.Close()
	for range 3 {
		if _, err := ledger.Enter(scope.Context(t.Context()), nil, "dial", io.NopCloser(nil)); err != nil {
			t.Fatal(err)
		}
	}
	code, kind, text := get(http.MethodGet, "/")
	if code != http.StatusOK || !strings.HasPrefix(kind, "text/plain") {
		t.Errorf("got %d, %s", code, kind)
	}
	for _, part := range []string{"open: 3, in groups: 1", "COUNT", "build 42", "ledgerhttp_test.TestHandler ledgerhttp_test.go:", "\tgithub.com/lifeline-go/lifeline/ledger/ledgerhttp_test.TestHandler\n"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in:\n%s", part, text)
		}
	}
	code, kind, text = get(http.MethodGet, "/?format=json")
	var document struct {
		Schema  string
		Open    []ledger.Entry
		Dropped []ledger.Loss
	}
	if err := json.Unmarshal([]byte(text), &document); err != nil || code != http.StatusOK || kind != "application/json" {
		t.Fatalf("got %d, %s, %v", code, kind, err)
	}
	if len(document.Open) != 3 || document.Schema != "lifeline/v1" || document.Dropped == nil || document.Open[0].Scope != "build 42" || document.Open[0].Asked == nil {
		t.Errorf("got %s", text)
	}
	if code, _, text = get(http.MethodGet, "/?format=xml"); code != http.StatusBadRequest || !strings.Contains(text, "format=json") {
		t.Errorf("got %d, %s", code, text)
	}
	if code, _, _ = get(http.MethodPost, "/"); code != http.StatusMethodNotAllowed {
		t.Errorf("got %d", code)
	}
}
