// Package http is the recipe for net/http: requests return when the server goes
// silent, and handlers end when the client does.
package http

import (
	"context"
	"net"
	"net/http"
)

// Client returns a client over connections that dial makes, which is the
// DialContext of a lifeline.Dialer:
//
//	var dialer lifeline.Dialer
//	client := Client(dialer.DialContext)
//
// A request whose server goes silent returns an error in which errors.As finds
// the *lifeline.Error. A server that is slow stays: for one that lives and does
// not answer, a request needs a context with a deadline.
//
// A client that is made for one task keeps its connections after it. Let the task
// have a scope, whose Close closes them and says who asked for them; package http
// passes the values of a request's context to dial, and with them the scope:
//
//	scope := lifeline.NewScope("task")
//	defer scope.Close()
//	request, err := http.NewRequestWithContext(scope.Context(ctx), …)
//
// A client that several tasks share must not: what one of them dialed the others
// use. Give its dialer a scope that lives as long: lifeline.Dialer{Scope: …}.
//
// Package http itself repeats a request that may be repeated, on another
// connection, when its connection was an old one and ended before any answer.
func Client(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = dial
	return &http.Client{Transport: transport}
}

// Watch is a handler that sends events until the client leaves. When the
// server got its listener from lifeline.Listen, the context of a request ends
// also when its client goes silent:
//
//	ln, err := lifeline.Listen("tcp", ":8080")
//	…
//	err = http.Serve(ln, Watch(events))
func Watch(events <-chan string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := http.NewResponseController(w)
		w.Header().Set("Content-Type", "text/event-stream")
		_ = out.Flush()
		for {
			select {
			case <-r.Context().Done():
				return
			case event := <-events:
				if _, err := w.Write([]byte("data: " + event + "\n\n")); err != nil || out.Flush() != nil {
					return
				}
			}
		}
	})
}
