//go:build linux

package grpc

import (
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/examples/internal/stage"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/lifelinetest"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestStream(t *testing.T) {
	t.Parallel()
	s := stage.New(t)
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	ln, served := s.ListenFar(stage.Far+":80"), make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	defer func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	conn, err := Client("passthrough:///"+stage.Far+":80", s.Dial, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := grpc_health_v1.NewHealthClient(conn)
	if _, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	stream, err := client.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	died := s.Die()
	err = stage.Within(t, died, func() error { _, err := stream.Recv(); return err })
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "lifeline: silence: read "+stage.Far+":80: the peer is silent") {
		t.Errorf("got %v", err)
	}
}

// A ClientConn for each call, never closed: the scope closes its connection, and
// NoLeaks would say that its goroutines stay until Close.
func TestScope(t *testing.T) {
	lifelinetest.NoLeaks(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, served := grpc.NewServer(), make(chan error, 1)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	go func() { served <- server.Serve(ln) }()
	defer func() {
		server.Stop()
		<-served
	}()
	scope := lifeline.NewScope("call")
	dialer := lifeline.Dialer{Scope: scope}
	conn, err := Client("passthrough:///"+ln.Addr().String(), dialer.DialContext, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Error(err)
	}
	if left := scope.Close(); len(left) != 1 || left[0].Remote != ln.Addr().String() || !strings.HasSuffix(left[0].Site().Function, "/grpc.Client.func1") {
		t.Errorf("left were %+v", left)
	}
	_, err = grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "its scope is closed") {
		t.Errorf("called after the end of the scope: %v", err)
	}
}
