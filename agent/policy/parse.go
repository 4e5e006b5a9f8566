package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/lifeline-go/lifeline/agent/verdict"
)

// Bounds of a policy. What is beyond is a mistake.
const (
	MostBytes    = 256 << 10 // of a file
	mostErrors   = 20
	fastestCut   = 1_000_000 // connections a second, as of act.Rate
	shortestTime = 100 * time.Millisecond
	longestTime  = time.Hour
)

// Error is one thing that is wrong in a policy file.
type Error struct {
	Line int // from 1; 0 = the file as a whole
	Text string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Text
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Text)
}

// Parse reads a policy file. Nothing in it is the zero Policy. It returns all
// that is wrong, as an error of [Error]s by line, and then no Policy: one that
// was only half understood would do less, or more, than it was told.
func Parse(data []byte) (*Policy, error) {
	if len(data) > MostBytes {
		return nil, &Error{Text: fmt.Sprintf("the policy has %d bytes: %d are the most", len(data), MostBytes)}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	switch err := decoder.Decode(&doc); {
	case err == io.EOF:
		return &Policy{}, nil
	case err != nil:
		return nil, &Error{Text: strings.TrimPrefix(err.Error(), "yaml: ")}
	}
	switch err := decoder.Decode(&more); {
	case err == nil:
		return nil, &Error{Line: more.Line, Text: "here begins a second document: write one, without ---"}
	case err != io.EOF:
		return nil, &Error{Text: strings.TrimPrefix(err.Error(), "yaml: ")}
	}
	r := &reader{}
	p := &Policy{}
	r.policy(doc.Content[0], p)
	if len(r.errors) > 0 {
		slices.SortStableFunc(r.errors, func(a, b *Error) int { return a.Line - b.Line })
		return nil, r.err()
	}
	return p, nil
}

// reader collects what is wrong, so that one run says all of it.
type reader struct{ errors []*Error }

func (r *reader) err() error {
	var all []error
	for i, e := range r.errors {
		if i == mostErrors {
			all = append(all, fmt.Errorf("and %d more", len(r.errors)-mostErrors))
			break
		}
		all = append(all, e)
	}
	return errors.Join(all...)
}

func (r *reader) wrong(n *yaml.Node, format string, args ...any) {
	r.errors = append(r.errors, &Error{Line: n.Line, Text: fmt.Sprintf(format, args...)})
}

func (r *reader) policy(n *yaml.Node, p *Policy) {
	r.keys(n, "the policy", keys{
		"watch": func(n *yaml.Node) {
			r.keys(n, "watch", keys{
				"peers":     func(n *yaml.Node) { p.Watch.Peers = r.networks(n) },
				"processes": func(n *yaml.Node) { p.Watch.Processes = r.words(n, "names of processes") },
				"names":     func(n *yaml.Node) { p.Names = r.hostNames(n) },
			})
		},
		"ignore": func(n *yaml.Node) {
			r.keys(n, "ignore", keys{
				"peers":     func(n *yaml.Node) { p.Ignore.Peers = r.networks(n) },
				"processes": func(n *yaml.Node) { p.Ignore.Processes = r.words(n, "names of processes") },
				"codes":     func(n *yaml.Node) { p.Codes = r.codes(n) },
			})
		},
		"acts": func(n *yaml.Node) {
			r.keys(n, "acts", keys{
				"cut":  func(n *yaml.Node) { p.Cut = r.cut(n) },
				"tune": func(n *yaml.Node) { p.Tune = r.tunes(n) },
				"evac": func(n *yaml.Node) { p.Evac = r.evac(n) },
			})
		},
		"webhook": func(n *yaml.Node) { p.Webhook = r.webhook(n) },
	})
}

// cuttable are the findings whose connections a cut frees, and harms nobody by:
// those of a peer that is silent for sure.
var cuttable = []string{"S001"}

func (r *reader) cut(n *yaml.Node) *Cut {
	c := &Cut{}
	r.keys(n, "cut", keys{
		"on": func(n *yaml.Node) {
			c.On = r.codes(n)
			for _, code := range c.On {
				if !slices.Contains(cuttable, code) {
					r.wrong(n, "cut does not act on %s: only on %s", code, strings.Join(cuttable, ", "))
				}
			}
		},
		"per_second": func(n *yaml.Node) {
			var err error
			if c.PerSecond, err = strconv.Atoi(r.word(n)); err != nil || c.PerSecond < 1 || c.PerSecond > fastestCut {
				r.wrong(n, "per_second: %q is not a number of connections from 1 to %d", n.Value, fastestCut)
			}
		},
	})
	if len(c.On) == 0 {
		r.wrong(n, "cut needs the findings that it acts on, such as on: [S001]")
	}
	return c
}

func (r *reader) tunes(n *yaml.Node) (all []Tune) {
	if n.Kind != yaml.SequenceNode {
		r.wrong(n, "tune is %s: it is a list, such as tune: [{cgroup: system.slice/ws.service}]", shape(n))
		return nil
	}
	for _, n := range n.Content {
		var t Tune
		r.keys(n, "an entry of tune", keys{
			"cgroup": func(n *yaml.Node) { t.Cgroup = r.word(n) },
			"within": func(n *yaml.Node) { t.Within = r.duration(n) },
		})
		if t.Cgroup == "" {
			r.wrong(n, "an entry of tune needs a cgroup, such as cgroup: system.slice/ws.service")
		}
		if slices.ContainsFunc(all, func(o Tune) bool { return o.Cgroup == t.Cgroup }) {
			r.wrong(n, "cgroup %s is here twice", t.Cgroup)
		}
		all = append(all, t)
	}
	return all
}

func (r *reader) evac(n *yaml.Node) *Evac {
	e := &Evac{}
	on := ""
	r.keys(n, "evac", keys{
		"on":     func(n *yaml.Node) { on = r.word(n) },
		"within": func(n *yaml.Node) { e.Within = r.duration(n) },
		"only":   func(n *yaml.Node) { e.Only = r.networks(n) },
	})
	if on != "shutdown" {
		r.wrong(n, "evac needs on: shutdown, which is all that it acts on")
	}
	return e
}

func (r *reader) webhook(n *yaml.Node) string {
	text := r.word(n)
	if err := CheckWebhook(text); err != nil {
		r.wrong(n, "webhook: %v", err)
	}
	return text
}

// CheckWebhook says what is wrong with the URL of a webhook, and how to say it
// right; nil when nothing is.
func CheckWebhook(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is no address of the web: take one such as http://127.0.0.1:9093/api/v2/alerts", text)
	}
	return nil
}

