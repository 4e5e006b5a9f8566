// Package ledgerhttp serves the ledger of this process over HTTP:
//
//	http.Handle("/debug/ledger", ledgerhttp.Handler())
//
// Like package net/http/pprof it belongs on a port that only its operators
// reach: it tells where the program is connected to, and its source lines. It is
// a package of its own so that package lifeline does not bring net/http to those
// who have no other use for it.
package ledgerhttp

import (
	"bytes"
	"net/http"

	"github.com/lifeline-go/lifeline/ledger"
)

// Handler returns what answers GET with the text of [ledger.Write], and with
// ?format=json with the document of [ledger.WriteJSON].
func Handler() http.Handler { return http.HandlerFunc(serve) }

func serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the ledger can only be read", http.StatusMethodNotAllowed)
		return
	}
	write, kind := ledger.Write, "text/plain; charset=utf-8"
	switch format := r.URL.Query().Get("format"); format {
	case "", "text":
	case "json":
		write, kind = ledger.WriteJSON, "application/json"
	default:
		http.Error(w, "there is format=text and format=json", http.StatusBadRequest)
		return
	}
	var page bytes.Buffer // all of it first: who reads slowly holds nothing
	if err := write(&page); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(page.Bytes())
}
