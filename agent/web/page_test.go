package web

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/web/chromium"
	"github.com/lifeline-go/lifeline/internal/need"
)

// sockets is how many the machine of the page's tests has.
const sockets = 20_000

// opened is a tab that shows a view of the agent, live.
func opened(t *testing.T, b *chromium.Browser, at, view string) *chromium.Page {
	t.Helper()
	p := b.Page(t)
	show(p, at, view)
	return p
}

func show(p *chromium.Page, at, view string) {
	p.Go("http://" + at + "/#/" + view)
	name, _, _ := strings.Cut(view, "?")
	p.Until(fmt.Sprintf(`document.querySelector("body.app nav [aria-current]")?.hash.startsWith("#/%s")`, name))
}

// well fails the test when the page complained, or asked anybody but its agent.
func well(t *testing.T, p *chromium.Page, at string) {
	t.Helper()
	for _, c := range p.Complaints() {
		if !strings.Contains(c, "404 (Not Found) http://"+at+"/api/") { // it asked for what this agent does not keep, and was told
			t.Errorf("the page complains: %q", c)
		}
	}
	asked := p.Requests()
	if len(asked) == 0 {
		t.Error("no request was seen")
	}
	for _, url := range asked {
		if !strings.HasPrefix(url, "http://"+at+"/") && !strings.HasPrefix(url, "data:") { // Chromium's own icons in inputs
			t.Errorf("the page asked for %s", url)
		}
	}
}

// views are what can be seen, and what each must show and do.
var views = map[string]func(*testing.T, *chromium.Page){
	"overview": seeOverview, "picture": seePicture, "whatif": seeWhatIf, "calls": seeCalls, "leaks": seeLeaks,
	"names": seeNames, "time": seeTime, "acts": seeActs, "agent": seeAgent,
}

// TestInBrowser is all that is tested in a browser: one, which takes a while to start.
func TestInBrowser(t *testing.T) {
	b := chromium.Start(t)
	for name, test := range map[string]func(*testing.T, *chromium.Browser){"views": testViews, "restart": testRestart, "empty": testEmpty, "no script": testNoScript,
		"password": testPassword, "acts": testActs, "looks": testLooks, "keyboard": testKeyboard, "scale": testScale} {
		t.Run(name, func(t *testing.T) { test(t, b) })
	}
}

func testViews(t *testing.T, b *chromium.Browser) {
	store := past(t)
	at := serving(t, newServer(Options{Agent: newMachine(sockets), History: func() (History, error) { return store, nil }}))
	for name, see := range views {
		t.Run(name, func(t *testing.T) {
			p := opened(t, b, at, name)
			see(t, p)
			var document string
			p.Eval(`document.querySelector("main a.json").getAttribute("href")`, &document)
			if status, header, _ := get(t, at, document); status != 200 || header.Get("Content-Type") != "application/json" {
				t.Errorf("the view as JSON is %s: %d", document, status)
			}
			well(t, p, at)
		})
	}
}

func seeOverview(t *testing.T, p *chromium.Page) {
	for _, text := range []string{"2 promises are broken", "10.77.1.2 is silent: 4,000 connections", "unanswered exchanges", "18 KiB", "The other end, or the path to it, stopped answering without a word.",
		"lifeline poke 10.77.1.2", "First seen", "unnoticed for up to 15 min 30 s", "Explains 1 other finding", "20,000 sockets of 41 processes"} {
		p.Has(text)
	}
	p.Click(".command button")
	p.Until(`["Copied", "Select it"].includes(document.querySelector(".command button").textContent)`)
	p.Click(".hides summary")
	p.Click(".hides a") // to what it explains, which then names its cause
	p.Has("Explained by S001")
	p.Click(".choice button:nth-child(2)")
	p.Has("the first nameserver could not be reached")
	p.Click("input.filter")
	p.Type("no such finding")
	p.Has("No finding fits.")
}

