package node

import (
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/agent/lab"
)

// What the kernel counted is told for each namespace, and of one alone when it is
// chosen; those that are gone are one blind spot.
func TestCountsOfNamespaces(t *testing.T) {
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	n := New()
	defer n.Close()
	m, err := n.Counts(t.Context(), Namespaces{})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []*lab.Host{a, b} {
		if ns := m.Namespace(h.Netns()); ns == nil || !ns.TCP.OK {
			t.Errorf("%s is missing: %+v", h.Path(), m.Namespaces)
		}
	}
	one, err := ParseNamespaces(a.Path())
	if err != nil {
		t.Fatal(err)
	}
	if m, err := n.Counts(t.Context(), one); err != nil || len(m.Namespaces) != 1 || m.Namespaces[0].Inode != a.Netns() {
		t.Errorf("of one: %+v, %v", m, err)
	}
	if m, err := n.Conntrack(t.Context(), one); err != nil || len(m.Namespaces) != 1 || len(m.Blind) > 0 {
		t.Errorf("conntrack of one: %+v, %v", m, err)
	}
	vanish(t, a)
	if m, err := n.Counts(t.Context(), one); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("of one that is gone: %+v, %v", m, err)
	}
}
