package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/lab"
)

// actAs is what bench runs as users' programs: itself, which is static and so
// has nothing but Go's own resolver.
func actAs(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("which?")
	}
	switch args[0] {
	case "get":
		return get(ctx, args[1:])
	case "plugin":
		return plugin(ctx, args[1])
	case "calls":
		return makeCalls(args[1], args[2])
	case "slices":
		return makeSlices(args[1])
	case "filtered":
		return makeFiltered(args[1])
	case "least":
		return leastTrap(args[1], args[2])
	case "starts":
		return startOnce(args[1:])
	case "lookups":
		return lookUp(ctx, args[1:])
	}
	return fmt.Errorf("%q is none", args[0])
}

// apiServer is in the place of a Kubernetes API server and of a Keystone.
type apiServer struct {
	server *httptest.Server
	port   int
}

const (
	apiHost   = "api.corp.example"
	tokenHost = "keystone.corp.example"
	token     = "very-secret"
)

func serveAPI(host *lab.Host) (*apiServer, error) {
	listener, err := listen(host, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/token", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, token) })
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if auth := r.Header.Get("Authorization"); auth != "" && auth != "Bearer "+token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, "ok")
	})
	server := httptest.NewUnstartedServer(mux)
	_ = server.Listener.Close()
	server.Listener = listener
	server.StartTLS()
	return &apiServer{server, listener.Addr().(*net.TCPAddr).Port}, nil
}

func (a *apiServer) close() { a.server.Close() }

func (a *apiServer) url(path string) string {
	return fmt.Sprintf("https://%s:%d%s", apiHost, a.port, path)
}

// kubeconfig makes kubectl ask a plugin for its credentials.
func (v *vpn) kubeconfig() string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: lab
contexts: [{name: lab, context: {cluster: lab, user: lab}}]
clusters: [{name: lab, cluster: {server: %q, insecure-skip-tls-verify: true}}]
users:
- name: lab
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      interactiveMode: Never
      command: %q
      args: [program, plugin, "https://%s:%d/token"]
`, v.api.url(""), v.file("bench"), tokenHost, v.api.port)
}

var insecure = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}

// fetch gets a page; the certificate is not judged.
func fetch(ctx context.Context, url, bearer string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	response, err := insecure.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", errors.New(response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return string(text), err
}

// credential is ExecCredential of client.authentication.k8s.io/v1, as much of it
// as is needed.
type credential struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Status     struct {
		Token string `json:"token"`
	} `json:"status"`
}

// plugin logs in and prints a credential.
func plugin(ctx context.Context, url string) error {
	text, err := fetch(ctx, url, "")
	if err != nil {
		return err
	}
	c := credential{APIVersion: "client.authentication.k8s.io/v1", Kind: "ExecCredential"}
	c.Status.Token = text
	return json.NewEncoder(os.Stdout).Encode(c)
}

// get is a client that may have a plugin.
func get(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("get", flag.ContinueOnError)
	by := flags.String("plugin", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var c credential
	if *by != "" {
		out, err := exec.CommandContext(ctx, *by, "program", "plugin", strings.Replace(strings.Replace(flags.Arg(0), apiHost, tokenHost, 1), "/healthz", "/token", 1)).Output()
		if err != nil {
			return err
		}
		if err := json.Unmarshal(out, &c); err != nil {
			return err
		}
	}
	text, err := fetch(ctx, flags.Arg(0), c.Status.Token)
	fmt.Println(text)
	return err
}

// startOnce prints when a program that tells the time did so, and when it had ended.
func startOnce(line []string) error {
	began := time.Now()
	text, err := exec.Command(line[0], line[1:]...).Output()
	ended := time.Since(began)
	told, err2 := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	fmt.Println(time.Unix(0, told).Sub(began), ended)
	return errors.Join(err, err2)
}

// lookUp looks names up and prints how many times that failed.
func lookUp(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("lookups", flag.ContinueOnError)
	signals := flags.Bool("signals", false, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var numbers [3]int
	for i := range numbers {
		var err error
		if numbers[i], err = strconv.Atoi(flags.Arg(i)); err != nil {
			return err
		}
	}
	if *signals {
		go func() {
			for range time.Tick(3 * time.Millisecond) {
				_ = unix.Kill(unix.Getpid(), unix.SIGURG)
			}
		}()
	}
	var failed atomic.Int64
	var running sync.WaitGroup
	for i := range numbers[0] {
		running.Go(func() {
			for j := range numbers[1] {
				name := fmt.Sprintf("host%d.corp.example", (i+j)%numbers[2])
				if _, err := net.DefaultResolver.LookupHost(ctx, name); err != nil {
					failed.Add(1)
					fmt.Fprintln(os.Stderr, err)
				}
			}
		})
	}
	running.Wait()
	fmt.Println(failed.Load())
	if failed.Load() > 0 {
		return errors.New("lookups failed")
	}
	return nil
}
