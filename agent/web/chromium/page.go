package chromium

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Page is a tab that knows nothing of other tabs.
type Page struct {
	t       testing.TB
	browser *Browser
	session string

	requests, complaints []string // under the browser's lock, as are these:
	user, password       string
	answered             map[string]bool // requests that were given the password
	status               int             // of the document

	width, height int // of the window
}

type object = map[string]any

// Page opens a tab, which is closed when the test ends.
func (b *Browser) Page(t testing.TB) *Page {
	t.Helper()
	p := &Page{t: t, browser: b}
	var context struct {
		ID string `json:"browserContextId"`
	}
	p.call("Target.createBrowserContext", nil, &context)
	var target struct {
		ID string `json:"targetId"`
	}
	p.call("Target.createTarget", object{"url": "about:blank", "browserContextId": context.ID}, &target)
	var attached struct {
		Session string `json:"sessionId"`
	}
	p.call("Target.attachToTarget", object{"targetId": target.ID, "flatten": true}, &attached)
	b.mu.Lock()
	p.session = attached.Session
	b.pages[p.session] = p
	b.mu.Unlock()
	t.Cleanup(func() {
		_, _ = b.ask("", "Target.disposeBrowserContext", object{"browserContextId": context.ID})
		b.mu.Lock()
		delete(b.pages, attached.Session)
		b.mu.Unlock()
	})
	for _, domain := range []string{"Page", "Runtime", "Network", "Log", "Performance"} {
		p.call(domain+".enable", nil, nil)
	}
	p.Size(1280, 900)
	return p
}

// call sends a command and reads its answer into result, nil for none.
func (p *Page) call(method string, params, result any) {
	p.t.Helper()
	raw, err := p.browser.ask(p.session, method, params)
	if err == nil && result != nil {
		err = json.Unmarshal(raw, result)
	}
	if err != nil {
		p.t.Fatalf("%s: %v", method, err)
	}
}

// note keeps what a page asks for, and what goes wrong in it.
func (p *Page) note(method string, params json.RawMessage) {
	var event struct {
		Request struct {
			URL string `json:"url"`
		} `json:"request"`
		RequestID string `json:"requestId"`
		Entry     struct {
			Level, Text, URL string
		} `json:"entry"`
		Exception struct {
			Text      string
			Exception struct{ Description string }
		} `json:"exceptionDetails"`
		Type     string `json:"type"`
		Response struct {
			Status int
		}
		Args []struct {
			Value any `json:"value"`
		} `json:"args"`
	}
	if json.Unmarshal(params, &event) != nil {
		return
	}
	switch method {
	case "Network.requestWillBeSent":
		p.requests = append(p.requests, event.Request.URL)
	case "Network.responseReceived":
		if event.Type == "Document" {
			p.status = event.Response.Status
		}
	case "Fetch.requestPaused", "Fetch.authRequired":
		go p.paused(method, event.RequestID)
	case "Log.entryAdded":
		if event.Entry.Level == "error" {
			p.complaints = append(p.complaints, event.Entry.Text+" "+event.Entry.URL)
		}
	case "Runtime.exceptionThrown":
		p.complaints = append(p.complaints, event.Exception.Text+" "+event.Exception.Exception.Description)
	case "Runtime.consoleAPICalled":
		if event.Type == "error" || event.Type == "warning" {
			p.complaints = append(p.complaints, fmt.Sprint(event.Args))
		}
	}
}

// Requests are the addresses that were asked for so far.
func (p *Page) Requests() []string {
	p.browser.mu.Lock()
	defer p.browser.mu.Unlock()
	return append([]string(nil), p.requests...)
}

// Complaints are errors of scripts, of the network and of the page's policy so far.
func (p *Page) Complaints() []string {
	p.browser.mu.Lock()
	defer p.browser.mu.Unlock()
	return append([]string(nil), p.complaints...)
}

// Go loads an address and returns the status it was answered with; 0 where only
// what follows the # is another.
func (p *Page) Go(url string) (status int) {
	p.t.Helper()
	p.browser.mu.Lock()
	p.status = 0
	p.browser.mu.Unlock()
	var gone struct {
		Error string `json:"errorText"`
	}
	if p.call("Page.navigate", object{"url": url}, &gone); gone.Error != "" && gone.Error != "net::ERR_INVALID_AUTH_CREDENTIALS" {
		p.t.Fatalf("%s: %s", url, gone.Error)
	}
	p.browser.mu.Lock()
	defer p.browser.mu.Unlock()
	return p.status
}

