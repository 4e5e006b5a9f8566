//go:build linux

package vpn

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/lifeline-go/lifeline/names"
)

// The files of a client's directory.
const (
	caFile     = "ca.crt"
	configFile = "config"        // of kubectl
	pluginFile = "keystone-auth" // lifeline by the name of what it plays
)

// Plugin is the program that kubectl and the static client ask for a token: a
// credential plugin, see client.authentication.k8s.io, that goes to Keystone.
// It writes the token to w. Dir has the authority of the office. With install it
// has one line more than such plugins have, names.Install.
func Plugin(ctx context.Context, dir string, install bool, w io.Writer) error {
	if install {
		defer names.Install()()
	}
	response, err := request(ctx, dir, http.MethodPost, "https://"+keystoneName+":"+keystonePort+"/v3/auth/tokens", "")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return json.NewEncoder(w).Encode(credential{
		APIVersion: "client.authentication.k8s.io/v1", Kind: "ExecCredential",
		Status: status{Token: response.Header.Get("X-Subject-Token")},
	})
}

// credential is what a plugin says.
type credential struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Status     status `json:"status"`
}

type status struct {
	Token string `json:"token"`
}

// Client is a static Go program that does what kubectl does: it has the plugin
// give it a token and asks for the nodes of the cluster, whose names it writes
// to w. With install it has names.Install. Plugin is how the plugin is started.
func Client(ctx context.Context, dir string, install bool, plugin []string, w io.Writer) error {
	if install {
		defer names.Install()()
	}
	token, err := ask(ctx, plugin)
	if err != nil {
		return fmt.Errorf("getting credentials: %w", err)
	}
	response, err := request(ctx, dir, http.MethodGet, "https://"+apiName+":"+apiPort+"/api/v1/nodes", token)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var nodes struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	if err := json.NewDecoder(response.Body).Decode(&nodes); err != nil {
		return err
	}
	for _, node := range nodes.Items {
		fmt.Fprintln(w, node.Metadata.Name)
	}
	return nil
}

// ask has the plugin give a token.
func ask(ctx context.Context, plugin []string) (string, error) {
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, plugin[0], plugin[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return "", errors.New(lastLine(said.String(), err))
	}
	var c credential
	err := json.Unmarshal(out.Bytes(), &c)
	return c.Status.Token, err
}

// request asks the office, with net/http as it is.
func request(ctx context.Context, dir, method, url, token string) (*http.Response, error) {
	ca, err := os.ReadFile(filepath.Join(dir, caFile))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	transport.DisableKeepAlives = true // the process ends
	r, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	response, err := transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 {
		response.Body.Close()
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return response, nil
}

// lastLine returns what a program said last, or how it ended.
func lastLine(said string, err error) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return last
	}
	return err.Error()
}
