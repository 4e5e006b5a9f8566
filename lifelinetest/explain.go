package lifelinetest

import "fmt"

// A habit is a way in which clients and servers keep goroutines, and what to do
// about it.
type habit struct {
	function string // on the stack
	state    string // of the goroutine; "" = any
	fix      string // %s is who asked for it
}

// habits of what programs use most. A pool of connections is no leak as long as
// its client lives; it is when the client was dropped.
var habits = []habit{
	{"net/http.(*persistConn).readLoop", "select", "A response was not read to its end, or its body was not closed: close the Body of the response that %s got."},
	{"net/http.(*persistConn).readLoop", "", idleHTTP},
	{"net/http.(*persistConn).writeLoop", "", idleHTTP},
	{"net/http.(*http2ClientConn).readLoop", "", idleHTTP},
	{"net/http.(*conn).serve", "", "A server keeps a connection: call Close or Shutdown of the http.Server that %s uses."},
	{"net/http.(*Server).Serve", "", "A server still serves: call Close or Shutdown of the http.Server that %s started."},
	{"database/sql.(*DB).connectionOpener", "", "A sql.DB was not closed: keep one for the life of the program, or call Close of the one that %s opened."},
	{"github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck", "", "A pgxpool.Pool was not closed: keep one for the life of the program, or call Close of the one that %s made."},
	{"google.golang.org/grpc/internal/grpcsync.(*CallbackSerializer).run", "", idleGRPC},
	{"google.golang.org/grpc/internal/transport.(*http2Client).reader", "", idleGRPC},
	{"google.golang.org/grpc/internal/transport.(*controlBuffer).get", "", idleGRPC},
	{"google.golang.org/grpc.(*Server).Serve", "", "A server still serves: call Stop of the grpc.Server that %s started."},
}

const (
	idleHTTP = "An http.Transport keeps the connection for the next request: make one client and reuse it, or call CloseIdleConnections of the one that %s used."
	idleGRPC = "A grpc.ClientConn was not closed: keep one for each server, or call Close of the one that %s made."
)

// pools are those that keep connections of package lifeline, by a function that
// dials for them.
var pools = []habit{
	{function: "net/http.(*Transport).dialConn", fix: idleHTTP},
	{function: "github.com/jackc/pgx/v5/stdlib.connector.Connect", fix: "A sql.DB keeps the connection: keep one for the life of the program, or call Close of the one that %s used."},
	{function: "database/sql.(*DB).conn", fix: "A sql.DB keeps the connection: keep one for the life of the program, or call Close of the one that %s used."},
	{function: "github.com/jackc/pgx/v5/pgxpool.NewWithConfig.func1", fix: "A pgxpool.Pool keeps the connection: keep one for the life of the program, or call Close of the one that %s made."},
	{function: "github.com/redis/go-redis/v9/internal/pool.(*ConnPool).dialConn", fix: "A redis.Client keeps the connection: keep one for the life of the program, or call Close of the one that %s used."},
	{function: "google.golang.org/grpc/internal/transport.NewHTTP2Client", fix: idleGRPC},
}

// explain returns what to do about a leak that somebody asked for, "" where that
// is not known.
func explain(l leak, asker frame) string {
	who := "this test"
	if asker != (frame{}) {
		who = asker.String()
	}
	if text := fix(l); text != "" {
		return fmt.Sprintf(text, who)
	}
	return ""
}

func fix(l leak) string {
	if l.goroutine != nil {
		for _, h := range habits {
			if l.goroutine.runs(h.function) && (h.state == "" || h.state == l.goroutine.state) {
				return h.fix
			}
		}
		return ""
	}
	for _, f := range l.stack() {
		for _, p := range pools {
			if f.Function == p.function {
				return p.fix
			}
		}
	}
	return ""
}
