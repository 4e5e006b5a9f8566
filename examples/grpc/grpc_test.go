//go:build linux

package grpc

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/lifeline-go/lifeline/examples/internal/stage"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
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
