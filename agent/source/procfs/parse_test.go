package procfs

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/lifeline-go/lifeline/agent/fact"
)

func TestParseCommand(t *testing.T) {
	for _, c := range []struct {
		text string
		cut  bool
		want []string
	}{
		{"", false, []string{}},
		{"\x00\x00", false, []string{}},
		{"sh\x00-c\x00\x00x\x00", false, []string{"sh", "-c", "", "x"}},
		{"nginx: worker process", false, []string{"nginx: worker process"}},
		{"postgres: writer   \x00\x00\x00", false, []string{"postgres: writer"}},
		{"a\x00b ", false, []string{"a", "b "}},
		{"a\x00bb", true, []string{"a", "bb…"}},
	} {
		got := parseCommand([]byte(c.text), c.cut)
		if got == nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: got %#v, want %#v", c.text, got, c.want)
		}
	}
}

func TestFullName(t *testing.T) {
	const comm = "kube-controller" // 15 bytes
	for _, c := range []struct {
		comm string
		args []string
		want string
	}{
		{"sshd", []string{"sshd: long title"}, "sshd"},
		{comm, nil, comm},
		{comm, []string{}, comm},
		{comm, []string{"kube-controller"}, comm},
		{comm, []string{"/usr/bin/kube-controller-manager", "--v=2"}, "kube-controller-manager"},
		{comm, []string{"kube-controller-manager: leader /x"}, "kube-controller-manager"},
		{comm, []string{"/opt/with space/kube-controller-manager"}, "kube-controller-manager"},
		{comm, []string{"/opt/kube-controller-dir/other"}, comm},
		{comm, []string{"/opt/kube-controller-dir/kube-controller-bin"}, "kube-controller-bin"},
		{"unattended-upgr", []string{"/usr/bin/python3", "/usr/bin/unattended-upgrade"}, "unattended-upgrade"},
		{comm, []string{"a", "b", "kube-controller-manager"}, comm},
		{comm, []string{comm + strings.Repeat("x", 300)}, comm},
	} {
		if got := fullName(c.comm, c.args); got != c.want {
			t.Errorf("%q %q: got %q, want %q", c.comm, c.args, got, c.want)
		}
	}
}

func TestParseStart(t *testing.T) {
	const tail = " S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 "
	for text, want := range map[string]time.Duration{
		"1 (systemd)" + tail + "26 1 1 1\n":         260 * time.Millisecond,
		"1 (a) S 1 2 3) R 4" + ")" + tail + "100 1": time.Second,
		"1 (\xff\n)" + tail + "0":                   0,
		"1 (x)" + tail + "9223372036854775807":      -1,
		"1 (x)" + tail + "-5":                       -1,
		"1 (x)" + tail:                              -1,
		"":                                          -1,
		")":                                         -1,
		"1 (x) S 1 1 1 0 -1 1 1 0 0 0 0 0 0 0 20 0 1 0x": -1,
	} {
		got, err := parseStart([]byte(text))
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

func TestParseLimit(t *testing.T) {
	const head = "Limit                     Soft Limit           Hard Limit           Units     \nMax processes             1                    1                    processes \n"
	for text, want := range map[string]uint64{
		head + "Max open files            1024                 524288               files     \n":     1024,
		head + "Max open files            unlimited            unlimited            files     \n":     math.MaxUint64,
		"Max open files            18446744073709551615 18446744073709551615 files     ":              math.MaxUint64,
		"Max open files            1073741816           1073741816           files     \nMax x 1 1\n": 1073741816,
	} {
		if got, err := parseLimit([]byte(text)); got != want || err != nil {
			t.Errorf("%q: got %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", head, "Max open files ", "Max open files \n", "Max open files -1 1", "Max open files 18446744073709551616"} {
		if got, err := parseLimit([]byte(text)); err == nil {
			t.Errorf("%q: got %d", text, got)
		}
	}
}

func TestParseNamespace(t *testing.T) {
	if got, err := parseNamespace("net:[4026531840]"); got != 4026531840 || err != nil {
		t.Errorf("got %d, %v", got, err)
	}
	for _, text := range []string{"", "net:[]", "net:[1", "1]", "mnt:[1]", "net:[99999999999]"} {
		if got, err := parseNamespace(text); err == nil {
			t.Errorf("%q: got %d", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range postgres {
		f.Add([]byte(text), "fifteen-bytes-x")
	}
	f.Add([]byte("/x/fifteen-bytes-xy\x00--a"), "fifteen-bytes-x")
	f.Add([]byte("net:[4026531840]"), "")
	f.Fuzz(func(t *testing.T, text []byte, comm string) {
		if d, err := parseStart(text); err == nil && d < 0 {
			t.Errorf("start %v", d)
		}
		parseLimit(text)
		parseNamespace(string(text))
		args := parseCommand(text, len(text)%2 == 0)
		if args == nil {
			t.Error("nil command line")
		}
		if name := fullName(comm, args); !strings.HasPrefix(name, comm) {
			t.Errorf("%q became %q", comm, name)
		}
		if s := fact.Printable(string(text)); !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 }) {
			t.Errorf("not printable: %q", s)
		}
	})
}
