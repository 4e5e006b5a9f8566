package deploy_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/lifeline-go/lifeline/agent/deploy"
	"github.com/lifeline-go/lifeline/agent/profile"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/internal/need"
)

// flags returns how the Containerfile says that the image is run, without what
// comes first and last: docker run, and the image.
func flags(t *testing.T) []string {
	t.Helper()
	_, text, ok := strings.Cut(deploy.Containerfile, "docker run --detach ")
	text, _, end := strings.Cut(text, "\n#     lifeline\n")
	if !ok || !end {
		t.Fatal("the Containerfile does not say how to run it")
	}
	return strings.Fields(strings.NewReplacer("\\\n#", " ").Replace(strings.TrimSuffix(text, "\\")))
}

// short is a capability as containers have it.
func short(all []profile.Capability) (names []string) {
	for _, c := range all {
		names = append(names, strings.TrimPrefix(c.String(), "CAP_"))
	}
	slices.Sort(names)
	return names
}

// The image and the DaemonSet have the capabilities of the profile observe.
func TestContainersCapabilities(t *testing.T) {
	want := short(profile.Needs(profile.Observe))
	var added []string
	args := flags(t)
	for i, arg := range args {
		if arg == "--cap-add" {
			added = append(added, args[i+1])
		}
	}
	slices.Sort(added)
	if !slices.Equal(added, want) {
		t.Errorf("the image is run with %v, want %v", added, want)
	}
	type container struct {
		Image           string
		SecurityContext struct {
			ReadOnlyRootFilesystem bool `yaml:"readOnlyRootFilesystem"`
			Capabilities           struct{ Drop, Add []string }
		} `yaml:"securityContext"`
	}
	var set struct {
		Kind string
		Spec struct {
			Template struct {
				Spec struct {
					HostNetwork bool `yaml:"hostNetwork"`
					HostPID     bool `yaml:"hostPID"`
					Containers  []container
				}
			}
		}
	}
	for d := yaml.NewDecoder(bytes.NewReader(deploy.DaemonSet)); set.Kind != "DaemonSet"; {
		if err := d.Decode(&set); err != nil {
			t.Fatal(err)
		}
	}
	pod := set.Spec.Template.Spec
	if !pod.HostNetwork || !pod.HostPID || len(pod.Containers) != 1 {
		t.Fatalf("%+v", pod)
	}
	c := pod.Containers[0].SecurityContext
	slices.Sort(c.Capabilities.Add)
	if !slices.Equal(c.Capabilities.Add, want) || !slices.Equal(c.Capabilities.Drop, []string{"ALL"}) || !c.ReadOnlyRootFilesystem {
		t.Errorf("%+v, want %v", c, want)
	}
}

// dockerd starts a daemon of the test's own, and returns a command line that asks it.
func dockerd(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lifeline-docker-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	host := "unix://" + dir + "/socket"
	cmd := exec.Command(need.Program(t, "setpriv"), "--pdeathsig=TERM", need.Program(t, "dockerd"), // which goes when the test is killed
		"--host="+host, "--data-root="+dir+"/data", "--exec-root="+dir+"/exec", "--pidfile="+dir+"/pid",
		"--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it stops its containerd too
		select {
		case <-ended:
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			t.Error("dockerd did not stop")
		}
		log.Close()
	})
	docker := need.Program(t, "docker") + " --host " + host
	for deadline := time.Now().Add(time.Minute); exec.Command("sh", "-c", docker+" version").Run() != nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			said, _ := os.ReadFile(log.Name())
			t.Fatalf("dockerd does not answer: %s", said)
		}
	}
	return docker
}

// TestImage: the image is built, runs as the Containerfile says, and from inside the
// container the agent sees a process outside of it, and which code opens sockets.
func TestImage(t *testing.T) {
	t.Parallel()
	need.Root(t)
	docker := strings.Fields(dockerd(t))
	build := exec.Command("../../scripts/image")
	build.Env = append(os.Environ(), "DOCKER="+strings.Join(docker, " "), "IMAGE=lifeline", "DOCKER_BUILDKIT=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("scripts/image: %v\n%s", err, out)
	}
	outside := exec.Command(need.Program(t, "python3"), "-c", opens)
	if err := outside.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = outside.Process.Kill(); _ = outside.Wait() }()
	ask := func(args ...string) string {
		out, err := exec.Command(docker[0], append(docker[1:len(docker):len(docker)], args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("docker %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	id := strings.TrimSpace(ask(slices.Concat([]string{"run", "--detach"}, flags(t), []string{"lifeline", "agent", "--listen", "127.0.0.1:0", "--passive", "--json"})...))
	defer ask("rm", "--force", id)
	page := regexp.MustCompile(`"page":"(http://[^"]*/)"`)
	var s state.State
	var at []string
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if at = page.FindStringSubmatch(ask("logs", id)); at != nil && stateOf(at[1], &s) && seesPID(&s, outside.Process.Pid) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not see what is outside: blind %+v, sources %+v\n%s", s.Blind, s.Sources, ask("logs", id))
		}
	}
	if s.Agent.Profile != string(profile.Observe) || s.Agent.NotStored != "" {
		t.Errorf("%+v", s.Agent)
	}
}

func stateOf(page string, into *state.State) bool {
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(page + "api/v1/state")
	if err != nil {
		return false
	}
	defer r.Body.Close()
	return json.NewDecoder(r.Body).Decode(into) == nil
}

// seesPID reports whether a line of code of this process is known to open sockets.
func seesPID(s *state.State, pid int) bool {
	return slices.ContainsFunc(s.Leaks, func(l state.Site) bool { return int(l.PID) == pid })
}