func seePicture(t *testing.T, p *chromium.Page) {
	p.Until(`document.querySelector("canvas").style.width`)
	p.Until(`new Uint32Array(document.querySelector("canvas").getContext("2d").getImageData(0, 0, 800, 600).data.buffer).some(c => c !== 0)`)
	// By keyboard: what is silent comes first.
	p.Eval(`document.querySelector("canvas").focus()`, nil)
	p.Keys("ArrowDown")
	p.Until(`/chat-server.*10\.77\.1\.2: 4,000 connections, silent.*noticed when idle: never/.test(document.querySelector(".tip").textContent)`)
	p.Keys("Enter")
	p.Has("4,000 connections, as of")
	p.Until(`document.querySelectorAll(".drawer tbody tr").length === 25 && document.querySelector(".drawer tbody").innerText.includes("10.77.1.2:8080")`)
	p.Click(".drawer th:nth-child(6) button")
	p.Until(`document.querySelector('.drawer th[aria-sort="descending"]').innerText.startsWith("silent for")`)
	longest := `document.querySelector(".drawer tbody td:nth-child(6)").innerText`
	p.Until(longest + ` === "15 min"`)
	p.Click(".drawer th:nth-child(6) button") // the other way round
	p.Until(`document.querySelector('.drawer th[aria-sort="ascending"]').innerText.startsWith("silent for") && ` + longest + ` === "0 ms"`)
	p.Click(".pager button:last-child")
	p.Has("26 to 50 of 4,000")
	p.Keys("Escape")
	p.Until(`!document.querySelector(".drawer")`)
	// By pointer: a program, found as somebody would, by its name beside the pointer.
	var place [2]float64
	p.Eval(`document.querySelector(".canvas").scrollIntoView({ block: "center" })`, nil)
	painted(p)
	p.Eval(`(() => {
		const canvas = document.querySelector("canvas");
		const box = canvas.getBoundingClientRect(), tip = document.querySelector(".tip");
		for (let y = 2; y < box.height; y += 4) {
			canvas.dispatchEvent(new MouseEvent("mousemove", { clientX: box.x + 225, clientY: box.y + y, bubbles: true }));
			if (tip.textContent.startsWith("ingress-nginx (ingress.service): ")) { return [box.x + 225, box.y + y]; }
		}
		throw new Error("no such program in the picture");
	})()`, &place)
	p.ClickAt(place[0], place[1])
	p.Until(`document.querySelector(".drawer h2").innerText === "ingress-nginx" && location.hash.includes("process=ingress-nginx")`)
	p.Has("6,400 connections, as of")
	p.Click(".drawer .close")
	p.Until(`!document.querySelector(".drawer")`)
	p.Click(".choice button:nth-child(4)") // what is silent
	p.Until(`document.querySelectorAll("main tbody tr").length === 1`)
}

func seeWhatIf(t *testing.T, p *chromium.Page) {
	p.Click("#dead")
	p.Type(silentPeer)
	p.Keys("Enter")
	for _, text := range []string{"If 10.77.1.2 dies, 4,000 connections fall silent.", "after 15 min 29 s", "chat-server"} {
		p.Has(text)
	}
	p.Click(`tbody a[aria-label="if it dies: 10.48.9.1"]`)
	p.Has("If 10.48.9.1 dies, 374 connections fall silent.")
	p.Click("#dead")
	p.Eval(`document.querySelector("#dead").select()`, nil)
	p.Type("192.0.2.1")
	p.Keys("Enter")
	p.Has("Nobody here has a connection with 192.0.2.1.")
}

func seeCalls(t *testing.T, p *chromium.Page) {
	p.Has("10.77.1.2:9000")
	p.Has("88 s")
	p.Click("main details summary")
	p.Has("chat.(*hub).read")
}

func seeLeaks(t *testing.T, p *chromium.Page) {
	p.Has("docker.NewEnv docker/docker.go:42 in drone-runner 4004")
	p.Click("main article button.open")
	p.Has("A client is made for each build and never closed")
	p.Has("github.com/drone/drone-runtime/engine/docker/docker.go:42")
	p.Until(`document.querySelector(".chart canvas") && document.querySelector("svg.spark")`)
	p.Click(".choice button:nth-child(3)") // suspects
	p.Until(`document.querySelectorAll("main article").length === 1`)
}

func seeNames(t *testing.T, p *chromium.Page) {
	for _, text := range []string{"no answer within 2 s", "answers in 1 ms", "not asked", "db.example.com", "i/o timeout", "Go's own resolver", "hosts: files dns"} {
		p.Has(text)
	}
}

