// Package docker is the recipe for clients that nobody closes. A build agent
// makes a Docker client for each build and gives it to an engine that keeps it
// and has no Close; after 9,000 builds 18,000 unix sockets to dockerd are open.
// The engine is somebody else's, so here nothing of it is changed: the agent
// makes the client, so that its connections are in the scope of the build.
package docker

import (
	"context"
	"net"

	"github.com/docker/docker/client"
)

// Client returns a Docker client over connections that dial makes, which is the
// DialContext of a lifeline.Dialer:
//
//	scope := lifeline.NewScope("build 42")
//	defer scope.Close() // closes what the engine leaves open
//	dialer := lifeline.Dialer{Scope: scope}
//	docker, err := Client("unix:///var/run/docker.sock", dialer.DialContext)
//	…
//	engine := vendored.New(docker)
//
// client.NewEnvClient, which the engine would call by itself, dials on its own:
// with a function of its own, and a pool for each client that keeps two
// connections for ever.
func Client(host string, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*client.Client, error) {
	at, err := client.ParseHostURL(host)
	if err != nil {
		return nil, err
	}
	return client.NewClientWithOpts(client.WithHost(host), client.WithAPIVersionNegotiation(),
		client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) { // of the URL, which has no place for a path
			return dial(ctx, at.Scheme, at.Host)
		}))
}