// Text is what the page says, also where it may run no scripts.
func (p *Page) Text() string {
	p.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		var text *string
		p.Eval(`document.readyState === "complete" ? document.body.innerText : null`, &text)
		if text != nil {
			return *text
		}
		if time.Now().After(end) {
			p.t.Fatal("the page was not loaded in time")
		}
	}
}

// Eval evaluates JavaScript, waits for what it promises, and reads that into
// result, nil for none.
func (p *Page) Eval(script string, result any) {
	p.t.Helper()
	var got struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		Exception *struct {
			Text      string
			Exception struct{ Description, Value string }
		} `json:"exceptionDetails"`
	}
	p.call("Runtime.evaluate", object{"expression": script, "awaitPromise": true, "returnByValue": true}, &got)
	if e := got.Exception; e != nil {
		p.t.Fatalf("%.300s: %s %s%s\nthe page complains: %q", script, e.Text, e.Exception.Description, e.Exception.Value, p.Complaints())
	}
	if result == nil {
		return
	}
	if err := json.Unmarshal(got.Result.Value, result); err != nil {
		p.t.Fatalf("%.300s: %v", script, err)
	}
}

// Until waits until an expression is true.
func (p *Page) Until(condition string) {
	p.t.Helper()
	p.Eval(fmt.Sprintf(`new Promise((found, never) => {
		const end = performance.now() + 30000;
		const look = () => {
			let is = false;
			try { is = %s } catch {}
			if (is) return found();
			if (performance.now() > end) return never("it never came; the page has: " + document.body.innerText.slice(0, 1500));
			setTimeout(look, 10);
		};
		look();
	})`, condition), nil)
}

// Has waits until the page shows a text.
func (p *Page) Has(text string) {
	p.t.Helper()
	p.Until(fmt.Sprintf("document.body.innerText.toLowerCase().includes(%q.toLowerCase())", text))
}

// Click presses the pointer on the first element that a selector finds, as soon as
// it is there, rests, and nothing covers it.
func (p *Page) Click(selector string) {
	p.t.Helper()
	x, y, width, height := p.Rests(selector)
	p.ClickAt(x+width/2, y+height/2)
}

// Rests waits until the first element that a selector finds is where it stays and
// nothing covers it, and returns where in the window that is.
func (p *Page) Rests(selector string) (x, y, width, height float64) {
	p.t.Helper()
	var box [4]float64
	p.Until(fmt.Sprintf("document.querySelector(%q)", selector))
	p.Eval(fmt.Sprintf(`new Promise((found, never) => {
		const selector = %q, end = performance.now() + 30000;
		let was = "";
		const look = () => {
			const e = document.querySelector(selector);
			e?.scrollIntoView({ block: "center" });
			const r = e?.getBoundingClientRect(), box = r && [r.x, r.y, r.width, r.height], now = String(box);
			if (box && now === was && e.contains(document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2))) return found(box);
			if (performance.now() > end) return never("nobody can click on " + selector);
			was = now;
			requestAnimationFrame(() => requestAnimationFrame(look));
		};
		look();
	})`, selector), &box)
	return box[0], box[1], box[2], box[3]
}

// ClickAt presses the pointer at a place of the window.
func (p *Page) ClickAt(x, y float64) {
	p.t.Helper()
	p.Drag(x, y, x, y)
}

// Drag presses the pointer at one place and lets it go at another.
func (p *Page) Drag(x, y, toX, toY float64) {
	p.t.Helper()
	mouse := func(kind string, x, y float64, buttons int) {
		p.call("Input.dispatchMouseEvent", object{"type": kind, "x": x, "y": y, "button": "left", "buttons": buttons, "clickCount": 1}, nil)
	}
	mouse("mouseMoved", x, y, 0)
	mouse("mousePressed", x, y, 1)
	if x != toX || y != toY {
		mouse("mouseMoved", (x+toX)/2, (y+toY)/2, 1)
		mouse("mouseMoved", toX, toY, 1)
	}
	mouse("mouseReleased", toX, toY, 0)
}

