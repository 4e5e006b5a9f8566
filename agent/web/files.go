package web

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"net/http"
	"strconv"
	"strings"
)

// The live page is made of app/ by app/build.
//
//go:generate app/build

var (
	//go:embed static/app.js
	appText []byte

	//go:embed static/style.css
	styleText []byte

	//go:embed static/licences.txt
	licencesText []byte

	//go:embed app/icon.svg
	iconText []byte
)

// files are what the page is made of, each packed once.
func files() map[string]http.HandlerFunc {
	all := make(map[string]http.HandlerFunc)
	for path, file := range map[string]struct {
		kind string
		text []byte
	}{
		"/app.js":       {"text/javascript; charset=utf-8", appText},
		"/style.css":    {"text/css; charset=utf-8", styleText},
		"/licences.txt": {"text/plain; charset=utf-8", licencesText},
		"/icon.svg":     {"image/svg+xml", iconText},
	} {
		small := packed(file.text)
		all[path] = func(w http.ResponseWriter, r *http.Request) { send(w, r, file.kind, file.text, small) }
	}
	return all
}

// send writes text, packed for who takes that.
func send(w http.ResponseWriter, r *http.Request, kind string, text, packed []byte) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Vary", "Accept-Encoding")
	if takesGzip(r.Header.Values("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		text = packed
	}
	h.Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text)
}

// takesGzip reads Accept-Encoding, as browsers and curl write it: a list, in which
// q=0 refuses.
func takesGzip(accepted []string) bool {
	for one := range strings.SplitSeq(strings.Join(accepted, ","), ",") {
		name, weight, _ := strings.Cut(one, ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			_, q, _ := strings.Cut(weight, "=")
			return strings.Trim(q, " 0.") != "" || q == ""
		}
	}
	return false
}

func packed(text []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(text) // a buffer takes all
	_ = z.Close()
	return b.Bytes()
}