func seeTime(t *testing.T, p *chromium.Page) {
	p.Has("120 records since")
	p.Until(`document.querySelector(".chart .u-over")`)
	p.Has("S001 10.77.1.2 is silent")
	p.Has("When most changed")
	p.Until(`/10\.77\.1\.2 4,224 → 0 ws-server/.test(document.querySelector('section[aria-label="When most changed"]').innerText)`)
	x, y, width, height := p.Rests(".chart .u-over")
	p.Drag(x+width*0.25, y+height/2, x+width*0.75, y+height/2) // five minutes before they vanished to five after
	p.Has("what changed from")
	p.Until(`[...document.querySelectorAll(".diff table")].some(t => t.caption.innerText === "Went" && t.innerText.includes("10.77.1.2") && t.innerText.includes("4,224"))`)
	p.Has("findings then")
	p.Click(".diff .links a")
	p.Has("4,227 connections in 2 groups")
	p.Click(".chart .u-over") // in the middle: just before they vanished
	p.Until(`!document.querySelector(".diff") && document.querySelector('section[aria-label="As it was"]').innerText.includes("12:09:5")`)
	// The same without a pointer, and of one peer.
	p.Until(`document.querySelector("#from").value && (document.querySelector("#from").value = "2026-11-20T12:01")`)
	p.Click("form.ask button")
	p.Has("1 peer came, 1 went")
	p.Click(`input[name="peer"]`)
	p.Type("10.77.2.9")
	p.Keys("Enter")
	p.Until(`/from 3 to 3/.test(document.querySelector(".chart").getAttribute("aria-label"))`)
}

func seeActs(t *testing.T, p *chromium.Page) {
	p.Has("does by itself")
	p.Has("Nothing was done.")
	p.Until(`performance.getEntriesByType("resource").some(e => e.name.endsWith("/api/v1/acts"))`)
	painted(p)
}

func seeAgent(t *testing.T, p *chromium.Page) {
	for _, text := range []string{"late: 10.0.0.53 does not answer", "off: policy", "0.83 % of one", "42 MiB", "/var/lib/lifeline/history.db", "20,000 sockets in 84 ms"} {
		p.Has(text)
	}
}

// The page says when it has lost its agent, and goes on when another run of it
// answers, from where it was.
func testRestart(t *testing.T, b *chromium.Browser) {
	first := newMachine(100)
	served := newServer(Options{Agent: first})
	var mu sync.Mutex
	var resumed []string
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		now := served
		if r.URL.Path == "/api/v1/stream" {
			resumed = append(resumed, r.Header.Get("Last-Event-ID"))
		}
		mu.Unlock()
		now.ServeHTTP(w, r)
	})
	at, stop := servingAt(t, need.Address(t), handler)
	p := opened(t, b, at, "overview")
	first.tell(func(s *state.State) { s.Host = "renamed.example" })
	p.Has("renamed.example")
	stop()
	p.Has("No connection to the agent since")
	p.Until(`document.title.startsWith("no connection")`)

	second := newMachine(100)
	second.tell(func(s *state.State) { s.Run, s.Seq, s.Host = "RUN2", 1, "again.example" })
	mu.Lock()
	served = newServer(Options{Agent: second})
	mu.Unlock()
	servingAt(t, at, handler)
	p.Has("the agent was restarted at")
	p.Has("again.example")
	second.tell(func(s *state.State) { s.Host = "and.on.example" })
	p.Has("and.on.example")
	mu.Lock()
	defer mu.Unlock()
	if !slices.Contains(resumed, "RUN1/8") {
		t.Errorf("it asked for what came after %q", resumed)
	}
}

// An agent that has just begun knows nothing, and each view says so.
func testEmpty(t *testing.T, b *chromium.Browser) {
	at := serving(t, newServer(Options{Agent: &agent{now: &state.State{Seq: 1}, next: make(chan struct{})}}))
	p := opened(t, b, at, "overview")
	p.Has("Nothing was looked at yet")
	const unlooked = "Not looked at yet."
	for key, says := range map[string]string{"2": unlooked, "3": unlooked, "4": unlooked, "5": "None was seen yet.", "6": unlooked, "7": "no history is kept", "8": "Nothing was done.", "9": unlooked} {
		p.Keys(key)
		p.Has(says)
	}
	well(t, p, at)
}

