package names_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lifeline-go/lifeline/names"
)

// records answers with one record of each kind that package net looks up.
func records(q *asked) [][]byte {
	name := func(text string) dnsmessage.Name { return dnsmessage.MustNewName(text) }
	body := map[dnsmessage.Type]dnsmessage.ResourceBody{
		dnsmessage.TypeA:   &dnsmessage.AResource{A: [4]byte{10, 0, 0, 1}},
		dnsmessage.TypeTXT: &dnsmessage.TXTResource{TXT: []string{"text"}},
		dnsmessage.TypeMX:  &dnsmessage.MXResource{Pref: 10, MX: name("mail.corp.")},
		dnsmessage.TypeNS:  &dnsmessage.NSResource{NS: name("ns.corp.")},
		dnsmessage.TypeSRV: &dnsmessage.SRVResource{Port: 88, Target: name("kdc.corp.")},
		dnsmessage.TypePTR: &dnsmessage.PTRResource{PTR: name("db.corp.")},
	}[q.kind]
	if body == nil {
		return q.code(dnsmessage.RCodeSuccess)
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: q.ID, Response: true, RecursionAvailable: true},
		Questions: q.Questions,
		Answers:   []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 60}, Body: body}},
	}
	packed, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return [][]byte{packed}
}

// Package net asks the resolver, whatever it is asked for.
func TestNet(t *testing.T) {
	t.Parallel()
	refusing := func(q *asked) [][]byte { // EDNS, which package net always sends
		if q.edns() {
			return q.code(dnsmessage.RCodeFormatError)
		}
		return records(q)
	}
	for what, servers := range map[string][]handler{"one": {records}, "the first is dead": {silence, records}, "EDNS is refused": {refusing}} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var all []*nameserver
			for _, handle := range servers {
				all = append(all, serve(t, handle))
			}
			n := resolver(t, nil, nil, all...).Net()
			ctx := t.Context()
			if got, err := n.LookupHost(ctx, "db.corp"); err != nil || len(got) != 1 || got[0] != "10.0.0.1" {
				t.Errorf("host: %q, %v", got, err)
			}
			if got, err := n.LookupNetIP(ctx, "ip4", "db.corp"); err != nil || sorted(got) != "10.0.0.1" {
				t.Errorf("ip4: %v, %v", got, err)
			}
			if got, err := n.LookupTXT(ctx, "db.corp"); err != nil || got[0] != "text" {
				t.Errorf("TXT: %q, %v", got, err)
			}
			if got, err := n.LookupMX(ctx, "db.corp"); err != nil || got[0].Host != "mail.corp." {
				t.Errorf("MX: %v, %v", got, err)
			}
			if got, err := n.LookupNS(ctx, "db.corp"); err != nil || got[0].Host != "ns.corp." {
				t.Errorf("NS: %v, %v", got, err)
			}
			if _, got, err := n.LookupSRV(ctx, "kerberos", "udp", "db.corp"); err != nil || got[0].Target != "kdc.corp." {
				t.Errorf("SRV: %v, %v", got, err)
			}
			if got, err := n.LookupAddr(ctx, "10.0.0.1"); err != nil || got[0] != "db.corp." {
				t.Errorf("PTR: %q, %v", got, err)
			}
			if got, err := n.LookupCNAME(ctx, "db.corp"); err != nil || got != "db.corp." {
				t.Errorf("CNAME: %q, %v", got, err)
			}
		})
	}
}

