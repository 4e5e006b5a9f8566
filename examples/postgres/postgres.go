// Package postgres is the recipe for PostgreSQL: pgx by itself, and pgx below
// database/sql.
package postgres

import (
	"context"
	"database/sql"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

// Dial makes connections: the DialContext of a lifeline.Dialer.
type Dial = func(ctx context.Context, network, address string) (net.Conn, error)

// Pool returns a pool over connections that dial makes:
//
//	var dialer lifeline.Dialer
//	pool, err := Pool(ctx, "postgres://…", dialer.DialContext)
//
// A query whose server goes silent returns an error in which errors.As finds
// the *lifeline.Error. A server that thinks for an hour is alive; for that a
// query needs a context with a deadline.
//
// A pool dials for whoever comes first, and others use the connection, so a pool
// belongs to a scope that lives as long as it: lifeline.Dialer{Scope: scope}.
//
// Names are looked up by pgx itself before it dials, so the bound for that is
// its own: connect_timeout in the URL.
func Pool(ctx context.Context, url string, dial Dial) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.ConnConfig.DialFunc = dial
	return pgxpool.NewWithConfig(ctx, config)
}

// DB is Pool for those who use database/sql. The *lifeline.Error is there too
// for a query that was under way. A connection that is found dead before a query
// was sent is driver.ErrBadConn to database/sql, which takes another one by
// itself, so that no query sees it.
func DB(url string, dial Dial) (*sql.DB, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.DialFunc = dial
	return stdlib.OpenDB(*config), nil
}
