package netns

import (
	"slices"
	"testing"
)

const table = `22 27 0:21 / /proc rw,relatime - proc proc rw
44 42 0:4 net:[4026532178] /run/docker/netns/1a2b3c rw shared:2 - nsfs nsfs rw
45 42 0:4 mnt:[4026532179] /run/snapd/ns/x.mnt rw - nsfs nsfs rw
46 42 0:4 net:[4026532178] /run/netns/with\040space rw shared:2 - nsfs nsfs rw
47 42 0:4 net:[4026532178] /var/run/netns/other rw shared:2 - nsfs nsfs rw
48 42 0:4 net:[oops] /run/netns/oops rw - nsfs nsfs rw
49 42 0:4 net:[4026532180]
`

func TestParseMounts(t *testing.T) {
	want := []mount{
		{4026532178, "/run/netns/with space"},
		{4026532178, "/var/run/netns/other"},
		{4026532178, "/run/docker/netns/1a2b3c"},
	}
	got := parseMounts([]byte(table))
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got[0].name() != "with space" {
		t.Errorf("name %q", got[0].name())
	}
}

func TestParseLink(t *testing.T) {
	for link, want := range map[string]uint32{
		"net:[4026531840]": 4026531840, "net:[4294967295]": 4294967295,
		"": 0, "net:[": 0, "net:[]": 0, "net:[0]": 0, "net:[-1]": 0, "net:[4294967296]": 0, "net:[1": 0, "mnt:[1]": 0, "net:[1]x": 0,
	} {
		if got, ok := parseLink([]byte(link)); got != want && ok || ok != (want != 0) {
			t.Errorf("%q: %d, %v", link, got, ok)
		}
	}
}

func FuzzMounts(f *testing.F) {
	f.Add([]byte(table))
	f.Add([]byte(" net:[1] "))
	f.Fuzz(func(t *testing.T, table []byte) {
		for _, m := range parseMounts(table) {
			if m.inode == 0 || m.path == "" {
				t.Fatalf("%+v", m)
			}
		}
	})
}
