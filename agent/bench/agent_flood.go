package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// What requests that mean no good may do.
const (
	floodFor   = 30 * time.Second
	floodDelay = time.Second
)

// agentFlood measures what readers that do not read, and requests that nobody
// should send, do to the agent.
func agentFlood(ctx context.Context, f *agentFlags, a *agentRun) error {
	before, err := a.measure()
	if err != nil {
		return err
	}
	address := strings.TrimSuffix(strings.TrimPrefix(a.url, "http://"), "/")
	full := 0
	for range f.clients {
		c, refused, err := idleStream(ctx, address)
		if err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		defer c.Close()
		if refused {
			full++
		}
	}
	bad := []string{
		"GET /../../etc/passwd HTTP/1.1\r\nHost: " + address + "\r\n\r\n",
		"GET /api/v1/../../../etc/shadow HTTP/1.1\r\nHost: " + address + "\r\n\r\n",
		"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: " + address + "\r\n\r\n",
		"GET /api/v1/state HTTP/1.1\r\nHost: evil.example\r\n\r\n",
		"GET /api/v1/state HTTP/1.1\r\nHost: " + address + "\r\nOrigin: http://evil.example\r\n\r\n",
		"GET /api/v1/state HTTP/1.1\r\nHost: " + address + "\r\nSec-Fetch-Site: cross-site\r\n\r\n",
		"POST /api/v1/acts/do HTTP/1.1\r\nHost: " + address + "\r\nOrigin: http://evil.example\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
		"GET / HTTP/1.1\r\nHost: " + address + "\r\nX-Large: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
		"GET /api/v1/connections?peer=" + url.QueryEscape(strings.Repeat("x", 8<<10)) + " HTTP/1.1\r\nHost: " + address + "\r\n\r\n",
	}
	sent, refused, asked, slowest := 0, 0, 0, time.Duration(0)
	last, events := before, a.page.events()
	for began := time.Now(); time.Since(began) < floodFor; {
		for _, request := range bad {
			sent++
			if status, err := rawRequest(ctx, address, request); err == nil && status >= 400 && status < 500 {
				refused++
			}
		}
		at := time.Now()
		if _, err := a.get(ctx, "healthz"); err != nil {
			return fmt.Errorf("others are not served: %w", err)
		}
		asked, slowest = asked+1, max(slowest, time.Since(at))
		if last, err = a.measure(); err != nil {
			return err
		}
		if err := a.sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	t := newTable("%d event streams that nobody reads (%d refused: too many), and requests that nobody should send, for %v", f.clients, full, floodFor)
	t.row("resident memory, the most", mebibytes(last.peak), fmt.Sprintf("%s before", mebibytes(before.peak)), 0)
	t.row("  at the end", mebibytes(last.resident), "-", 0)
	t.row("requests refused, of those with headers too large, paths that lead elsewhere, foreign hosts and origins", fmt.Sprintf("%d of %d", refused, sent), "all", float64(refused)/float64(sent))
	t.took(fmt.Sprintf("the slowest of %d answers to others", asked), slowest, floodDelay)
	t.row("page updates meanwhile", fmt.Sprint(a.page.events()-events), "-", 0)
	return t.print()
}

// idleStream opens an event stream, reads the first line of the answer, and nothing
// more.
func idleStream(ctx context.Context, address string) (c net.Conn, refused bool, err error) {
	if c, err = new(net.Dialer).DialContext(ctx, "tcp", address); err != nil {
		return nil, false, err
	}
	if err := errors.Join(c.(*net.TCPConn).SetReadBuffer(4096), c.SetDeadline(time.Now().Add(10*time.Second))); err != nil {
		return c, false, err
	}
	if _, err := fmt.Fprintf(c, "GET /api/v1/stream HTTP/1.1\r\nHost: %s\r\n\r\n", address); err != nil {
		return c, false, err
	}
	line, err := bufio.NewReaderSize(c, 16).ReadString('\n')
	return c, strings.Contains(line, "503"), err
}

// rawRequest sends a request as it is, and returns the status of the answer.
func rawRequest(ctx context.Context, address, request string) (status int, err error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return 0, err
	}
	written := make(chan error, 1)
	go func() { _, err := c.Write([]byte(request)); written <- err }() // who is refused early need not read it all
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err == nil {
		status = answer.StatusCode
		answer.Body.Close()
	}
	c.Close()
	<-written
	return status, err
}