func TestNetSystem(t *testing.T) {
	t.Parallel()
	s := serve(t, zone(map[string][]string{"alias.corp": {"db.corp.", "10.0.0.1"}, "six.corp": {"fd00::1"}}))
	system := says(map[string][]string{"vpn.corp": {"10.8.0.1", "fd08::1"}})
	n := resolver(t, nil, []names.Way{system}, s).Net()
	if got, err := n.LookupNetIP(t.Context(), "ip", "vpn.corp"); err != nil || sorted(got) != "10.8.0.1 fd08::1" {
		t.Errorf("%v, %v", got, err)
	}
	var e *net.DNSError
	if got, err := n.LookupHost(t.Context(), "none.corp"); !errors.As(err, &e) || !e.IsNotFound {
		t.Errorf("%v, %v", got, err)
	}
	n = resolver(t, nil, nil, s).Net()
	if got, err := n.LookupCNAME(t.Context(), "alias.corp"); err != nil || got != "db.corp." {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := n.LookupNetIP(t.Context(), "ip4", "six.corp"); !errors.As(err, &e) || !e.IsNotFound {
		t.Errorf("%v, %v", got, err)
	}
}

// Package net asks again and again where it gets no answer. That must not
// multiply the bound.
func TestNetBound(t *testing.T) {
	t.Parallel()
	s := serve(t, silence)
	r := resolver(t, nil, nil, s)
	r.Timeout = 500 * time.Millisecond
	for _, host := range []string{"db.corp", "web.corp"} {
		began := time.Now()
		_, err := r.Net().LookupHost(t.Context(), host)
		var e *net.DNSError
		if !errors.As(err, &e) || e.IsNotFound || time.Since(began) > 10*r.Timeout {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Net().LookupHost(ctx, "third.corp"); err == nil {
		t.Error("an answer from nowhere")
	}
}

func TestInstall(t *testing.T) {
	before := net.DefaultResolver
	r := resolver(t, nil, []names.Way{says(map[string][]string{"vpn.corp": {"10.8.0.1"}})})
	undo := r.Install()
	got, err := net.LookupHost("vpn.corp")
	undo()
	if err != nil || len(got) != 1 || got[0] != "10.8.0.1" {
		t.Errorf("%q, %v", got, err)
	}
	if net.DefaultResolver != before {
		t.Error("not undone")
	}
	other := names.Install()
	if net.DefaultResolver == before {
		t.Error("nothing installed")
	}
	other()
}

func TestExchange(t *testing.T) {
	t.Parallel()
	r := resolver(t, nil, nil, serve(t, zone(map[string][]string{"db.corp": {"10.0.0.1"}})))
	question := func(kind dnsmessage.Type, name string) []byte {
		m := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
		}
		packed, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return packed
	}
	for _, c := range []struct {
		kind    dnsmessage.Type
		name    string
		code    dnsmessage.RCode
		answers int
	}{
		{dnsmessage.TypeA, "db.corp.", dnsmessage.RCodeSuccess, 1},
		{dnsmessage.TypeAAAA, "db.corp.", dnsmessage.RCodeSuccess, 0},
		{dnsmessage.TypeA, "none.corp.", dnsmessage.RCodeNameError, 0},
		{dnsmessage.TypeTXT, "none.corp.", dnsmessage.RCodeNameError, 0},
		{dnsmessage.TypeTXT, "x.onion.", dnsmessage.RCodeNameError, 0},
		{dnsmessage.TypeA, ".", dnsmessage.RCodeNameError, 0},
	} {
		var m dnsmessage.Message
		answer, err := r.Exchange(t.Context(), question(c.kind, c.name))
		if err == nil {
			err = m.Unpack(answer)
		}
		if err != nil || m.ID != 7 || !m.Response || m.RCode != c.code || len(m.Answers) != c.answers || len(m.Questions) != 1 {
			t.Errorf("%s %s: %+v, %v", c.name, c.kind, m, err)
		}
	}
	for _, bad := range [][]byte{nil, {1, 2, 3}, make([]byte, 12), append(question(dnsmessage.TypeA, "a.")[:2], 0x80)} {
		if answer, err := r.Exchange(t.Context(), bad); !errors.Is(err, names.ErrBadQuestion) {
			t.Errorf("%x: %x, %v", bad, answer, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Exchange(ctx, question(dnsmessage.TypeA, "other.corp.")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
