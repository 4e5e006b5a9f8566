package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/lab/websocket"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/internal/need"
)

var storyConnections = flag.Int("story", 1000, "connections of TestAgentStory; 4224 in the true one")

const (
	storyRate    = 500
	storyPeer    = "10.77.1.1"           // the node that dies, as the clients know it
	storySpare   = "10.77.4.1"           // the one that does not
	storyKept    = 50                    // connections by the spare node from the beginning, which nothing may happen to
	storyWebhook = "127.0.0.1:9093"      // in the namespace of the clients
	storyPoll    = 50 * time.Millisecond // between looks at what the agent shows
)

const spareRules = `
table ip nat {
	chain pre {
		type nat hook prerouting priority dstnat
		ip daddr 10.77.4.1 tcp dport 30080 dnat to 10.77.5.2:8080
	}
	chain post {
		type nat hook postrouting priority srcnat
		oifname "eth1" tcp dport 8080 masquerade
	}
}`

// ends are the client processes of the story, and what they tell.
type ends struct {
	mu          sync.Mutex
	open        int             // processes that have all their connections
	ended, back []time.Duration // of connections, by websocket.Now
	errors      map[string]int
}

func (e *ends) take(ev websocket.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch ev.What {
	case websocket.Open:
		e.open++
	case websocket.Ended:
		e.ended = append(e.ended, ev.At)
		e.errors[ev.Error]++
	case websocket.Back:
		e.back = append(e.back, ev.At)
	}
}

func (e *ends) counts() (open, ended, back int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.open, len(e.ended), len(e.back)
}

// startEnd starts a process of the story on a host, until the test ends.
func startEnd(t *testing.T, on *lab.Host, told func(websocket.Event), args ...string) {
	t.Helper()
	cmd := exec.Command("lifeline", append([]string{"lab"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = on.Do(cmd.Start)
	}
	if err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e websocket.Event
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				told(e)
			}
		}
	})
	t.Cleanup(func() { _ = cmd.Process.Kill(); reading.Wait(); _ = cmd.Wait() })
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !is(); time.Sleep(storyPoll) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// inside asks over HTTP from a host.
func inside(h *lab.Host) *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, network, addr string) (c net.Conn, err error) {
		err = h.Do(func() error { c, err = net.Dial(network, addr); return err })
		return c, err
	}}}
}

// seen are the moments at which each place showed the finding.
type seen struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (s *seen) note(where string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at[where].IsZero() {
		s.at[where] = time.Now()
	}
}

func (s *seen) all(places ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(places, func(p string) bool { return s.at[p].IsZero() })
}

// story is the stage: a load balancer whose clients go by one node, and by a spare
// one when that ends.
type story struct {
	*lab.Story
	n      int
	ends   *ends
	seen   *seen
	client *http.Client
	agent  *agentProcess
	past   string // file of the history
}

func newStory(t *testing.T, n int) *story {
	t.Helper()
	l := lab.New(t)
	s := &story{Story: l.Story(lab.NFTables), n: n, ends: &ends{errors: make(map[string]int)}, seen: &seen{at: make(map[string]time.Time)}, past: filepath.Join(t.TempDir(), "history.db")}
	spare := l.Host("spare")
	l.Wire(s.LB, "10.77.4.2/24", spare, storySpare+"/24")
	l.Wire(s.Pod, "10.77.5.2/24", spare, "10.77.5.1/24")
	spare.Sysctl("net.ipv4.ip_forward", "1")
	spare.Nft(spareRules)
	for _, h := range []*lab.Host{s.LB, s.Pod} { // the next hop answers for ever, as the gateway of a cloud does
		h.Sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms", "600000")
	}
	s.client = inside(s.LB)
	ready := make(chan struct{}, 1)
	startEnd(t, s.Pod, func(e websocket.Event) {
		if e.What == websocket.Ready {
			ready <- struct{}{}
		}
	}, "websocket-server", "--listen", "0.0.0.0:8080", "--heartbeat", "30s")
	<-ready
	s.alertmanager(t)
	s.connect(t)
	s.agent = runAgentOn(t, s.LB, fmt.Sprintf("acts:\n  cut: {on: [S001], per_second: %d}\nignore:\n  codes: [L001]\n", storyRate),
		"--netns", "self", "--history", s.past, "--webhook", "http://"+storyWebhook+"/api/v2/alerts")
	return s
}

// alertmanager starts a real one beside the clients.
func (s *story) alertmanager(t *testing.T) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "alertmanager.yml")
	if err := os.WriteFile(config, []byte("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(need.Program(t, "prometheus-alertmanager"), "--config.file="+config, "--storage.path="+t.TempDir(),
		"--web.listen-address="+storyWebhook, "--cluster.listen-address=")
	if err := s.LB.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	eventually(t, "Alertmanager to listen", func() bool { return s.fetch("http://"+storyWebhook+"/-/ready") == "OK" })
}

