package names

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lifeline-go/lifeline/internal/dnsclient"
)

// ErrBadQuestion is the error for what is no DNS message with one question.
var ErrBadQuestion = dnsclient.ErrBadQuestion

// Exchange answers a DNS message with one question, as a nameserver that knows
// what the operating system knows: questions for addresses (A, AAAA) by Lookup,
// without the search list, and all others (SRV, TXT, MX, PTR …) by the
// nameservers, whose answer is passed on as it is. The answer is a whole message
// of up to 65,535 bytes: who sends it over UDP has to cut it to size. Where nobody
// answers within Timeout it is SERVFAIL; an error is [ErrBadQuestion], or that of
// ctx.
func (r *Resolver) Exchange(ctx context.Context, query []byte) ([]byte, error) {
	var parser dnsmessage.Parser
	header, err := parser.Start(query)
	if err != nil || header.Response {
		return nil, ErrBadQuestion
	}
	questions, err := parser.AllQuestions()
	if err != nil || len(questions) != 1 {
		return nil, ErrBadQuestion
	}
	e := exchange{id: header.ID, desired: header.RecursionDesired, asked: questions[0], edns: hasEDNS(&parser)}
	kind := e.asked.Type
	if e.asked.Class != dnsmessage.ClassINET || kind != dnsmessage.TypeA && kind != dnsmessage.TypeAAAA {
		return r.forward(ctx, query, e)
	}
	host := strings.TrimSuffix(e.asked.Name.String(), ".")
	answer, err := r.lookup(ctx, question{network: "ip", host: host, whole: true})
	switch {
	case err == nil:
		return e.addrs(answer)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, errNoData):
		return e.code(dnsmessage.RCodeSuccess)
	case isNotFound(err):
		return e.code(dnsmessage.RCodeNameError)
	default:
		return e.code(dnsmessage.RCodeServerFailure)
	}
}

func hasEDNS(parser *dnsmessage.Parser) bool {
	if parser.SkipAllAnswers() != nil || parser.SkipAllAuthorities() != nil {
		return false
	}
	for {
		header, err := parser.AdditionalHeader()
		if err != nil || header.Type == dnsmessage.TypeOPT {
			return err == nil
		}
		if parser.SkipAdditional() != nil {
			return false
		}
	}
}

// exchange is a question that came as a message.
type exchange struct {
	id      uint16
	desired bool // recursion
	asked   dnsmessage.Question
	edns    bool
}

// code returns an answer without records.
func (e exchange) code(code dnsmessage.RCode) ([]byte, error) {
	return e.pack(code, nil)
}

// addrs returns an answer with those addresses that were asked for.
func (e exchange) addrs(answer Answer) ([]byte, error) {
	const most = 1000 // fits a message
	of := map[dnsmessage.Type]string{dnsmessage.TypeA: "ip4", dnsmessage.TypeAAAA: "ip6"}[e.asked.Type]
	life := max(0, time.Until(answer.Until))
	header := dnsmessage.ResourceHeader{Name: e.asked.Name, Class: dnsmessage.ClassINET, TTL: uint32(life / time.Second)}
	var records []dnsmessage.Resource
	if to, err := dnsmessage.NewName(answer.Canonical); err == nil && to.Length > 0 && !strings.EqualFold(answer.Canonical, e.asked.Name.String()) {
		records = append(records, dnsmessage.Resource{Header: header, Body: &dnsmessage.CNAMEResource{CNAME: to}})
		header.Name = to
	}
	addrs := ofNetwork(of, answer.Addrs)
	for _, addr := range addrs[:min(len(addrs), most)] {
		var body dnsmessage.ResourceBody = &dnsmessage.AAAAResource{AAAA: addr.As16()}
		if addr.Is4() {
			body = &dnsmessage.AResource{A: addr.As4()}
		}
		records = append(records, dnsmessage.Resource{Header: header, Body: body})
	}
	return e.pack(dnsmessage.RCodeSuccess, records)
}

func (e exchange) pack(code dnsmessage.RCode, records []dnsmessage.Resource) ([]byte, error) {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: e.id, Response: true, RecursionDesired: e.desired, RecursionAvailable: true, RCode: code},
		Questions: []dnsmessage.Question{e.asked},
		Answers:   records,
	}
	if e.edns {
		var header dnsmessage.ResourceHeader
		if err := header.SetEDNS0(65535, code, false); err != nil {
			return nil, err
		}
		m.Additionals = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.OPTResource{}}}
	}
	return m.Pack()
}

// forward passes a question on to the nameservers.
func (r *Resolver) forward(ctx context.Context, query []byte, e exchange) ([]byte, error) {
	if name := strings.ToLower(strings.TrimSuffix(e.asked.Name.String(), ".")); name == "onion" || strings.HasSuffix(name, ".onion") {
		return e.code(dnsmessage.RCodeNameError) // RFC 7686 section 2
	}
	c := r.config()
	within, cancel := context.WithTimeout(ctx, r.timeout())
	defer cancel()
	for _, s := range c.servers {
		r.probe(s)
	}
	got, err := hedge(within, r.rotated(c), func(ctx context.Context, s *server, how method) (reply, error) {
		return s.pass(ctx, query, e, how == overTCP || c.resolv.TCP)
	})
	switch {
	case err == nil:
		binary.BigEndian.PutUint16(got.message, e.id)
		return got.message, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		return e.code(dnsmessage.RCodeServerFailure)
	}
}

// pass sends a message as it is; without EDNS when the server refuses that.
func (s *server) pass(ctx context.Context, query []byte, e exchange, tcp bool) (reply, error) {
	transport := dnsclient.UDP
	if tcp || time.Now().UnixNano() < s.stream.Load() {
		transport = dnsclient.TCP
	}
	answer, err := s.exchange(ctx, transport, query)
	if err == nil && e.edns && refusesEDNS(answer.message) {
		if query, err = dnsclient.NewQuery(e.asked.Name.String(), e.asked.Type, false); err != nil {
			return reply{}, err
		}
		answer, err = s.exchange(ctx, transport, query)
	}
	if err == nil && transport == dnsclient.UDP && dnsclient.Truncated(answer.message) {
		answer, err = s.exchange(ctx, dnsclient.TCP, query)
	}
	if err == nil {
		if code := dnsclient.Code(answer.message); code != dnsmessage.RCodeSuccess && code != dnsmessage.RCodeNameError {
			err = &refusal{code: code}
		}
	}
	if err != nil {
		return reply{}, &failure{s.name(transport), err}
	}
	return answer, nil
}
