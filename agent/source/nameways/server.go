package nameways

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/route"
	"github.com/lifeline-go/lifeline/internal/dnsclient"
)

// completed returns the names that a resolver asks nameservers for when it is
// asked for this one, in order, each with its final dot: resolv.conf(5), search
// and ndots.
func completed(name string, conf *fact.Names) (list []string) {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	resolv := conf.Resolv.Value
	dots := 1
	for _, option := range resolv.Options {
		if n, ok := strings.CutPrefix(option, "ndots:"); ok {
			if parsed, err := strconv.Atoi(n); err == nil {
				dots = min(max(parsed, 0), 15) // RES_MAXNDOTS
			}
		}
	}
	whole := name + "."
	if strings.Count(name, ".") >= dots {
		list = append(list, whole)
	}
	const most = 16 // glibc has no limit, and nobody so many
	for _, domain := range resolv.Search[:min(len(resolv.Search), most)] {
		if domain = strings.TrimSuffix(domain, "."); domain != "" && len(name)+len(domain) < 253 {
			list = append(list, name+"."+domain+".")
		}
	}
	if len(list) == 0 || list[0] != whole {
		list = append(list, whole)
	}
	return list
}

// askServer asks one server by one transport for one family: for each of the
// names until one has addresses. What the server says of the others counts where
// none has; a name that exists before one that does not.
func askServer(ctx context.Context, w *fact.Way, candidates []string) {
	var best fact.Way
	for _, name := range candidates {
		one := *w
		exchange(ctx, &one, name)
		switch {
		case one.Answer == fact.Addresses || !one.Answer.Heard() || one.Answer == fact.Refused:
			if best.Answer == fact.NotAsked || one.Answer == fact.Addresses {
				*w = one
				return
			}
			*w = best
			return
		case best.Answer == fact.NotAsked || best.Answer == fact.NoName && one.Answer == fact.NoData:
			best = one
		}
	}
	*w = best
}

// exchange asks a server one question.
func exchange(ctx context.Context, w *fact.Way, name string) {
	kind := dnsmessage.TypeA
	if w.Family == fact.OnlyIPv6 {
		kind = dnsmessage.TypeAAAA
	}
	query, err := dnsclient.NewQuery(name, kind, w.Transport != fact.PlainUDP)
	if err != nil {
		w.Answer, w.Error = fact.Failed, fact.Printable(err.Error())
		return
	}
	server, err := scoped(w.Server)
	if err != nil {
		conclude(w, nil, err)
		return
	}
	answer, err := send(ctx, w.Transport, server, query)
	if err != nil {
		conclude(w, nil, err)
		return
	}
	read(w, answer)
}

func send(ctx context.Context, transport fact.Transport, server netip.Addr, query []byte) ([]byte, error) {
	switch transport {
	case fact.OverTLS:
		conn, err := dnsclient.Dial(ctx, dnsclient.TCP, netip.AddrPortFrom(server, 853))
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		// Opportunistic privacy, RFC 7858 section 4.1: resolv.conf has no name
		// to check the certificate against.
		conn.Wrap(func(c net.Conn) net.Conn {
			return tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
		})
		return conn.Exchange(ctx, query)
	case fact.OverTCP:
		return dnsclient.Exchange(ctx, dnsclient.TCP, netip.AddrPortFrom(server, 53), query)
	default:
		return dnsclient.Exchange(ctx, dnsclient.UDP, netip.AddrPortFrom(server, 53), query)
	}
}

// scoped gives the scope of an address its number, as the kernel wants it.
func scoped(addr netip.Addr) (netip.Addr, error) {
	if addr.Zone() == "" {
		return addr, nil
	}
	index, err := route.Index(addr.Zone())
	if err != nil {
		return addr, err
	}
	return addr.WithZone(strconv.FormatUint(uint64(index), 10)), nil
}

// errNoMessage is of an answer whose header is one and whose rest is not.
var errNoMessage = errors.New("the answer is malformed")

// read takes in an answer. It is foreign: no more than mostAddresses of it is
// kept, and of records past the first that is malformed nothing.
func read(w *fact.Way, answer []byte) {
	var p dnsmessage.Parser
	header, err := p.Start(answer)
	if err == nil {
		err = p.SkipAllQuestions()
	}
	if err != nil {
		w.Answer, w.Error = fact.Failed, errNoMessage.Error()
		return
	}
	w.RCode, w.Truncated = dnsclient.CodeName(header.RCode), header.Truncated
	switch header.RCode {
	case dnsmessage.RCodeSuccess:
	case dnsmessage.RCodeNameError:
		w.Answer = fact.NoName
		return
	default:
		w.Answer, w.Error = fact.Refused, w.RCode
		return
	}
	w.Answer = fact.NoData
	for len(w.Addresses) < mostAddresses {
		h, err := p.AnswerHeader()
		if err != nil {
			break // the end of them, or of what can be understood
		}
		addr, err := address(&p, h, w.Family)
		if err != nil {
			break
		}
		if addr.IsValid() {
			w.Addresses = append(w.Addresses, addr)
			w.Answer = fact.Addresses
		}
	}
}

// address returns the address of a record, none when it is of another kind.
func address(p *dnsmessage.Parser, h dnsmessage.ResourceHeader, family fact.AddressFamily) (netip.Addr, error) {
	switch {
	case h.Type == dnsmessage.TypeA && family == fact.OnlyIPv4:
		r, err := p.AResource()
		return netip.AddrFrom4(r.A), err
	case h.Type == dnsmessage.TypeAAAA && family == fact.OnlyIPv6:
		r, err := p.AAAAResource()
		return netip.AddrFrom16(r.AAAA), err
	}
	return netip.Addr{}, p.SkipAnswer()
}