// alerted reports that Alertmanager has the finding, as one alert.
func (s *story) alerted() bool {
	var alerts []struct{ Labels, Annotations map[string]string }
	if json.Unmarshal([]byte(s.fetch("http://"+storyWebhook+"/api/v2/alerts")), &alerts) != nil {
		return false
	}
	found := 0
	for _, a := range alerts {
		if a.Labels["code"] == "S001" && strings.Contains(a.Annotations["summary"], s.words()) {
			found++
		}
	}
	return found == 1
}

// words are in every telling of the finding.
func (s *story) words() string {
	return fmt.Sprintf("%s is silent: %s connections", storyPeer, verdict.Number(s.n))
}

// connect opens all connections.
func (s *story) connect(t *testing.T) {
	t.Helper()
	const processes = 4
	for i := range processes {
		share := s.n*(i+1)/processes - s.n*i/processes
		startEnd(t, s.LB, s.ends.take, "websocket-clients", "--url", "ws://"+storyPeer+":30080", "--again", "ws://"+storySpare+":30080",
			"--connections", fmt.Sprint(share), "--spread", "15s")
	}
	startEnd(t, s.LB, s.ends.take, "websocket-clients", "--url", "ws://"+storySpare+":30080", "--connections", fmt.Sprint(storyKept), "--spread", "15s")
	eventually(t, "all connections to open", func() bool { open, _, _ := s.ends.counts(); return open == processes+1 })
}

func (s *story) get(path string) string { return s.fetch(s.agent.page + path) }

// fetch is what is served, "" when nothing is.
func (s *story) fetch(url string) string {
	r, err := s.client.Get(url)
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	text, _ := io.ReadAll(r.Body)
	return string(text)
}

// follow notes when a place shows the finding, until it does or the test ends.
func (s *story) follow(t *testing.T, where string, every time.Duration, shows func() bool) {
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for !shows() {
			select {
			case <-stop:
				return
			case <-time.After(every):
			}
		}
		s.seen.note(where)
	}()
	t.Cleanup(func() { close(stop); <-ended })
}

// watch looks at every place where the agent shows what it knows.
func (s *story) watch(t *testing.T) {
	s.follow(t, "page", storyPoll, func() bool { return strings.Contains(s.get(""), s.words()) })
	s.follow(t, "state", storyPoll, func() bool { return s.oneFinding() == nil })
	s.follow(t, "alert", storyPoll, s.alerted)
	s.follow(t, "metrics", storyPoll, func() bool {
		return strings.Contains(s.get("metrics"), fmt.Sprintf("\nlifeline_finding_connections{code=\"S001\",promise=\"silence\"} %d\n", s.n))
	})
	s.follow(t, "top", 4*storyPoll, func() bool {
		cmd := exec.Command("lifeline", "top", "--once", "--agent", strings.TrimSuffix(s.agent.page, "/"))
		var out strings.Builder
		cmd.Stdout = &out
		if s.LB.Do(cmd.Start) != nil {
			return false
		}
		_ = cmd.Wait()
		return strings.Contains(out.String(), s.words())
	})
}

// oneFinding returns an error unless the State has one finding of the promise of
// silence that stands for itself, and all connections in it.
func (s *story) oneFinding() error {
	var now state.State
	if err := json.Unmarshal([]byte(s.get("api/v1/state")), &now); err != nil {
		return err
	}
	var roots []string
	for i := range now.Findings {
		if f := &now.Findings[i]; f.Resolved == nil && f.Cause == "" && f.Promise == verdict.Silence && f.Severity == verdict.Fail {
			roots = append(roots, fmt.Sprint(f.Code, " ", f.Count))
		}
	}
	if want := fmt.Sprintf("S001 %d", s.n); !slices.Equal(roots, []string{want}) {
		return fmt.Errorf("the findings are %q, not %s", roots, want)
	}
	return nil
}

// count is how many connections with a peer the history has at a moment.
func (s *story) count(t *testing.T, at time.Time, peer string) (n int) {
	t.Helper()
	var d struct {
		Groups []struct {
			Peer  string
			Count int
		}
	}
	stdout, _, code := lifeline(t, "census", "--history", s.past, "--at", at.Format(time.RFC3339), "--json")
	if code > exitFindings || json.Unmarshal([]byte(stdout), &d) != nil {
		return -1 // nothing was written yet
	}
	for _, g := range d.Groups {
		if g.Peer == peer {
			n += g.Count
		}
	}
	return n
}

