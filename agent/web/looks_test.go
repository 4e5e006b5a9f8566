package web

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/agent/web/chromium"
	"github.com/lifeline-go/lifeline/internal/need"
)

// shots is where screenshots go, to be looked at. It is not part of the tree.
const shots = "screenshots"

// axe is what checks whether everybody can use the page; app/build brings it.
const axe = "app/node_modules/axe-core/axe.min.js"

// looked are the views, each with something open in it.
var looked = []string{"overview", "picture", "picture?peer=10.77.1.2&list=connections", "whatif?dead=10.77.1.2", "calls", "leaks", "names",
	"time?from=1795176300&to=1795176900", "acts", "agent"}

// painted waits until all that happened is to be seen.
func painted(p *chromium.Page) {
	p.Eval("new Promise(ok => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(ok, 30))))", nil)
}

// Each view in light and dark, wide and on a phone: everybody can use it, nothing
// sticks out, and it can be looked at.
func testLooks(t *testing.T, b *chromium.Browser) {
	_, err := os.Stat(axe)
	need.Feature(t, "axe-core, which agent/web/app/build brings", err)
	store := past(t)
	at := serving(t, newServer(Options{Agent: newMachine(sockets), History: func() (History, error) { return store, nil }}))
	for _, theme := range []string{"light", "dark"} {
		t.Run(theme, func(t *testing.T) {
			p := b.Page(t)
			p.Prefer("prefers-color-scheme", theme)
			show(p, at, "overview")
			p.Inject(axe)
			for _, view := range looked {
				p.Eval(fmt.Sprintf("location.hash = '#/%s'", view), nil)
				look(t, p, theme, view)
			}
			well(t, p, at)
		})
	}
}

func look(t *testing.T, p *chromium.Page, theme, view string) {
	name, _, _ := strings.Cut(view, "?")
	p.Until(fmt.Sprintf(`document.querySelector("nav [aria-current]").hash.startsWith("#/%s")`, name))
	switch {
	case name == "picture":
		p.Until(`document.querySelector("canvas").style.width`)
	case name == "leaks":
		p.Click(`main article button.open[aria-expanded="false"]`)
	case name == "time":
		p.Has("Findings then")
	}
	if strings.Contains(view, "list=") {
		p.Until(`document.querySelectorAll(".drawer tbody tr").length > 0`)
	}
	painted(p)
	file := filepath.Join(shots, theme, strings.NewReplacer("?", "-", "=", "-", "&", "-").Replace(view))
	var wrong []string
	p.Eval(`axe.run(document, { resultTypes: ["violations"] }).then(r => r.violations.map(v => v.id + ": " + v.help + ": " + v.nodes.length + " times, as in " + v.nodes[0].html.slice(0, 200) + " " + (v.nodes[0].any[0]?.message ?? "")))`, &wrong)
	for _, w := range wrong {
		t.Errorf("%s, %s: axe: %s", theme, view, w)
	}
	p.Screenshot(file + ".png")
	if theme == "dark" { // a phone is as wide in both
		return
	}
	p.Size(360, 740)
	painted(p)
	var width int
	if p.Eval(`document.documentElement.scrollWidth`, &width); width > 360 {
		t.Errorf("%s is %d pixels wide on a phone", view, width)
	}
	p.Screenshot(file + "-phone.png")
	p.Size(1280, 900)
}

func testKeyboard(t *testing.T, b *chromium.Browser) {
	at := serving(t, newServer(Options{Agent: newMachine(1000)}))
	p := opened(t, b, at, "overview")
	p.Prefer("prefers-reduced-motion", "reduce")
	p.Until(`getComputedStyle(document.querySelector(".pulse")).animationName === "none"`)

	p.Keys("?")
	p.Has("light, dark, as the system says")
	painted(p)
	p.Screenshot(filepath.Join(shots, "keyboard.png"))
	p.Keys("Escape")
	p.Until(`!document.querySelector("dialog")`)

	for i, name := range []string{"overview", "picture", "whatif", "calls", "leaks", "names", "time", "acts", "agent"} {
		p.Keys(fmt.Sprint(i + 1))
		p.Until(fmt.Sprintf(`location.hash === "#/%s" && document.querySelector("nav [aria-current]").hash === location.hash`, name))
	}
	p.Keys("1")
	p.Until(`document.querySelector("main article")`)
	p.Keys("/", "d", "r", "o", "n", "e")
	p.Until(`document.querySelectorAll("main article").length === 1`)
	p.Keys("Escape", "j", "Enter")
	p.Until(`document.activeElement.getAttribute("aria-expanded") !== null`)

	for _, theme := range []string{"light", "dark"} {
		p.Keys("d")
		p.Until(fmt.Sprintf(`document.documentElement.dataset.theme === "%s"`, theme))
	}

	// From the top: the way past the bar comes first, and each stop can be seen.
	p.Eval(`document.activeElement.blur(); window.getSelection().removeAllRanges(); document.body.tabIndex = -1; document.body.focus()`, nil)
	var stops []string
	for range 8 {
		p.Keys("Tab")
		var stop struct {
			Text string
			Seen bool
		}
		p.Eval(`(() => { const e = document.activeElement, s = getComputedStyle(e); return { Text: e.innerText.trim(), Seen: s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2 }; })()`, &stop)
		if !stop.Seen {
			t.Errorf("the focus on %q is not to be seen", stop.Text)
		}
		stops = append(stops, stop.Text)
	}
	if got := strings.Join(stops, " > "); !strings.HasPrefix(got, "Skip to the view > ● dark > ? > Overview") {
		t.Errorf("Tab goes %s", got)
	}
	well(t, p, at)
}