func (r *reader) networks(n *yaml.Node) (all []netip.Prefix) {
	for _, n := range r.list(n, "networks") {
		text := r.word(n)
		network, err := netip.ParsePrefix(text)
		if addr, bad := netip.ParseAddr(text); bad == nil && addr.Zone() == "" {
			network, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		switch {
		case err != nil:
			r.wrong(n, "%q is neither an address nor a network: take one such as 10.0.0.7 or 10.0.0.0/8", text)
		case network.Addr().Is4In6():
			r.wrong(n, "%q is an IPv4 address in IPv6: write it as IPv4", text)
		case network != network.Masked():
			r.wrong(n, "%q has bits beyond its length: write %v for the network, or %v for the one address", text, network.Masked(), network.Addr())
		}
		all = append(all, network)
	}
	return all
}

func (r *reader) codes(n *yaml.Node) (all []string) {
	var known []string
	for i := range verdict.Rules {
		known = append(known, verdict.Rules[i].Code)
	}
	slices.Sort(known)
	for _, n := range r.list(n, "codes") {
		code := r.word(n)
		if !slices.Contains(known, code) {
			r.wrong(n, "%q is no code of a finding%s", code, meant(code, known))
		}
		all = append(all, code)
	}
	return all
}

func (r *reader) hostNames(n *yaml.Node) []string {
	all := r.words(n, "names of hosts")
	for i, name := range all {
		if len(name) > 253 || strings.ContainsAny(name, "/:@ ") {
			r.wrong(n.Content[i], "%q is no name of a host: take one such as api.example.com", name)
		}
	}
	return all
}

func (r *reader) duration(n *yaml.Node) time.Duration {
	d, err := time.ParseDuration(r.word(n))
	if err != nil || d < shortestTime || d > longestTime {
		r.wrong(n, "%q is no time from %v to 1h: take one such as 25s", n.Value, shortestTime)
	}
	return d
}