func testNoScript(t *testing.T, b *chromium.Browser) {
	at := serving(t, newServer(Options{Agent: newMachine(sockets)}))
	p := b.Page(t)
	p.Scripts(false)
	p.Go("http://" + at + "/")
	text := p.Text()
	for _, has := range []string{"Lifeline on node-a.example", "broken", "10.77.1.2 is silent: 4,000 connections", "lifeline poke 10.77.1.2", "unanswered_exchanges", "docker.NewEnv",
		"10.0.0.53", "no answer within 2 s", "never", "10.77.1.2:9000", "and 162 more, in the JSON", "late: 10.0.0.53 does not answer"} {
		if !strings.Contains(text, has) {
			t.Errorf("without JavaScript it does not say %q", has)
		}
	}
	p.Scripts(true) // what is there stays; a screenshot waits for a script of its own
	p.Screenshot(filepath.Join(shots, "no-javascript.png"))
	well(t, p, at)
}

// A browser that is asked for a password sends the token as one, for the stream as
// for the page.
func testPassword(t *testing.T, b *chromium.Browser) {
	m := newMachine(100)
	at := serving(t, newServer(Options{Agent: m, Token: "correct horse"}))
	wrong := b.Page(t)
	wrong.Password("me", "guess")
	if status := wrong.Go("http://" + at + "/"); status != 401 {
		t.Errorf("with another password: %d", status)
	}
	p := b.Page(t)
	p.Password("me", "correct horse")
	show(p, at, "whatif?dead=10.77.1.2")
	p.Has("fall silent")
	m.tell(func(s *state.State) { s.Host = "told.example" })
	p.Has("told.example")
}

// hand is who acts as the page asks.
type hand struct {
	mu  sync.Mutex
	did []state.Act
}

func (h *hand) Acts() []state.Act { h.mu.Lock(); defer h.mu.Unlock(); return h.did }

func (h *hand) Plan(_ context.Context, act, finding string) (state.Plan, error) {
	return state.Plan{ID: "plan of " + finding, Act: act, Target: "connections with " + silentPeer, Count: 4000, Text: "cuts 4,000 connections, 500 a second", Expires: time.Now().Add(time.Minute)}, nil
}

func (h *hand) Do(_ context.Context, plan string) (state.Act, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	a := state.Act{ID: plan, Time: now, Ended: &now, Act: "cut", By: "page", Target: "connections with " + silentPeer, Done: 4000, Outcome: "4,000 connections cut"}
	h.did = append(h.did, a)
	return a, nil
}

// An act takes two steps, and an agent without a token takes none.
func testActs(t *testing.T, b *chromium.Browser) {
	m, h := newMachine(sockets), &hand{}
	m.now.Agent.ByHand = []state.ByHand{{Act: "cut", On: []string{"S001"}}}
	at := serving(t, newServer(Options{Agent: m, Acts: h, Token: "correct horse"}))
	p := b.Page(t)
	p.Password("me", "correct horse")
	show(p, at, "overview")
	p.Click(".deed button")
	p.Has("cuts 4,000 connections, 500 a second")
	p.Has("Nothing was done yet.")
	p.Click(".confirm button:last-child") // leave it
	p.Until(`!document.querySelector(".confirm")`)
	p.Click(".deed button")
	painted(p)
	if n := len(h.Acts()); n > 0 {
		t.Fatalf("%d acts were done by asking", n)
	}
	p.Until(`document.querySelector("button.danger").innerText === "Do it: cut 4,000 connections"`)
	p.Screenshot(filepath.Join(shots, "confirm.png"))
	p.Click("button.danger")
	p.Has("4,000 connections cut")
	if acts := h.Acts(); len(acts) != 1 || !strings.HasPrefix(acts[0].ID, "plan of S001 ") {
		t.Errorf("done: %+v", acts)
	}
	p.Click(".deed .links a")
	p.Until(`document.querySelector("main tbody").innerText.includes("connections with 10.77.1.2")`)

	// Where it may not be done it is not offered, and the page says why, at once.
	m.tell(func(s *state.State) {
		s.Agent.ByHand = []state.ByHand{{Act: "cut", On: []string{"S001"}, Why: NoToken}}
	})
	show(p, at, "overview")
	p.Has("This page does not offer to cut: acts need a token")
	p.Until(`!document.querySelector(".deed button")`)
	m.tell(func(s *state.State) { s.Agent.ByHand = []state.ByHand{{Act: "cut", On: []string{"S009"}}} })
	p.Has("the policy does not allow to cut on S001")
}
