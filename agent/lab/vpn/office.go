//go:build linux

package vpn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"time"
)

// The names that only the operating system's way knows, and what is behind them.
const (
	apiName      = "api.corp.test"
	keystoneName = "keystone.corp.test"
	apiPort      = "6443"
	keystonePort = "5000"
)

// nodeName is what a client that got through is told: the only node of the cluster.
const nodeName = "worker-1"

const closeTime = 2 * time.Second // for a server of the office to end

// office is what the clients want to reach: a Kubernetes API server, as far as
// `kubectl get nodes` goes, and a Keystone that gives it the token.
type office struct {
	ca      []byte // PEM
	token   string
	servers []*http.Server
}

// listener listens on the office's host.
type listener func(network, addr string) net.Listener

// openOffice starts both servers.
func openOffice(listen listener, addr string) (*office, error) {
	cert, ca, err := certificate(apiName, keystoneName)
	if err != nil {
		return nil, fmt.Errorf("the office's certificate: %w", err)
	}
	o := &office{ca: ca, token: rand.Text()}
	for port, handler := range map[string]http.Handler{apiPort: o.apiServer(), keystonePort: o.keystone()} {
		server := &http.Server{
			Handler: handler, ReadHeaderTimeout: 10 * time.Second, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
			ErrorLog: log.New(io.Discard, "", 0), // clients that give up are the story
		}
		ln := listen("tcp", net.JoinHostPort(addr, port))
		o.servers = append(o.servers, server)
		go func() { _ = server.ServeTLS(ln, "", "") }() // until close
	}
	return o, nil
}

func (o *office) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	for _, s := range o.servers {
		if s.Shutdown(ctx) != nil {
			_ = s.Close()
		}
	}
}

// apiServer knows the requests of `kubectl get nodes`.
func (o *office) apiServer() http.Handler {
	documents := map[string]any{
		"/api":  map[string]any{"kind": "APIVersions", "versions": []string{"v1"}},
		"/apis": map[string]any{"kind": "APIGroupList", "apiVersion": "v1", "groups": []string{}},
		"/api/v1": map[string]any{"kind": "APIResourceList", "groupVersion": "v1", "resources": []any{
			map[string]any{"name": "nodes", "singularName": "node", "kind": "Node", "shortNames": []string{"no"}, "verbs": []string{"get", "list"}},
		}},
		"/api/v1/nodes": map[string]any{"kind": "NodeList", "apiVersion": "v1", "metadata": struct{}{}, "items": []any{
			map[string]any{"kind": "Node", "apiVersion": "v1", "metadata": map[string]any{"name": nodeName}},
		}},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		document, ok := documents[r.URL.Path]
		switch {
		case r.Header.Get("Authorization") != "Bearer "+o.token:
			http.Error(w, "not the token that Keystone gave", http.StatusUnauthorized)
		case !ok:
			http.NotFound(w, r)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(document) // a client that has gone
		}
	})
}

// keystone answers as Identity API v3 does: the token is a header.
func (o *office) keystone() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v3/auth/tokens", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Subject-Token", o.token)
		w.WriteHeader(http.StatusCreated)
	})
	return mux
}

// certificate makes one that is its own authority.
func certificate(names ...string) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lifeline lab"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
