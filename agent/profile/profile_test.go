package profile_test

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/profile"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestOf(t *testing.T) {
	const all = -1
	observe, act := profile.Needs(profile.Observe), profile.Needs(profile.Act)
	for _, c := range []struct {
		held    []profile.Capability
		name    profile.Name
		missing int
		needs   string // of the first that is missing
	}{
		{act, profile.Act, 0, ""},
		{observe, profile.Observe, 5, "CAP_NET_ADMIN"},
		{nil, profile.Partial, len(profile.Features), "CAP_SYS_ADMIN"},
		{[]profile.Capability{profile.BPF, profile.Perfmon}, profile.Partial, all, "CAP_SYS_ADMIN and CAP_SYS_PTRACE"},
		{append(slices.Clone(observe), profile.NetAdmin), profile.Observe, 2, "CAP_NET_RAW"},
		{[]profile.Capability{profile.BPF}, profile.Partial, all, "CAP_SYS_ADMIN"}, // as little is missing of either way: that of the profiles
	} {
		s := profile.Of(func(one profile.Capability) bool { return slices.Contains(c.held, one) })
		if s.Name != c.name || c.missing != all && len(s.Missing) != c.missing || len(s.Missing) > 0 && s.Missing[0].Needs != c.needs {
			t.Errorf("%v: %+v", c.held, s)
		}
		if unseen := len(s.Unseen()); (unseen == 0) != (s.Name != profile.Partial) {
			t.Errorf("%v: %d unseen, %s", c.held, unseen, s.Name)
		}
		if s.Has("evac") != (s.Name == profile.Act) {
			t.Errorf("%v: has evac: %v", c.held, s.Has("evac"))
		}
	}
}

// Each capability of a profile is there for a feature that is lost without it.
func TestEachCounts(t *testing.T) {
	for _, name := range []profile.Name{profile.Observe, profile.Act} {
		set := profile.Needs(name)
		for _, without := range set {
			s := profile.Of(func(c profile.Capability) bool { return c != without && slices.Contains(set, c) })
			if s.Name == name {
				t.Errorf("%s is %s without %v", name, s.Name, without)
			}
		}
	}
}

func TestStanding(t *testing.T) {
	held := func(set []profile.Capability) func(profile.Capability) bool {
		return func(c profile.Capability) bool { return slices.Contains(set, c) }
	}
	for want, set := range map[string][]profile.Capability{
		"act, nothing is missing": profile.Needs(profile.Act),
		"observe; missing: CAP_NET_ADMIN for pokes, transit, cut; CAP_NET_RAW for pings; CAP_NET_ADMIN and CAP_NET_RAW for evac": profile.Needs(profile.Observe),
	} {
		if got := profile.Of(held(set)).String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestFeatures(t *testing.T) {
	numbers := map[profile.Capability]int{
		profile.DacReadSearch: unix.CAP_DAC_READ_SEARCH, profile.NetAdmin: unix.CAP_NET_ADMIN, profile.NetRaw: unix.CAP_NET_RAW,
		profile.SysPtrace: unix.CAP_SYS_PTRACE, profile.SysAdmin: unix.CAP_SYS_ADMIN, profile.Perfmon: unix.CAP_PERFMON, profile.BPF: unix.CAP_BPF,
	}
	for c, number := range numbers {
		if int(c) != number || c.String() == "" {
			t.Errorf("%s is %d, want %d", c, c, number)
		}
	}
	seen := make(map[string]bool)
	for _, f := range profile.Features {
		if seen[f.Name] || f.Lost == "" || len(f.Ways) == 0 || f.Profile != profile.Observe && f.Profile != profile.Act {
			t.Errorf("%+v", f)
		}
		seen[f.Name] = true
		for _, way := range f.Ways {
			for _, c := range way {
				if _, ok := numbers[c]; !ok {
					t.Errorf("%s needs %d, which has no name", f.Name, c)
				}
			}
		}
	}
}
