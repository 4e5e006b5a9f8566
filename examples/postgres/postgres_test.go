//go:build linux

package postgres

import (
	"context"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/examples/internal/stage"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/lifelinetest"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

const (
	address = stage.Far + ":5432"
	url     = "postgres://postgres@" + address + "/postgres"
)

// serve starts a PostgreSQL server on the far machine.
func serve(t *testing.T) *stage.Stage {
	t.Helper()
	s := stage.New(t)
	dir := s.Dir()
	programs := "/usr/lib/postgresql/*/bin/"
	s.Run(dir, stage.Program(t, "initdb", programs+"initdb"),
		"--pgdata="+dir+"/data", "--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
	everybody := "host all all " + stage.Near + "/24 trust\n"
	if err := os.WriteFile(dir+"/data/pg_hba.conf", []byte(everybody), 0o600); err != nil { // the file is there, and nobody's
		t.Fatal(err)
	}
	s.Serve(syscall.SIGINT, address, dir, stage.Program(t, "postgres", programs+"postgres"),
		"-D", dir+"/data", "-h", stage.Far, "-k", "", "-F", "-c", "shared_buffers=4MB", "-c", "max_connections=20")
	return s
}

// ready waits until the server answers queries. It listens before that.
func ready(t *testing.T, query func(seconds int) error) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := query(0)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestPool(t *testing.T) {
	t.Parallel()
	s := serve(t)
	pool, err := Pool(t.Context(), url, s.Dial)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	query := func(seconds int) error {
		var one int
		return pool.QueryRow(t.Context(), "select 1 from pg_sleep($1)", seconds).Scan(&one)
	}
	ready(t, query)
	waits := make(chan error, 1)
	go func() { waits <- query(60) }()
	time.Sleep(500 * time.Millisecond)
	died := s.Die()
	stage.Silent(t, stage.Within(t, died, func() error { return <-waits }), address)
	s.Return()
	ready(t, query) // again, over new connections
}

func TestDB(t *testing.T) {
	t.Parallel()
	s := serve(t)
	db, err := DB(url, s.Dial)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	query := func(seconds int) error {
		var one int
		return db.QueryRowContext(t.Context(), "select 1 from pg_sleep($1)", seconds).Scan(&one)
	}
	ready(t, query)
	waits := make(chan error, 1)
	go func() { waits <- query(60) }()
	time.Sleep(500 * time.Millisecond)
	died := s.Die()
	stage.Silent(t, stage.Within(t, died, func() error { return <-waits }), address)
	s.Return()
	ready(t, query) // again, over new connections
}

// Whoever opens a sql.DB, or a pool, and leaves it: the scope of its dialer closes
// its connections, and nothing opens new ones.
func TestScope(t *testing.T) {
	lifelinetest.NoLeaks(t)
	s := serve(t)
	scope := lifeline.NewScope("report")
	dial := func(ctx context.Context, network, address string) (net.Conn, error) { // as lifeline.Dialer{Scope: scope} does
		return s.Dial(scope.Context(ctx), network, address)
	}
	db, err := DB(url, dial)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() // its goroutine; NoLeaks would name it
	query := func(int) error { return db.QueryRowContext(t.Context(), "select 1").Scan(new(int)) }
	ready(t, query)
	pool, err := Pool(t.Context(), url, dial)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := pool.QueryRow(t.Context(), "select 1").Scan(new(int)); err != nil {
		t.Error(err)
	}
	left := scope.Close()
	if len(left) < 2 {
		t.Errorf("left were %+v", left)
	}
	for _, e := range left {
		if e.Remote != address || e.Scope != "report" {
			t.Errorf("left was %+v", e)
		}
	}
	if err := query(0); err == nil || !strings.Contains(err.Error(), "its scope is closed") {
		t.Errorf("asked after the end of the scope: %v", err)
	}
}