// The story as a whole: a node dies that only forwarded. What its death would do
// was foretold; the agent finds it and shows it everywhere as one finding; by its
// policy the clients are back, spread as paced; and the history has the moment.
func TestAgentStory(t *testing.T) {
	t.Parallel()
	labNeeds(t, lab.NFTables)
	s := newStory(t, *storyConnections)
	eventually(t, "the history to have them", func() bool { return s.count(t, time.Now(), storyPeer) == s.n })
	var told state.Loss
	if err := json.Unmarshal([]byte(s.get("api/v1/whatif?peer="+storyPeer)), &told); err != nil || told.Count != s.n || told.Idle.Last == nil || *told.Idle.Last < 100 || *told.Idle.Last > 150 {
		t.Fatalf("what-if says %+v, %v", told, err)
	}
	s.watch(t)
	before, died := time.Now(), websocket.Now()
	s.Node.Unplug()
	f := s.agent.next("finding")
	for f.Code != "S001" {
		f = s.agent.next("finding")
	}
	s.seen.note("log")
	if f.Count != told.Count {
		t.Errorf("foretold were %d connections, and there are %d", told.Count, f.Count)
	}
	if !strings.Contains(f.Title, s.words()) {
		t.Errorf("the finding is %q", f.Title)
	}
	places := []string{"log", "page", "state", "metrics", "top", "alert"}
	eventually(t, "the finding everywhere", func() bool { return s.seen.all(places...) })
	done := s.agent.next("act ended")
	if done.Act != "cut" || done.Done != s.n || done.Left != 0 || done.Error != "" {
		t.Errorf("the act is %+v", done)
	}
	eventually(t, "the clients to be back", func() bool { _, _, back := s.ends.counts(); return back == s.n })
	s.tell(t, before, died, &told, done, places)
	s.remembers(t, before)
	s.agent.end()
}

// tell checks and logs when what was.
func (s *story) tell(t *testing.T, before time.Time, died time.Duration, told *state.Loss, done said, places []string) {
	t.Helper()
	var now state.State
	if err := json.Unmarshal([]byte(s.get("api/v1/state")), &now); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(now.Findings, func(f state.Finding) bool { return f.Code == "S001" && strings.Contains(f.Title, storyPeer) })
	if i < 0 {
		t.Fatal("the finding is not remembered")
	}
	f := &now.Findings[i]
	verdictAt := f.First
	if bound, ok := f.Bound.Get(); !ok || bound.Seconds()+f.First.Sub(before).Seconds() > *told.Idle.Last+20 || bound.Seconds() < *told.Idle.Last-40 {
		t.Errorf("foretold was %v s for the last to learn, and the kernel would have taken %v", *told.Idle.Last, f.Bound)
	}
	t.Logf("%d connections; foretold: %d, the last would learn after %.0f s", s.n, told.Count, *told.Idle.Last)
	t.Logf("verdict %.3f s after the death", verdictAt.Sub(before).Seconds())
	for _, p := range places {
		after := s.seen.at[p].Sub(verdictAt)
		t.Logf("%-8s %.3f s after the verdict", p, after.Seconds())
		if after > 20*time.Second {
			t.Errorf("%s shows it after %v", p, after)
		}
	}
	back := slices.Sorted(slices.Values(s.ends.back))
	t.Logf("%s: %s; clients back from %.3f s to %.3f s after the death", done.Target, done.Outcome, (back[0] - died).Seconds(), (back[len(back)-1] - died).Seconds())
	most, from := 0, 0
	for i := range back {
		for back[i]-back[from] > time.Second {
			from++
		}
		most = max(most, i-from+1)
	}
	t.Logf("at most %d came back within a second", most)
	if most > storyRate*3/2 {
		t.Errorf("%d came back within a second at %d a second", most, storyRate)
	}
	if n := s.ends.errors["software caused connection abort"]; n != s.n || len(s.ends.ended) != s.n {
		t.Errorf("%d connections ended, by %v", len(s.ends.ended), s.ends.errors)
	}
}

// remembers checks that the history has the moment.
func (s *story) remembers(t *testing.T, before time.Time) {
	t.Helper()
	eventually(t, "the history to have the other node", func() bool {
		return s.count(t, time.Now(), storySpare) > s.n/2+storyKept && s.count(t, time.Now(), storyPeer) == 0
	})
	if then, now := s.count(t, before, storyPeer), s.count(t, time.Now(), storyPeer); then != s.n || now != 0 {
		t.Errorf("the history has %d connections before and %d after", then, now)
	}
	var d state.Difference
	document(t, &d, "diff", "--history", s.past, "--from", before.Format(time.RFC3339), "--to", time.Now().Format(time.RFC3339))
	went := slices.ContainsFunc(d.Went, func(c state.Change) bool { return c.Peer == storyPeer && c.From == s.n && c.To == 0 })
	grew := slices.ContainsFunc(d.Grew, func(c state.Change) bool {
		return c.Peer == storySpare && c.From == storyKept && c.To > s.n/2+storyKept
	})
	found := slices.ContainsFunc(d.Findings, func(f state.PastFinding) bool { return f.Code == "S001" })
	if !went || !grew || !found {
		t.Errorf("lifeline diff says %+v", d)
	}
}