// codes are the keys that have no text.
var codes = map[string]int{"Escape": 27, "Enter": 13, "Tab": 9, "ArrowDown": 40, "ArrowUp": 38}

// Keys presses keys, one after the other: names such as Escape, or characters.
func (p *Page) Keys(keys ...string) {
	p.t.Helper()
	for _, key := range keys {
		code, named := codes[key]
		text := key
		switch {
		case key == "Enter":
			text = "\r"
		case named:
			text = ""
		}
		kind := "keyDown"
		if text == "" {
			kind = "rawKeyDown"
		}
		p.call("Input.dispatchKeyEvent", object{"type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code}, nil)
		p.call("Input.dispatchKeyEvent", object{"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}, nil)
	}
}

// Type puts text where the focus is.
func (p *Page) Type(text string) {
	p.t.Helper()
	p.call("Input.insertText", object{"text": text}, nil)
}

// Busy is how long the page has been computing so far: scripts, layout and painting,
// in processor time of its main thread, which is the same on a busy machine.
func (p *Page) Busy() time.Duration {
	p.t.Helper()
	var got struct {
		Metrics []struct {
			Name  string
			Value float64
		}
	}
	p.call("Performance.getMetrics", nil, &got)
	for _, m := range got.Metrics {
		if m.Name == "ThreadTime" {
			return time.Duration(m.Value * float64(time.Second))
		}
	}
	p.t.Fatal("the browser does not say how long it computed")
	return 0
}

// Size makes the window so large.
func (p *Page) Size(width, height int) {
	p.t.Helper()
	p.width, p.height = width, height
	p.call("Emulation.setDeviceMetricsOverride", object{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
}

// Prefer says what the user prefers, such as prefers-color-scheme: dark.
func (p *Page) Prefer(feature, value string) {
	p.t.Helper()
	p.call("Emulation.setEmulatedMedia", object{"features": []object{{"name": feature, "value": value}}}, nil)
}

// Scripts turns JavaScript on or off, from now on.
func (p *Page) Scripts(on bool) {
	p.t.Helper()
	p.call("Emulation.setScriptExecutionDisabled", object{"value": !on}, nil)
}

// Password is what is typed where the browser asks for a user and a password.
func (p *Page) Password(user, password string) {
	p.t.Helper()
	p.browser.mu.Lock()
	p.user, p.password, p.answered = user, password, make(map[string]bool)
	p.browser.mu.Unlock()
	p.call("Fetch.enable", object{"handleAuthRequests": true}, nil)
}

// paused lets a request go on, with the password where one is asked for. Of an
// error another request will tell.
func (p *Page) paused(method, id string) {
	if method == "Fetch.requestPaused" {
		_, _ = p.browser.ask(p.session, "Fetch.continueRequest", object{"requestId": id})
		return
	}
	p.browser.mu.Lock()
	response := object{"response": "ProvideCredentials", "username": p.user, "password": p.password}
	if p.answered[id] { // it was the wrong one: a user gives up then
		response = object{"response": "CancelAuth"}
	}
	p.answered[id] = true
	p.browser.mu.Unlock()
	_, _ = p.browser.ask(p.session, "Fetch.continueWithAuth", object{"requestId": id, "authChallengeResponse": response})
}

// mostHigh is how high a screenshot is at the most, in pixels.
const mostHigh = 12_000

// Screenshot writes what the whole page looks like to a file, as PNG: in a window
// that is as high as the page, so that what draws itself for the window is whole.
func (p *Page) Screenshot(path string) {
	p.t.Helper()
	width, height, whole := p.width, p.height, 0
	defer p.Size(width, height)
	p.Eval("window.scrollTo(0, 0); document.documentElement.scrollHeight", &whole)
	p.Size(width, max(height, min(whole, mostHigh)))
	p.Eval("new Promise(ok => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(ok, 50))))", nil)
	var shot struct {
		Data []byte `json:"data"`
	}
	p.call("Page.captureScreenshot", object{"format": "png", "captureBeyondViewport": true}, &shot)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, shot.Data, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// Inject reads a file, runs it in the page beside the page's own scripts, as no
// page could load it, and leaves what it defines.
func (p *Page) Inject(path string) {
	p.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	p.Eval(strings.TrimSpace(string(text))+"\n;0", nil)
}
