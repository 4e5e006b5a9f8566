package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// only knows one name.
type only struct{}

func (only) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if host != "api.lab" {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return []netip.Addr{netip.MustParseAddr("127.0.0.99"), netip.MustParseAddr("127.0.0.1")}, nil // nobody is at the first
}

func serve(t *testing.T) *Server {
	t.Helper()
	s, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	s.Names = only{}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Serve(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return s
}

// A program that honours HTTPS_PROXY reaches a name that only the system knows.
func TestConnect(t *testing.T) {
	t.Parallel()
	s := serve(t)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer server.Close()
	env := s.Environment([]string{"HOME=/"})
	if len(env) != 3 || !slices.Contains(env, "HOME=/") {
		t.Fatalf("the environment is %q", env)
	}
	_, value, _ := strings.Cut(env[1], "=")
	proxy, err := url.Parse(value)
	if err != nil {
		t.Fatal(err)
	}
	client := server.Client()
	transport := client.Transport.(*http.Transport)
	transport.Proxy = http.ProxyURL(proxy)
	transport.TLSClientConfig.ServerName = "example.com" // of httptest's certificate
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	response, err := client.Get("https://api.lab:" + port)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if string(text) != "ok" {
		t.Errorf("it gets %q", text)
	}
	transport.CloseIdleConnections()
	if _, err := client.Get("https://other.lab:" + port); err == nil || !strings.Contains(err.Error(), "Bad Gateway") {
		t.Errorf("an unknown name: %v", err)
	}
}

// Who does not know the token, or wants something else, is refused.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := serve(t)
	for request, want := range map[string]string{
		"CONNECT api.lab:443 HTTP/1.1\r\n\r\n":                                            "407",
		"CONNECT api.lab:443 HTTP/1.1\r\nProxy-Authorization: Basic bGlmZWxpbmU6\r\n\r\n": "407",
		"GET http://api.lab/ HTTP/1.1\r\nHost: api.lab\r\n\r\n":                           "407",
		"nonsense\r\n\r\n": "400",
	} {
		if got := exchange(t, s, request); !strings.HasPrefix(got, "HTTP/1.1 "+want) {
			t.Errorf("%q is answered by %q, want %s", request, got, want)
		}
	}
	authorization := fmt.Sprintf("Proxy-Authorization: %s\r\n\r\n", basic(s))
	for request, want := range map[string]string{"GET http://api.lab/ HTTP/1.1\r\nHost: api.lab\r\n": "405", "CONNECT nowhere HTTP/1.1\r\nHost: nowhere\r\n": "502"} {
		if got := exchange(t, s, request+authorization); !strings.HasPrefix(got, "HTTP/1.1 "+want) {
			t.Errorf("%q is answered by %q, want %s", request, got, want)
		}
	}
}

func basic(s *Server) string {
	request, _ := http.NewRequest(http.MethodGet, "http://x", nil)
	request.SetBasicAuth(user, s.Token)
	return request.Header.Get("Authorization")
}

func exchange(t *testing.T, s *Server, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(conn, request)
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return line
}

// The end of one direction is passed on, and the other goes on.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	s := serve(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		all, _ := io.ReadAll(conn) // until the end
		_, _ = conn.Write(append(all, " back"...))
	}()
	conn, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nProxy-Authorization: %s\r\n\r\nearly", listener.Addr(), basic(s)) // what follows at once is passed on too
	_ = conn.(*net.TCPConn).CloseWrite()
	all, err := io.ReadAll(conn)
	if err != nil || !strings.HasSuffix(string(all), "\r\n\r\nearly back") {
		t.Errorf("%q %v", all, err)
	}
}

// A proxy that is set already stays.
func TestOwnProxy(t *testing.T) {
	s := serve(t)
	env := []string{"https_proxy=http://proxy.example:3128"}
	if got := s.Environment(env); !slices.Equal(got, env) {
		t.Errorf("it becomes %q", got)
	}
}
